"""The Routine: ordered steps, each one use of a tool, with branches below them. Knows no tool but by its name.

run     a step's tool runs, then its branches are considered: at most one is taken, `otherwise` where no condition holds
resume  a branch that ends without `finish` resumes at the step after the branching one, at that one's level
end     after a step with `finish`, or past the mainline's last step
fail    where the tool failed, `on_error` is taken and no other branch; without one, a run ends there
repeat  the steps of `for_each` run once for every item of a list, in its order
at once the calls of `parallel` are made in any order, one or more in a turn, each at most once
call    the steps of `runs` are another Routine's; `finish` ends that one only
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path as FilePath
from typing import Any

from routine_grammar.errors import RoutineError
from routine_grammar.routine.ids import Path
from routine_grammar.routine.keys import IMPLICIT_OUTPUT
from routine_grammar.routine.problems import Origin, nearest, problem_at, refuse

MAX_NESTING = 16
MAX_STEPS = 2_000
MAX_REPETITIONS = 1_000
MAX_PARALLEL = 8


@dataclass(frozen=True, slots=True)
class Variable:
    """An input of a Routine or an output of a step.

    `schema` None: no type is declared. `pointer`: JSON Pointer into the tool's result, "" for all of it; in it, `*` is every
    item of a list, so that what it names is a list too.
    """

    name: str
    schema: Mapping[str, Any] | None = None
    description: str = ""
    pointer: str = ""


@dataclass(frozen=True, slots=True)
class Constant:
    """An argument that is always this JSON value."""

    value: Any


@dataclass(frozen=True, slots=True)
class Key:
    """An argument that is exactly this memory key."""

    key: str


@dataclass(frozen=True, slots=True)
class AnyKey:
    """An argument that is any live key of a compatible type, never a literal."""


@dataclass(frozen=True, slots=True)
class Item:
    """Inside a repetition: the item that it is at, of its own list or of another one (`key`)."""

    key: str | None = None


@dataclass(frozen=True, slots=True)
class Literal:
    """An argument that the model writes, never a key."""


@dataclass(frozen=True, slots=True)
class Omit:
    """An optional argument that is left out."""


Source = Constant | Key | AnyKey | Item | Literal | Omit


@dataclass(frozen=True, slots=True)
class Repetition:
    """The key of the list that steps are repeated over, and the most items that it may have."""

    over: str
    most: int


@dataclass(frozen=True, slots=True)
class Branch:
    """Steps, and when they are taken; exactly one of the other fields says so.

    `condition`, `otherwise`, `on_error`: instead of what else may follow the step. `for_each`, `parallel` and `runs` (the
    name of the Routine whose steps these are): always.
    """

    condition: str | None = None
    otherwise: bool = False
    steps: tuple[Step, ...] = ()
    on_error: bool = False
    for_each: Repetition | None = None
    parallel: bool = False
    runs: str | None = None

    @property
    def is_alternative(self) -> bool:
        """Whether the steps are one way among others to go on from a step whose tool did not fail."""
        return self.condition is not None or self.otherwise


@dataclass(frozen=True, slots=True)
class Step:
    """One use of a tool; without a tool, an announced check that only branches and takes no turn.

    An argument that is not listed is a literal or any live key of a compatible type. `routine`: in place of a tool, the
    Routine to run, its inputs among the arguments. `optional`: a call of a parallel block that need not be made. The Routine
    computes `id`.
    """

    id: str
    name: str
    description: str = ""
    tool: str | None = None
    arguments: Mapping[str, Source] = field(default_factory=dict)
    outputs: tuple[Variable, ...] = ()
    branches: tuple[Branch, ...] = ()
    finish: bool = False
    routine: str | None = None
    optional: bool = False

    @property
    def written(self) -> tuple[Variable, ...]:
        """The outputs that stand in memory after the step: the declared ones, or else `result`."""
        if self.tool is None:
            return ()
        return self.outputs or (Variable(IMPLICIT_OUTPUT),)

    @property
    def handles_errors(self) -> bool:
        """Whether the Routine goes on where the step's tool fails."""
        return any(branch.on_error for branch in self.branches)


@dataclass(frozen=True, slots=True)
class Thought:
    """The most characters of free thought before a call where one step may come next, and where several may."""

    linear: int = 0
    branch: int = 256


class Header(Enum):
    """When a step's header is decoded before its call."""

    AUTO = "auto"  # where two of the steps that may come next share a tool
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Routine:
    """A written procedure. Iterating gives every step in document order; step ids are computed here.

    Raises `RoutineError` past the bounds `MAX_NESTING` of branches and `MAX_STEPS`; what else can be wrong, `check` tells.
    """

    name: str
    description: str = ""
    inputs: tuple[Variable, ...] = ()
    steps: tuple[Step, ...] = ()
    thought: Thought = Thought()
    header: Header = Header.AUTO
    origin: Origin = field(default_factory=Origin, compare=False, repr=False)

    def __post_init__(self) -> None:
        path = _too_deep(self.steps, ("steps",), 0)
        if path is not None:
            message = f"branches are nested deeper than {MAX_NESTING}"
            raise refuse(self.name, self.origin, [problem_at(self.name, path, message, self.origin)])
        count = sum(1 for _ in self)
        if count > MAX_STEPS:
            message = f"has {count} steps; the bound is {MAX_STEPS}"
            raise refuse(self.name, self.origin, [problem_at(self.name, ("steps",), message, self.origin)])
        object.__setattr__(self, "steps", _numbered(self.steps, ""))

    def __iter__(self) -> Iterator[Step]:
        return _walk(self.steps)

    @classmethod
    def load(cls, path: str | FilePath) -> Routine:
        """Read a Routine from a file, by its suffix (.yaml, .yml, .json, .txt, .md) or else by its content.

        Raises `RoutineError` with one line per problem.
        """
        from routine_grammar.routine.reading import load_routine

        return load_routine(FilePath(path))

    @classmethod
    def parse(cls, text: str) -> Routine:
        """Read a Routine from its text form, JSON or YAML, whichever it looks like; raises `RoutineError`."""
        from routine_grammar.routine.reading import parse_routine

        return parse_routine(text)

    def with_routines(self, others: Iterable[Routine]) -> Routine:
        """Return this Routine with the steps of the other ones that it runs put in.

        Raises `RoutineError` where one is missing, is given inputs that it does not have, or runs itself.
        """
        from routine_grammar.routine.inlining import inlined
        from routine_grammar.routine.structure import as_problems

        whole = inlined(self, {other.name: other for other in others})
        if whole.findings:
            raise refuse(self.name, self.origin, as_problems(self, iter(whole.findings)))
        return whole.routine

    @property
    def version(self) -> str:
        """Eight hex digits that change with anything in the Routine but the order in which constants have their names."""
        from routine_grammar.routine.forms import routine_to_document

        canonical = json.dumps(routine_to_document(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:8]

    def step(self, step_id: str) -> Step:
        """Return the step of this id; raises `RoutineError` where there is none."""
        steps = {step.id: step for step in self}
        if step_id not in steps:
            near = nearest(step_id, steps)
            raise RoutineError(
                f"routine {self.name!r} has no step {step_id[:80]!r}" + (f"; did you mean {near!r}?" if near else "")
            )
        return steps[step_id]


def _walk(steps: tuple[Step, ...]) -> Iterator[Step]:
    for step in steps:
        yield step
        for branch in step.branches:
            yield from _walk(branch.steps)


def _too_deep(steps: tuple[Step, ...], path: Path, nesting: int) -> Path | None:
    """Return the path of the first step that is nested too deep, or None; looks no deeper than one level too deep."""
    if nesting > MAX_NESTING:
        return path[:-3]
    for index, step in enumerate(steps):
        for number, branch in enumerate(step.branches):
            found = _too_deep(branch.steps, (*path, index, "branches", number, "steps"), nesting + 1)
            if found is not None:
                return found
    return None


def _numbered(steps: tuple[Step, ...], prefix: str) -> tuple[Step, ...]:
    return tuple(_with_id(step, f"{prefix}{number}") for number, step in enumerate(steps, 1))


def _with_id(step: Step, step_id: str) -> Step:
    branches = tuple(
        replace(branch, steps=_numbered(branch.steps, f"{step_id}-{number}_")) for number, branch in enumerate(step.branches, 1)
    )
    return replace(step, id=step_id, branches=branches)
