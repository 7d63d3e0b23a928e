"""Arrays some of whose items are counted (`contains`, `uniqueItems`): an automaton over places and counts, as rules."""

from __future__ import annotations

from typing import Protocol

from routine_grammar.errors import UnsupportedSchemaError
from routine_grammar.grammar.schema.algebra import Algebra
from routine_grammar.grammar.schema.refusals import NothingAllowed, Undecided
from routine_grammar.grammar.schema.shapes import Array, Shape
from routine_grammar.grammar.tree import EMPTY, MAX_REPEAT, Literal, Node, Optional, Repeat, choice, sequence

MAX_STATES = 2_000
State = tuple[int, tuple[int, ...]]  # the place of the next item, and how many of each shape were met, as far as it matters
Ways = list[tuple[Shape, State]]


class Nodes(Protocol):
    """What lays out the items."""

    def node_if_any(self, shape: Shape) -> Node | None:
        """The texts of a shape's values; None where there are none."""

    def called(self, name: str, node: Node) -> Node:
        """A node that is used often."""


def require_few(kind: Array) -> None:
    """Raise where an array has more items, or has to have, than a rule repeats."""
    for keyword, count in (("minItems", kind.low), ("maxItems", kind.high or 0)):
        if count > MAX_REPEAT:
            told = f"{keyword!r} is not supported here: {count} items; the bound is {MAX_REPEAT}"
            raise UnsupportedSchemaError(told, pointer=kind.pointer, keyword=keyword)


def array_of(kind: Array, algebra: Algebra, nodes: Nodes) -> Node:
    """The texts of an array some of whose items are counted; raises `NothingAllowed` where there is none."""
    states = _States(kind, algebra)
    try:
        ways = states.reachable()
    except Undecided as error:
        raise UnsupportedSchemaError(
            f"'contains' is not supported here: {error}", pointer=kind.pointer, keyword="contains"
        ) from error
    # A state leads to itself or to later ones: counts and places only grow.
    made: dict[State, Node | None] = {}
    for state in sorted(ways, key=lambda state: (state[0], sum(state[1])), reverse=True):
        comma = [Literal(", ")] if state[0] else []
        again: list[Node] = []
        onward: list[Node] = []
        for shape, after in ways[state]:
            rest = EMPTY if after == state else made[after]
            item = nodes.node_if_any(shape) if rest is not None else None
            if item is not None and rest is not None:
                (again if after == state else onward).append(sequence(*comma, nodes.called("item", item), rest))
        ends = states.may_end(state)
        if not onward and not ends:
            made[state] = None
            continue
        last = Optional(choice(*onward)) if onward and ends else choice(*onward) if onward else EMPTY
        made[state] = nodes.called("items", sequence(Repeat(choice(*again)), last) if again else last)
    first = made[states.first]
    if first is None:
        raise NothingAllowed("there is no array with so many items of a kind", pointer=kind.pointer)
    return sequence(Literal("["), first, Literal("]"))


class _States:
    """The states of an array: where places and counts stop to matter they stay as they are."""

    def __init__(self, kind: Array, algebra: Algebra) -> None:
        self._kind, self._algebra = kind, algebra
        starts = [each.start for each in kind.contained]
        self._most = kind.high if kind.high is not None else max(1, len(kind.prefix), kind.low, *starts)
        self.first: State = (0, (0,) * len(kind.contained))
        self._classes: dict[tuple[Shape, tuple[int, ...]], list[tuple[tuple[bool, ...], Shape]]] = {}

    def may_end(self, state: State) -> bool:
        """Whether the array may end."""
        place, counts = state
        return place >= self._kind.low and all(
            count >= each.low for count, each in zip(counts, self._kind.contained, strict=True)
        )

    def reachable(self) -> dict[State, Ways]:
        """All states, with the items that lead on from each."""
        found: dict[State, Ways] = {}
        todo = [self.first]
        while todo:
            state = todo.pop()
            if state not in found:
                if len(found) >= MAX_STATES:
                    raise Undecided(f"counts of items take more than {MAX_STATES} states")
                found[state] = self._ways(state)
                todo += [after for _, after in found[state]]
        return found

    def _ways(self, state: State) -> Ways:
        place, counts = state
        kind = self._kind
        if place == kind.high:
            return []
        shape = kind.prefix[place] if place < len(kind.prefix) else kind.rest
        counting = tuple(number for number, each in enumerate(kind.contained) if each.start <= place)
        if (shape, counting) not in self._classes:
            others = [kind.contained[number].shape for number in counting]
            self._classes[shape, counting] = self._algebra.classes(shape, others)
        ways: Ways = []
        for held, some in self._classes[shape, counting]:
            after = list(counts)
            for number, holds in zip(counting, held, strict=True):
                after[number] += holds
            within = [each.high is None or count <= each.high for count, each in zip(after, kind.contained, strict=True)]
            if all(within):
                kept = [
                    min(count, each.low) if each.high is None else count
                    for count, each in zip(after, kind.contained, strict=True)
                ]
                ways.append((some, (min(place + 1, self._most), tuple(kept))))
        return ways
