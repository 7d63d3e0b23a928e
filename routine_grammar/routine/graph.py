"""The position graph of a Routine: which steps may come next, and which memory keys are written by then.

A position is "start" or the id of the step completed last. Steps without a tool take no turn: they are passed through.
All edges lead forward in document order, so that one pass over the steps reaches the fixpoint of every table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

from routine_grammar.errors import RoutineError
from routine_grammar.routine.ids import header_of
from routine_grammar.routine.keys import ParsedKey
from routine_grammar.routine.model import Header, Routine, Step, Variable
from routine_grammar.routine.problems import nearest

START = "start"
_END = "end"


@dataclass(frozen=True, slots=True)
class Successors:
    """What may come next: steps with a tool, in document order, and whether the Routine may end."""

    steps: tuple[Step, ...]
    may_end: bool


@dataclass(frozen=True, slots=True)
class _Written:
    """Sets of keys as bits, in the order of `Graph.variables`."""

    always: int
    sometimes: int


@dataclass(frozen=True, slots=True)
class Graph:
    """A Routine's positions, their successors, and the memory keys (with the default sigil) written before each."""

    routine: Routine
    positions: tuple[str, ...]
    variables: Mapping[str, Variable]
    _successors: Mapping[str, Successors]
    _written: Mapping[str, _Written]

    @classmethod
    def of(cls, routine: Routine) -> Graph:
        """Build the graph; linear in steps and edges."""
        steps = {step.id: step for step in routine}
        following: dict[str, tuple[str, ...]] = {}
        following[START] = _link(routine.steps, (_END,), following)
        positions = (START, *(step.id for step in steps.values() if step.tool is not None))
        written_by = _keys_by_position(routine, positions, steps)
        variables = dict(chain.from_iterable(written_by.values()))
        successors = {
            position: Successors(tuple(steps[i] for i in following[position] if i != _END), _END in following[position])
            for position in positions
        }
        return cls(routine, positions, variables, successors, _written(successors, written_by, list(variables)))

    def successors(self, position: str) -> Successors:
        """Return what may come next; raises `RoutineError` for an unknown position."""
        return self._successors[self._checked(position)]

    def is_headed(self, position: str) -> bool:
        """Whether a step's header is decoded before its call: where its tool alone does not tell the step, or if asked for."""
        tools = [step.tool for step in self.successors(position).steps]
        return len(set(tools)) < len(tools) or (bool(tools) and self.routine.header is Header.ALWAYS)

    def step_taken(self, position: str, content: str | None, tool: str) -> Step:
        """Return the step that a call decoded at `position` belongs to, by its header (the last line of `content`) or tool.

        Raises `RoutineError` where no step that may come next fits.
        """
        fitting = [step for step in self.successors(position).steps if step.tool == tool]
        if self.is_headed(position):
            header = (content or "").rstrip("\n").rpartition("\n")[2]
            fitting = [step for step in fitting if header_of(step.id) == header]
        if len(fitting) != 1:
            legal = ", ".join(f"{header_of(step.id)} ({step.tool})" for step in self.successors(position).steps) or "the end"
            raise RoutineError(
                f"routine {self.routine.name!r}: a call of {tool[:80]!r} at position {position!r} is no step that may come "
                f"next; those are {legal}"
            )
        return fitting[0]

    def keys_before(self, position: str) -> tuple[frozenset[str], frozenset[str]]:
        """Return the keys written on every path, and on some path, from the start up to and including a position.

        Inputs are written at the start. No path leads to an unreachable position: it has the inputs and its own keys.
        """
        written = self._written[self._checked(position)]
        return self._keys(written.always), self._keys(written.sometimes)

    def _keys(self, bits: int) -> frozenset[str]:
        return frozenset(key for key, bit in zip(self.variables, reversed(f"{bits:b}"), strict=False) if bit == "1")

    def _checked(self, position: str) -> str:
        if position in self._successors:
            return position
        near = nearest(position, self.positions)
        shown = ", ".join(self.positions[:20]) + (", …" if len(self.positions) > 20 else "")
        raise RoutineError(
            f"routine {self.routine.name!r} has no position {position[:80]!r}; its positions are {shown}"
            + (f"; did you mean {near!r}?" if near else "")
        )


def _link(steps: tuple[Step, ...], after: tuple[str, ...], following: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Fill in what may follow each step of a block that `after` follows; return what may come first in the block."""
    for step in reversed(steps):
        ways = [_link(branch.steps, after, following) for branch in step.branches]
        if not any(branch.otherwise for branch in step.branches):
            ways.append(after)
        after_step = (_END,) if step.finish else tuple(dict.fromkeys(chain.from_iterable(ways)))
        if step.tool is None:
            after = after_step
        else:
            following[step.id] = after_step
            after = (step.id,)
    return after


def _keys_by_position(
    routine: Routine, positions: tuple[str, ...], steps: Mapping[str, Step]
) -> dict[str, list[tuple[str, Variable]]]:
    written_by = {START: [(ParsedKey(None, variable.name).text(), variable) for variable in routine.inputs]}
    for position in positions[1:]:
        written = steps[position].written
        written_by[position] = [(ParsedKey(position, variable.name).text(), variable) for variable in written]
    return written_by


def _written(
    successors: Mapping[str, Successors], written_by: Mapping[str, list[tuple[str, Variable]]], keys: list[str]
) -> dict[str, _Written]:
    """Meet the keys of all paths, in document order: a position is final when visited, as edges only lead forward."""
    bit = {key: 1 << index for index, key in enumerate(keys)}
    own = {position: sum({bit[key] for key, _ in written}) for position, written in written_by.items()}
    reached = {START: _Written(own[START], own[START])}
    for position, following in successors.items():
        if position not in reached:
            continue
        before = reached[position]
        for step in following.steps:
            always, sometimes = before.always | own[step.id], before.sometimes | own[step.id]
            other = reached.get(step.id)
            if other is not None:
                always, sometimes = always & other.always, sometimes | other.sometimes
            reached[step.id] = _Written(always, sometimes)
    unreachable = {p: _Written(own[START] | own[p], own[START] | own[p]) for p in successors if p not in reached}
    return reached | unreachable
