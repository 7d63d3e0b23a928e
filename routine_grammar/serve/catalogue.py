"""The Routines that a server offers, checked and compiled at start, and the turns taken of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from routine_grammar.api import CompiledRoutine, Turn, compile_routine
from routine_grammar.engines.vllm.grammars import CompiledGrammars
from routine_grammar.errors import RoutineError, RoutineGrammarError
from routine_grammar.kept import Kept
from routine_grammar.masks.matcher import Matcher
from routine_grammar.routine.graph import START
from routine_grammar.routine.keys import MemoryKey
from routine_grammar.routine.model import Routine
from routine_grammar.routine.problems import nearest
from routine_grammar.routine.reading import routines_beside
from routine_grammar.routine.tools import Tool
from routine_grammar.serve.call_ids import CallIdForm, LongIds, ShortIds
from routine_grammar.serve.metrics import CACHE, GRAMMAR_BYTES, GRAMMARS

MAX_TURN_BYTES = 256 * 2**20
TURN_BYTES, TREE_BYTES = 4_000, 12  # about what a turn takes, and its tree for a character of its payload
SUFFIXES = (".yaml", ".yml", ".json", ".txt", ".md")


@dataclass(slots=True)
class Catalogue:
    """Compiled Routines by name, and the tools they may use. Safe to use from several threads.

    `grammars` are the served model's, None before the server knows it.
    """

    tools: tuple[Tool, ...]
    routines: dict[str, CompiledRoutine]
    grammars: CompiledGrammars | None = None
    _ids: dict[str, CallIdForm] = field(default_factory=dict)
    _turns: Kept[tuple[str, str, bool, tuple[tuple[str, str], ...]], Turn] = field(
        default_factory=lambda: Kept(MAX_TURN_BYTES, lambda turn: TURN_BYTES + TREE_BYTES * len(turn.payload))
    )

    @property
    def added_tokens(self) -> tuple[str, ...]:
        """The texts that the served model's tokenizer reads as tokens of their own."""
        return () if self.grammars is None else tuple(self.grammars.vocabulary.special)

    def matcher(self, turn: Turn) -> Matcher:
        """A matcher of a turn over the served model's vocabulary."""
        assert self.grammars is not None
        rows = self.grammars.rows(turn.payload)
        GRAMMARS.set(len(self.grammars))
        GRAMMAR_BYTES.set(self.grammars.nbytes)
        return Matcher(rows)

    def get(self, name: str) -> CompiledRoutine:
        """The Routine of this name; raises `RoutineError` where there is none."""
        if name not in self.routines:
            near = nearest(name, self.routines)
            known = ", ".join(sorted(self.routines)) or "none at all"
            hint = f"; did you mean {near!r}?" if near else ""
            raise RoutineError(f"there is no routine {name!r:.80}; there are {known}{hint}")
        return self.routines[name]

    def ids(self, name: str) -> CallIdForm:
        """How the ids of a Routine's calls are written; raises `RoutineError` where they can't hold its positions."""
        if name not in self._ids:
            scope = self.get(name).scope
            self._ids[name] = ShortIds(scope.graph) if scope.dialect.short_ids else LongIds(scope.graph)
        return self._ids[name]

    def turn(self, name: str, position: str | None, keys: Sequence[MemoryKey], parallel: bool = True) -> Turn:
        """The turn of a Routine; turns that were taken before are kept. `parallel`: it may have several calls."""
        compiled = self.get(name)
        memo = (name, START if position is None else position, parallel, tuple((key.name, repr(key.schema)) for key in keys))
        known = self._turns.get(memo)
        CACHE.labels(str(known is not None).lower()).inc()
        return known or self._turns.put(memo, compiled.turn(position, keys, parallel=parallel))


def load_catalogue(routines: Iterable[Routine], tools: Iterable[Tool], dialect: str) -> Catalogue:
    """Compile all Routines, which may run one another; raises `RoutineError` with every problem of every one at once."""
    tools, routines = tuple(tools), tuple(routines)
    compiled: dict[str, CompiledRoutine] = {}
    problems: list[str] = []
    for routine in routines:
        if routine.name in compiled:
            problems.append(f"two routines are named {routine.name!r}")
            continue
        try:
            compiled[routine.name] = compile_routine(routine, tools, dialect=dialect, routines=routines)
        except RoutineError as error:
            problems += error.problems or (str(error),)
        except RoutineGrammarError as error:
            problems.append("; ".join((f"routine {routine.name!r}: {error}", *getattr(error, "__notes__", ()))))
    catalogue = Catalogue(tools, compiled)
    for name in compiled:
        try:
            catalogue.ids(name)
        except RoutineError as error:
            problems.append(str(error))
    if problems:
        raise RoutineError(f"{len(problems)} problem(s):", tuple(problems))
    return catalogue


def load_routines(folder: Path) -> tuple[Routine, ...]:
    """Every Routine of a folder, or the one of a file with those beside it that it runs.

    Raises `RoutineError` with the problems of all files at once.
    """
    if not folder.exists():
        raise RoutineError(f"{folder}: no such file or folder")
    files = [folder] if folder.is_file() else sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise RoutineError(f"{folder}: no Routine in it; expected files ending in {', '.join(SUFFIXES)}")
    loaded: list[Routine] = []
    problems: list[str] = []
    for file in files:
        try:
            loaded.append(Routine.load(file))
            if folder.is_file():
                beside = routines_beside(file, loaded[0])
                loaded += [beside[name] for name in sorted(beside.keys() - {loaded[0].name})]
        except RoutineError as error:
            problems += error.problems or (str(error),)
    if problems:
        raise RoutineError(f"{folder}: {len(problems)} problem(s):", tuple(problems))
    return tuple(loaded)
