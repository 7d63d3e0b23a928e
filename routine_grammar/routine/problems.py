"""What is wrong with a Routine, and where: one `Problem` per finding, printed like a linter's line.

`Origin` remembers the file and the line of every path of the document a Routine was read from.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from routine_grammar.errors import RoutineError
from routine_grammar.routine.ids import Path, header_of, locate

MAX_REPORTED = 100
NO_FILE = "<text>"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a Routine was read from; `lines` (from 1) may lack paths, and is empty for JSON."""

    file: str | None = None
    lines: Mapping[Path, int] = field(default_factory=dict)

    def line_of(self, path: Path) -> int | None:
        """Return the line of a path, or else of the nearest part of the document around it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return None


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. `step` is None outside every step; list places in `field` count from 1, as branch ids do."""

    routine: str
    step: str | None
    field: str | None
    message: str
    suggestion: str | None = None
    line: int | None = None
    file: str | None = None

    def __str__(self) -> str:
        place = [f"routine {self.routine!r}"]
        if self.step:
            place.append(header_of(self.step))
        if self.field:
            place.append(f"field {self.field}")
        suggestion = f"; did you mean {self.suggestion!r}?" if self.suggestion else ""
        return f"{self._prefix()}{', '.join(place)}: {self.message}{suggestion}"

    def _prefix(self) -> str:
        if self.line is not None:
            return f"{self.file or NO_FILE}:{self.line}: "
        return f"{self.file}: " if self.file else ""


def problem_at(routine: str, path: Path, message: str, origin: Origin, suggestion: str | None = None) -> Problem:
    """Return the problem of one path of a Routine's document."""
    step, rest = locate(path)
    within = ".".join(str(part + 1) if isinstance(part, int) else part for part in rest)
    return Problem(routine, step, within or None, message, suggestion, origin.line_of(path), origin.file)


def refuse(routine: str, origin: Origin, problems: Sequence[Problem], more: int = 0) -> RoutineError:
    """Return the error that lists these problems by line, at most `MAX_REPORTED`, and tells of `more`."""
    in_order = sorted(problems, key=lambda problem: problem.line or 0)
    lines = [str(problem) for problem in in_order[:MAX_REPORTED]]
    total = len(problems) + more
    if total > len(lines):
        lines.append(f"… and {total - len(lines)} more")
    count = f"{total} problem{'s' if total != 1 else ''}"
    return RoutineError(f"{origin.file or 'routine ' + repr(routine)}: {count}", tuple(lines))


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name` most likely misspells, or None."""
    if len(name) > 128:
        return None
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def shown(value: object, limit: int = 60) -> str:
    """Return a value as short JSON for a message."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= limit else text[: limit - 1] + "…"
