"""Which memory keys are written before each node of a Routine: on every path from the start, and on some path.

Keys are the whole ones, with the default sigil. Inside a repetition the key of one of its outputs is the current item's;
behind it, the list's of all items. Sets of keys are bits, in the order of `Written.keys`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from routine_grammar.routine.keys import ERROR_OUTPUT, ParsedKey
from routine_grammar.routine.model import Routine, Step, Variable
from routine_grammar.routine.positions import START
from routine_grammar.routine.types import TEXT
from routine_grammar.routine.ways import END, At, Linked, Way


@dataclass(frozen=True, slots=True)
class Keys:
    """Sets of keys as bits: written on every path, and on some path."""

    always: int
    sometimes: int


@dataclass(frozen=True, slots=True)
class Written:
    """All keys of a Routine with what they name, and the keys written before each node and by it."""

    keys: Mapping[str, Variable]
    before: Mapping[str, Keys]
    own: Mapping[str, Keys]

    def names(self, bits: int) -> frozenset[str]:
        """The keys of a set."""
        return frozenset(key for key, bit in zip(self.keys, reversed(f"{bits:b}"), strict=False) if bit == "1")

    def bits(self, keys: Iterable[str]) -> int:
        """The set of these keys."""
        wanted = set(keys)
        return sum(1 << place for place, key in enumerate(self.keys) if key in wanted)


def written_by(step: Step) -> list[tuple[str, Variable]]:
    """The keys that a step may write, with what they name: its outputs, and its error where the Routine goes on behind it."""
    named = list(step.written)
    if step.tool is not None and step.handles_errors:
        named.append(Variable(ERROR_OUTPUT, TEXT))
    return [(ParsedKey(step.id, variable.name).text(), variable) for variable in named]


def keys_written(routine: Routine, linked: Linked) -> Written:
    """Meet the keys of all paths, until nothing changes; a pass over all ways for every repetition and one more."""
    inputs = {ParsedKey(None, variable.name).text(): variable for variable in routine.inputs}
    steps = {step.id: step for step in routine}
    keys = inputs | {key: variable for step in steps.values() for key, variable in written_by(step)}
    return _Meeting(keys, inputs, steps, linked).meet()


class _Meeting:
    def __init__(
        self, keys: Mapping[str, Variable], inputs: Mapping[str, Variable], steps: Mapping[str, Step], linked: Linked
    ) -> None:
        self._keys = keys
        self._linked = linked
        self._bit = {key: 1 << place for place, key in enumerate(keys)}
        inputs_bits = self._bits(inputs)
        self._own = {START: Keys(inputs_bits, inputs_bits)}
        self._errors: dict[str, int] = {}
        self._handled: set[str] = {step.id for step in steps.values() if step.handles_errors}
        for node in linked.ways:
            if node in linked.parallel:
                calls = linked.parallel[node]
                needed = [step for step in calls if not step.optional]
                self._own[node] = Keys(self._outputs(needed), self._outputs(calls))
            elif node != START:
                bits = self._outputs([steps[node]])
                self._own[node] = Keys(bits, bits)
        self._inside = {
            name: self._outputs([step for step in steps.values() if loop.has(step.id)]) for name, loop in linked.loops.items()
        }
        self._before: dict[str, Keys] = {}

    def meet(self) -> Written:
        self._before[START] = Keys(0, 0)
        changed = True
        while changed:
            changed = False
            for node in self._linked.ways:
                if node in self._before:
                    changed |= self._go_on(node)
        inputs = self._own[START]
        unreached = {node: inputs for node in self._linked.ways if node not in self._before}
        return Written(self._keys, self._before | unreached, self._own)

    def _go_on(self, node: str) -> bool:
        """Carry the keys of a node over its ways; tell whether that changed anything."""
        changed = False
        for way in self._linked.ways[node]:
            if way.target == END:
                continue
            found = self._after(node, way)
            before = self._before.get(way.target)
            if before is not None:
                found = Keys(before.always & found.always, before.sometimes | found.sometimes)
            changed |= found != before
            self._before[way.target] = found
        return changed

    def _after(self, node: str, way: Way) -> Keys:
        """The keys written where a way leads."""
        before, own = self._before[node], self._own[node]
        failed = node in self._handled and any(self._is_failure(node, test.key) and test.live for test in way.tests)
        if failed:
            error = self._bit[ParsedKey(node, ERROR_OUTPUT).text()]
            own = Keys(error, error)
        always, sometimes = before.always | own.always, before.sometimes | own.sometimes
        around = self._linked.loop_of.get(node)
        if around is not None and (way.again or not (around.has(way.target) or around.branch in way.left)):
            always &= ~self._inside[around.branch]  # the next item's are not written yet; of a list left early, not all are
        for test in way.tests:
            if test.at is At.FIRST and not test.live and test.loop is not None:
                always |= self._lists_of(test.loop)
                sometimes |= self._inside[test.loop]  # where there was no item, all of them are lists, and empty
        return Keys(always, sometimes)

    def _is_failure(self, node: str, key: str) -> bool:
        return key == ParsedKey(node, ERROR_OUTPUT).text()

    def _lists_of(self, loop: str) -> int:
        """The outputs that every pass of a repetition writes: behind it they are lists, empty where there was no item."""
        bits = self._inside[loop]
        for node, around in self._linked.loop_of.items():
            ends = any(test.loop == loop and test.at is At.NEXT for way in self._linked.ways[node] for test in way.tests)
            if around.branch == loop and ends and node in self._before:
                bits &= self._before[node].always | self._own[node].always
        return bits

    def _outputs(self, steps: Iterable[Step]) -> int:
        return self._bits(ParsedKey(step.id, variable.name).text() for step in steps for variable in step.written)

    def _bits(self, keys: Iterable[str]) -> int:
        bits = 0
        for key in keys:
            bits |= self._bit[key]
        return bits
