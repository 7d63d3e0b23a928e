"""The ways through a Routine: what may come behind each step, and which memory keys decide about it.

In: nested steps. Out: for every node the ways that lead on. A node is the start, a step with a tool, or a parallel branch,
which is entered as a whole. Steps without a tool take no turn: they are passed through.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum

from routine_grammar.routine.ids import branch_id
from routine_grammar.routine.keys import ERROR_OUTPUT, ParsedKey
from routine_grammar.routine.model import Branch, Repetition, Routine, Step
from routine_grammar.routine.positions import START

END = "end"


@dataclass(frozen=True, slots=True)
class Loop:
    """A repetition, by the id of its branch."""

    branch: str
    over: str
    most: int

    def has(self, node: str) -> bool:
        """Whether a step or branch lies in it."""
        return node.startswith(f"{self.branch}_")


class At(Enum):
    """Which item of a list a test looks for."""

    FIRST = "first"
    NEXT = "next"  # behind the one that the run is at
    SAME = "same"  # the one that it is at


@dataclass(frozen=True, slots=True)
class Test:
    """Whether a key must be live for a way, or must not; `at` and `loop` where it is an item of the repetition's list."""

    key: str
    live: bool
    at: At | None = None
    loop: str | None = None

    def name(self, item: int | None) -> str:
        """The key itself, for a run at this item."""
        match self.at:
            case None:
                return self.key
            case At.FIRST:
                return f"{self.key}_0"
            case At.NEXT:
                return f"{self.key}_{(item or 0) + 1}"
            case At.SAME:
                return f"{self.key}_{item or 0}"


@dataclass(frozen=True, slots=True)
class Way:
    """A way to a node or the end, open where all its tests hold; `again`: it begins the next pass of its repetition."""

    target: str
    tests: frozenset[Test] = frozenset()
    again: bool = False

    def under(self, *tests: Test) -> Way:
        """The way with further tests."""
        return replace(self, tests=self.tests | frozenset(tests))

    @property
    def left(self) -> tuple[str, ...]:
        """The branches of the repetitions that end on this way, or are passed by for want of items."""
        return tuple(sorted(test.loop for test in self.tests if test.loop is not None and not test.live))


Ways = tuple[Way, ...]


@dataclass(slots=True)
class Linked:
    """All ways of a Routine, its loops by branch, its parallel calls by branch, and the loop around each node."""

    ways: dict[str, Ways] = field(default_factory=dict)
    loops: dict[str, Loop] = field(default_factory=dict)
    parallel: dict[str, tuple[Step, ...]] = field(default_factory=dict)
    loop_of: dict[str, Loop] = field(default_factory=dict)


def link(routine: Routine) -> Linked:
    """Find all ways, the nodes in document order; linear in steps and ways."""
    linker = _Linker()
    end = (Way(END),)
    ways = linker.linked.ways
    ways[START] = linker.block(routine.steps, end, end, None)
    places = {step.id: place for place, step in enumerate(routine)}
    in_order = sorted(ways, key=lambda node: places.get(node, places.get(f"{node}_1", -1)))
    linker.linked.ways = {node: ways[node] for node in in_order}
    return linker.linked


class _Linker:
    def __init__(self) -> None:
        self.linked = Linked()

    def block(self, steps: Iterable[Step], after: Ways, end: Ways, loop: Loop | None) -> Ways:
        """Link the steps of a block that `after` follows, and `end` where one finishes; return the ways into the block."""
        for step in reversed(tuple(steps)):
            after = self._step(step, after, end, loop)
        return after

    def _step(self, step: Step, after: Ways, end: Ways, loop: Loop | None) -> Ways:
        on = end if step.finish else _fewest(self._branches(step, after, end, loop))
        if step.tool is None:
            return on
        for branch in step.branches:
            if branch.on_error:
                failed = Test(ParsedKey(step.id, ERROR_OUTPUT).text(), True, At.SAME if loop else None)
                handled = self.block(branch.steps, after, end, loop)
                passed = replace(failed, live=False)
                on = _fewest([*(way.under(passed) for way in on), *(way.under(failed) for way in handled)])
        self._put(step.id, on, loop)
        return (Way(step.id),)

    def _branches(self, step: Step, after: Ways, end: Ways, loop: Loop | None) -> list[Way]:
        """The ways behind a step that did not fail."""
        taken: list[Way] = []
        goes_past = True
        for number, branch in enumerate(step.branches, 1):
            if branch.on_error:
                continue
            taken += self._branch(branch_id(step.id, number), branch, after, end, loop)
            goes_past = branch.is_alternative and not branch.otherwise
        return [*taken, *after] if goes_past else taken

    def _branch(self, name: str, branch: Branch, after: Ways, end: Ways, loop: Loop | None) -> Ways:
        if branch.for_each is not None and loop is None:  # one inside another is a problem of the Routine's structure
            return self._repeated(name, branch.for_each, branch.steps, after, end)
        if branch.parallel:
            self.linked.parallel[name] = branch.steps
            self._put(name, after, loop)
            may_pass = all(step.optional for step in branch.steps)
            return (Way(name), *(after if may_pass else ()))
        return self.block(branch.steps, after, after if branch.runs is not None else end, loop)

    def _repeated(self, name: str, repetition: Repetition, steps: tuple[Step, ...], after: Ways, end: Ways) -> Ways:
        loop = self.linked.loops[name] = Loop(name, repetition.over, repetition.most)
        first = self.block(steps, (), end, loop)  # its body can't be passed without a call: what follows does not matter
        is_next = Test(loop.over, True, At.NEXT, name)
        again = [replace(way.under(is_next), again=True) for way in first]
        over = [way.under(replace(is_next, live=False)) for way in after]
        first = self.block(steps, (*again, *over), end, loop)
        is_first = Test(loop.over, True, At.FIRST, name)
        return (*(way.under(is_first) for way in first), *(way.under(replace(is_first, live=False)) for way in after))

    def _put(self, node: str, ways: Ways, loop: Loop | None) -> None:
        self.linked.ways[node] = ways
        if loop is not None:
            self.linked.loop_of[node] = loop


def _fewest(ways: Iterable[Way]) -> Ways:
    """Leave out a way where another one to the same place is open whenever it is."""
    kept: dict[tuple[str, bool], list[Way]] = {}
    for way in ways:
        others = kept.setdefault((way.target, way.again), [])
        if not any(other.tests <= way.tests for other in others):
            others[:] = [other for other in others if not way.tests <= other.tests]
            others.append(way)
    return tuple(way for others in kept.values() for way in others)
