"""Steps that say by their ids where they belong, put together to a document, in the order in which they come."""

from __future__ import annotations

import re
from pathlib import Path as FilePath
from typing import Any

from routine_grammar.routine.ids import branch_step_id, branches_around, header_of
from routine_grammar.routine.model import MAX_NESTING

_STEM = re.compile("[A-Za-z][A-Za-z0-9_-]{0,63}")


def default_name(file: str) -> str:
    """Return the name of a Routine that does not say its own: its file's."""
    stem = FilePath(file).stem
    return stem if _STEM.fullmatch(stem) else "routine"


class Outline:
    """The documents of steps, nested as their ids say."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self._placed: dict[str, dict[str, Any]] = {}

    def place(self, step_id: str, step: dict[str, Any], guard: dict[str, Any]) -> None:
        """Put a step where it belongs; `guard` is the condition of the branch that it begins.

        Raises `ValueError` where the id is not next.
        """
        self._list_for(step_id, guard).append(step)
        self._placed[step_id] = step

    def _list_for(self, step_id: str, guard: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the list that a step belongs to the end of."""
        around = branches_around(step_id)
        if not around:
            _require_next(step_id, [str(len(self.steps) + 1)])
            return self.steps
        check, branch = around[-1]
        if len(around) > MAX_NESTING:
            raise ValueError(f"branches are nested {len(around)} deep, expected at most {MAX_NESTING}")
        if check not in self._placed:
            raise ValueError(f"{header_of(step_id)} stands before {header_of(check)}, which it branches from")
        branches = self._placed[check].setdefault("branches", [])
        expected = [branch_step_id(check, len(branches) + 1, 1)]
        expected += [branch_step_id(check, n, len(each["steps"]) + 1) for n, each in enumerate(branches, 1)]
        _require_next(step_id, expected)
        if branch > len(branches):
            branches.append({**guard, "steps": []})
        placed: list[dict[str, Any]] = branches[branch - 1]["steps"]
        return placed


def _require_next(step_id: str, expected: list[str]) -> None:
    if step_id not in expected:
        last = " or ".join(header_of(each) for each in (expected[0], *expected[1:][-1:]))
        raise ValueError(f"{header_of(step_id)} is out of order; expected {last} here")
