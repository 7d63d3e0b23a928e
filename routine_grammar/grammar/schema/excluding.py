"""Objects that are none of others: a rule for each place, and for which of the others the object may still be there.

Properties come in order. Each leaves, of the others, those that allow it, and so tells by its value which ones these are. Where
the object ends it may be none of those that are left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

from routine_grammar.effort import A_PAIR, A_PART, spend
from routine_grammar.grammar.schema.algebra import Algebra
from routine_grammar.grammar.schema.meeting import meet_strings
from routine_grammar.grammar.schema.objects import Nodes
from routine_grammar.grammar.schema.refusals import NothingAllowed, Undecided
from routine_grammar.grammar.schema.shapes import ANYTHING, NOTHING, Member, Object, Shape, String
from routine_grammar.grammar.tree import EMPTY, Literal, Node, Repeat, choice, sequence
from routine_grammar.patterns.reader import found_in

MAX_STATES = 10_000
_COMMA = Literal(", ")

State = tuple[int, int]  # how many properties there are, as far as that matters, and which of the others may be there, as bits


class Other(NamedTuple):
    """One of the others: a kind, and the numbers of those that what it says does not count for."""

    kind: Object
    never: tuple[int, ...]


class Said(NamedTuple):
    """What some of the others say of a property; `numbers` are theirs, as bits."""

    shape: Shape
    numbers: int


class ExcludingObject:
    """An object of a kind that has others to be none of; all names of those are members of it.

    `groups` are the properties that are not declared.
    """

    def __init__(self, kind: Object, groups: Sequence[tuple[String, Shape]], algebra: Algebra, nodes: Nodes) -> None:
        self._kind = kind
        self._groups = groups
        self._algebra = algebra
        self._nodes = nodes
        self._others: list[Other] = []
        self._denied = self._numbered(kind.never)
        self._bounds = [bound for each in (kind, *(other.kind for other in self._others)) for bound in _bounds_of(each)]
        self._most = max(self._bounds, default=0) + 1
        self._tails: dict[State, Node | None] = {}
        self._members: dict[tuple[str, Shape], Node | None] = {}
        self._nested = [(number, _bits(never)) for number, (_, never) in reversed([*enumerate(self._others)]) if never]
        self._same = list(self._interchangeable())
        self._sayings: dict[str, list[Said]] = {}
        required = sum(member.required for _, member in kind.members)
        highs = [other.kind.high + 1 for other in self._others if other.kind.high is not None]
        if groups and any(least > required + 1 for least in (kind.low, *highs)):
            raise Undecided(
                "as many properties as there have to be, of which some are not named, beside objects that are denied"
            )

    def node(self) -> Node:
        """The texts of the objects. Raises `NothingAllowed`, `Undecided`."""
        ways = self._reachable()
        after: dict[State, Node | None] = {state: self._tail(state) for state in ways.pop()}
        for (name, _), states in zip(reversed(self._kind.members), reversed(ways), strict=True):
            before: dict[State, Node | None] = {}
            for state, found in states.items():
                nodes = [node for shape, to in found if (node := self._with(name, shape, state, after[to])) is not None]
                before[state] = self._nodes.called("properties", choice(*nodes)) if nodes else None
            after = before
        first = after[self._first]
        if first is None:
            raise NothingAllowed("there is no object that is none of others", pointer=self._kind.pointer)
        whole = sequence(Literal("{"), first, Literal("}"))
        return self._nodes.distinct(whole, f"{self._kind.pointer}/not") if self._once else whole

    @cached_property
    def _once(self) -> bool:
        """Whether a property that is not declared may allow an object by its value, being none of what is denied.

        Then a name comes once: the same one behind it might take that back. Where other names may stand there as well, they
        can't be told apart as they are read, and readers of a name that comes twice differ anyway.
        """
        everyone = (1 << len(self._others)) - 1
        ways = [by_value for _, by_value in self._told_others(everyone)]
        alone = len(ways) == 1 and not any(self._algebra.may_be(member.shape) for _, member in self._kind.members)
        return alone and len({left & self._allowing for left, _ in ways[0]}) > 1

    @cached_property
    def _allowing(self) -> int:
        """Those of the others of which to be none allows an object, and does not forbid one, as bits."""
        found, todo = 0, [(number, True) for number in self._denied]
        while todo:
            number, allows = todo.pop()
            found |= allows << number
            todo += [(inner, not allows) for inner in self._others[number].never]
        return found

    @property
    def _first(self) -> State:
        return 0, self._lowest(0, (1 << len(self._others)) - 1)

    def _numbered(self, kinds: Sequence[Object]) -> tuple[int, ...]:
        """Put kinds among the others, before each those that it is none of; returns their numbers."""
        numbers = []
        for kind in kinds:
            never = self._numbered(kind.never)
            numbers.append(len(self._others))
            self._others.append(Other(kind, never))
        return tuple(numbers)

    def _with(self, name: str, shape: Shape | None, state: State, rest: Node | None) -> Node | None:
        """A property of a shape, or none, before the rest; None where there is no such object."""
        if shape is None or rest is None:
            return rest
        if (name, shape) not in self._members:
            self._members[name, shape] = self._nodes.member(name, shape, self._kind.pointer)
        member = self._members[name, shape]
        return None if member is None else sequence(*([_COMMA] if state[0] else []), member, rest)

    def _reachable(self) -> list[dict[State, list[tuple[Shape | None, State]]]]:
        """The states before each member, and behind all, with the ways from each."""
        found: list[dict[State, list[tuple[Shape | None, State]]]] = []
        states, total = [self._first], 0
        for place, (name, member) in enumerate(self._kind.members):
            by_left = {left: self._ways_of_member(name, member.shape, left) for _, left in states}
            ways: dict[State, list[tuple[Shape | None, State]]] = {}
            for state in states:
                ways[state] = [(shape, (self._one_more(state), left)) for left, shape in by_left[state[1]]]
                if self._kind.high is not None and state[0] >= self._kind.high:
                    ways[state] = []
                if not member.required:
                    ways[state].append((None, (state[0], self._without(name, state[1]))))
                ways[state] = [(shape, (count, self._lowest(place + 1, left))) for shape, (count, left) in ways[state]]
            found.append(ways)
            spend((A_PAIR + len(self._same[place + 1]) // 8) * sum(map(len, ways.values())))
            states = list(dict.fromkeys(to for some in ways.values() for _, to in some))
            total += len(states)
            if total > MAX_STATES:
                raise Undecided(f"objects that are none of others take more than {MAX_STATES} states")
        return [*found, {state: [] for state in states}]

    def _interchangeable(self) -> Iterator[list[tuple[int, int]]]:
        """Before each member, and behind all: those of the others that say the same from there on, and the first, as bits."""
        above = {inner: number for number, other in enumerate(self._others) for inner in other.never}
        keys: list[tuple[object, ...]] = [
            (number if never else -1, above.get(number), kind.layers, kind.names, *_bounds_of(kind))
            for number, (kind, never) in enumerate(self._others)
        ]
        told = [dict(enumerate(keys))]
        for name, _ in reversed(self._kind.members):
            of = {key: number for number, key in enumerate(dict.fromkeys(keys))}
            keys = [
                (of[key], self._said(number, name), (member := other.kind.declared.get(name)) is not None and member.required)
                for number, (key, other) in enumerate(zip(keys, self._others, strict=True))
            ]
            told.append(dict(enumerate(keys)))
        for at in reversed(told):
            same: dict[object, int] = {}
            for number, key in at.items():
                same[key] = same.get(key, 0) | 1 << number
            yield [(numbers, numbers & -numbers) for numbers in same.values()]

    def _lowest(self, place: int, left: int) -> int:
        """Which of the others are left, one alone of those that say the same from a place on; none that are in vain."""
        for number, never in self._nested:
            if not left >> number & 1:
                left &= ~never
        return sum(first for numbers, first in self._same[place] if left & numbers)

    def _one_more(self, state: State) -> int:
        return min(state[0] + 1, self._most)

    def _without(self, name: str, left: int) -> int:
        """Which of the others are left where a property is not there."""
        return left & ~self._requiring.get(name, 0)

    @cached_property
    def _requiring(self) -> dict[str, int]:
        """The others that require a property, as bits."""
        found: dict[str, int] = {}
        for number, other in enumerate(self._others):
            for name, member in other.kind.members:
                if member.required:
                    found[name] = found.get(name, 0) | 1 << number
        return found

    def _ways_of_member(self, name: str, shape: Shape, left: int) -> list[tuple[int, Shape]]:
        if name not in self._sayings:
            self._sayings[name] = _gathered({number: self._said(number, name) for number in range(len(self._others))})
        return list(self._told(shape, self._sayings[name], left)) if self._algebra.may_be(shape) else []

    def _said(self, number: int, name: str) -> Shape:
        """What one of the others says of a property."""
        spend(A_PAIR // 2)
        other = self._others[number].kind
        return self._algebra.of_name(other, name) if self._algebra.holds(other.names, name) else NOTHING

    def _told(self, shape: Shape, sayings: Sequence[Said], left: int) -> Iterator[tuple[int, Shape]]:
        """A property's values by which of the others they leave."""
        by_shape: dict[Shape, int] = {}
        for said, numbers in sayings:
            if not left & numbers:
                continue
            if not self._algebra.may_be(said):
                left &= ~numbers
            elif not self._algebra.is_told_within(shape, said):
                by_shape[said] = left & numbers
        for held, some in self._algebra.classes(shape, list(by_shape)):
            gone = sum(numbers for holds, numbers in zip(held, by_shape.values(), strict=True) if not holds)
            yield left & ~gone, some

    # Properties that are not declared

    def _tail(self, state: State) -> Node | None:
        """Properties that are not declared, to the end of the object; None where it can't end."""
        if state not in self._tails:
            self._tails[state] = self._make_tail(state)
        return self._tails[state]

    def _make_tail(self, state: State) -> Node | None:
        spend(A_PART + len(self._others))
        again: list[Node] = []
        onward: list[Node] = [EMPTY] if self._may_end(state) else []
        comma = [_COMMA] if state[0] else []
        if self._kind.high is None or state[0] < self._kind.high:
            for node, left in self._ways_of_others(state[1]):
                to = self._one_more(state), left
                if to == state:
                    again.append(sequence(*comma, node))
                elif (rest := self._tail(to)) is not None:
                    onward.append(sequence(*comma, node, rest))
        if not onward:
            return None
        more = [Repeat(choice(*again))] if again else []
        return self._nodes.called("properties", sequence(*more, choice(*onward)))

    def _may_end(self, state: State) -> bool:
        """Whether the object may end: it has as many properties as it needs, and is none of the others."""
        count, left = state
        return _is_within(count, self._kind) and not any(self._is(number, count, left) for number in self._denied)

    def _is(self, number: int, count: int, left: int) -> bool:
        """Whether the object is of one of the others where it ends so."""
        kind, never = self._others[number]
        return bool(left >> number & 1) and _is_within(count, kind) and not any(self._is(each, count, left) for each in never)

    def _ways_of_others(self, left: int) -> Iterator[tuple[Node, int]]:
        """A property that is not declared, and which of the others it leaves."""
        for part, by_value in self._told_others(left):
            for still, some in by_value:
                node = self._nodes.property(part, some, self._kind.pointer, once=self._once)
                if node is not None:
                    yield node, still

    def _told_others(self, left: int) -> Iterator[tuple[String, list[tuple[int, Shape]]]]:
        """Names of properties that are not declared, and which of the others their values leave."""
        for names, shape in self._groups:
            parts: list[tuple[String, dict[int, Shape]]] = [(names, {})]
            for number in range(len(self._others)):
                other = self._others[number].kind
                if left >> number & 1 and (other.layers or other.names != ANYTHING):
                    parts = [part for each in parts for part in self._parts(*each, number)]
            for part, asked in parts:
                yield part, list(self._told(shape, _gathered(asked), left))

    def _parts(self, names: String, asked: dict[int, Shape], number: int) -> Iterator[tuple[String, dict[int, Shape]]]:
        """Names by what one of the others says of their properties."""
        spend(A_PART)
        other = self._others[number].kind
        theirs = Object(self._kind.members, other.layers, other.names)
        for group, said in self._algebra.groups(theirs, with_nothing=True):
            for kind in meet_strings(names, group).kinds:
                if isinstance(kind, String):
                    yield kind, {**asked, number: said}
        if other.names != ANYTHING:
            for kind in self._algebra.meet(Shape((names,)), self._algebra.denied(other.names)).kinds:
                if isinstance(kind, String):
                    yield kind, {**asked, number: NOTHING}


def _bits(numbers: Iterable[int]) -> int:
    return sum(1 << number for number in numbers)


def _gathered(asked: Mapping[int, Shape]) -> list[Said]:
    found: dict[Shape, int] = {}
    for number, shape in asked.items():
        found[shape] = found.get(shape, 0) | 1 << number
    return [Said(shape, numbers) for shape, numbers in found.items()]


def with_names_of_others(kind: Object, algebra: Algebra, *, closed: bool) -> Object:
    """An object with all names as its own that objects have which it is none of; where closed, those that it allows."""
    names = dict.fromkeys(name for name in _names_of_others(kind) if name not in kind.declared)
    patterns = [pattern for layer in kind.layers for pattern, _ in layer.patterns]
    members = []
    for name in names:
        is_allowed = not closed or any(found_in(pattern, name) for pattern in patterns)
        shape = algebra.of_name(kind, name) if is_allowed and algebra.holds(kind.names, name) else NOTHING
        members.append((name, Member(shape, declared=False)))
    return replace(kind, members=(*kind.members, *members))


def _names_of_others(kind: Object) -> Iterator[str]:
    for each in kind.never:
        yield from (name for name, _ in each.members)
        yield from _names_of_others(each)


def _bounds_of(kind: Object) -> list[int]:
    """The numbers of properties that tell whether an object is of a kind, beside those that are required."""
    low = [kind.low] if kind.low > sum(member.required for _, member in kind.members) else []
    return low if kind.high is None else [*low, kind.high]


def _is_within(count: int, kind: Object) -> bool:
    """Whether so many properties are as many as a kind has, where it says more of that than which are required."""
    bounds = _bounds_of(kind)
    return not bounds or (kind.low <= count and (kind.high is None or count <= kind.high))
