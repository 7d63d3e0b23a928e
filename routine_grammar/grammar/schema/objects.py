"""Objects as rules: members in order, other properties behind them; counted where that matters, or until some were there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from routine_grammar.errors import SchemaError, UnsupportedSchemaError
from routine_grammar.grammar.schema.algebra import Algebra
from routine_grammar.grammar.schema.meeting import meet_strings, string_holds
from routine_grammar.grammar.schema.refusals import NothingAllowed, Undecided
from routine_grammar.grammar.schema.shapes import Contained, Object, Shape, Some, String
from routine_grammar.grammar.tree import EMPTY, Literal, Node, Optional, Repeat, choice, sequence

MAX_OPTIONAL = 500  # properties of an object that requires none: behind each, any later one may come
MAX_COUNTED = 2_000  # places in an object that counts its properties
MAX_SOME = 3  # properties that there have to be, by what they are
_MEMBERS_A_RULE = 32  # optional members are nested: rules keep the tree shallow
_COMMA = Literal(", ")

Members = Sequence[tuple[Node, bool]]  # name and value, whether it is required


class Nodes(Protocol):
    """What lays out the parts."""

    def called(self, name: str, node: Node) -> Node:
        """A node that is used often."""

    def member(self, name: str, shape: Shape, pointer: str) -> Node | None:
        """A property of this name; None where there is no value."""

    def property(self, names: String, shape: Shape, pointer: str) -> Node | None:
        """A property of any of these names; None where there is none."""


def plain_object(members: Members, others: Node | None, nodes: Nodes, pointer: str) -> Node:
    """An object of members in order, and others behind them."""
    first = next((place for place, (_, each) in enumerate(members) if each), None)
    if first is None and len(members) > MAX_OPTIONAL:
        message = f"an object with {len(members)} properties, none of them required; the bound is {MAX_OPTIONAL}"
        raise SchemaError(message, pointer=f"{pointer}/properties")
    more = [] if others is None else [Repeat(sequence(_COMMA, others))]
    inner: Node
    if first is None:
        shared = [nodes.called("member", member) for member, _ in members]
        last = [] if others is None else [sequence(others, *more)]
        inner = Optional(_at_least_one([*shared, *last], nodes)) if shared or last else Literal("")
    else:
        before = [Optional(sequence(member, _COMMA)) for member, _ in members[:first]]
        behind = [(sequence(_COMMA, member), each) for member, each in members[first + 1 :]]
        inner = sequence(*before, members[first][0], *(node if each else Optional(node) for node, each in behind), *more)
    return sequence(Literal("{"), inner, Literal("}"))


def _at_least_one(members: Sequence[Node], nodes: Nodes) -> Node:
    """At least one of optional members, in order: some of them before another one, which is the last."""
    some = members[-1]
    for place, member in enumerate(reversed(members[:-1]), 1):
        if place % _MEMBERS_A_RULE == 0:
            some = nodes.called("members", some)
        some = choice(sequence(Optional(sequence(member, _COMMA)), some), member)
    return some


def counted_object(members: Members, others: Node | None, low: int, high: int | None, nodes: Nodes, pointer: str) -> Node:
    """An object whose properties are counted: a rule for each member and number of properties before it."""
    most = min(high if high is not None else low, len(members))
    if (len(members) + 1) * (most + 1) > MAX_COUNTED:
        keyword = "minProperties" if high is None else "maxProperties"
        message = f"{keyword!r} over {len(members)} properties is not supported"
        raise UnsupportedSchemaError(message, pointer=f"{pointer}/{keyword}", keyword=keyword)
    shared = [(nodes.called("member", member), required) for member, required in members]
    # What may follow when so many of the properties were written, by how many of the members are passed; None: nothing.
    follows: list[Node | None] = [_tail(others, count, low, high) for count in range(len(members) + 1)]
    for place in range(len(members) - 1, -1, -1):
        member, required = shared[place]
        after, follows = follows, []
        for count in range(place + 1):
            ways = []
            with_it, without = after[count + 1], after[count]
            if with_it is not None and (high is None or count < high):
                ways.append(sequence(*([_COMMA] if count else []), member, with_it))
            if not required and without is not None:
                ways.append(without)
            follows.append(nodes.called("properties", choice(*ways)) if ways else None)
    if follows[0] is None:
        raise NothingAllowed("no object has so few or so many properties", pointer=pointer)
    return sequence(Literal("{"), follows[0], Literal("}"))


def _tail(others: Node | None, count: int, low: int, high: int | None) -> Node | None:
    """Properties that are not declared, behind `count` others; None where there can't be as many as it takes."""
    least, most = max(low - count, 0), None if high is None else high - count
    if most is not None and most < least:
        return None
    if others is None or most == 0:
        return EMPTY if least == 0 else None
    if count:
        return Repeat(sequence(_COMMA, others), least, most)
    listed = sequence(others, Repeat(sequence(_COMMA, others), max(least - 1, 0), None if most is None else most - 1))
    return listed if least else Optional(listed)


class NeedingObject:
    """An object that has to have some properties by what they are: a rule for each member, and what is still to come there.

    What is to come is a bit mask of `kind.some`. `groups` are the properties that are not declared.
    """

    def __init__(self, kind: Object, groups: Sequence[tuple[String, Shape]], algebra: Algebra, nodes: Nodes) -> None:
        required = sum(member.required for _, member in kind.members)
        if kind.low > max(required, 1) or kind.high is not None or len(kind.some) > MAX_SOME:
            raise Undecided("properties that there have to be by what they are, and bounds on how many there are")
        self._kind = kind
        self._groups = groups
        self._algebra = algebra
        self._nodes = nodes
        self._tails: dict[tuple[int, bool], Node | None] = {}

    def node(self) -> Node:
        """The texts of the objects. Raises `NothingAllowed`, `Undecided`."""
        members = list(self._kind.members)
        masks = range(1 << len(self._kind.some))
        if len(members) * len(masks) * 2 > MAX_COUNTED:
            raise Undecided(f"properties that there have to be by what they are, beside {len(members)} others")
        follows = {(mask, begun): self._tail(mask, begun) for mask in masks for begun in (False, True)}
        for name, member in reversed(members):
            after, follows = follows, {}
            for mask in masks:
                ways = list(self._ways_of_member(name, member.shape, mask))
                for begun in (False, True):
                    found = [
                        sequence(*([_COMMA] if begun else []), node, rest)
                        for node, left in ways
                        if (rest := after[left, True]) is not None
                    ]
                    without = after[mask, begun]
                    found += [without] if not member.required and without is not None else []
                    follows[mask, begun] = self._nodes.called("properties", choice(*found)) if found else None
        first = follows[masks[-1], False]
        if first is None:
            raise NothingAllowed("no object has the properties that there have to be", pointer=self._kind.pointer)
        return sequence(Literal("{"), first, Literal("}"))

    def _ways_of_member(self, name: str, shape: Shape, mask: int) -> Iterator[tuple[Node, int]]:
        """A member by what its value is one of, and what is to come after it."""
        asked = [number for number in self._numbers(mask) if string_holds(self._some(number).names, name)]
        for left, some in self._by_value(shape, asked, mask):
            node = self._nodes.member(name, some, self._kind.pointer)
            if node is not None:
                yield node, left

    def _by_value(self, shape: Shape, asked: Sequence[int], mask: int) -> Iterator[tuple[int, Shape]]:
        """A property's values by which of the properties asked for it is, as what is to come after it."""
        for held, some in self._algebra.classes(shape, [Contained(self._some(number).shape) for number in asked]):
            yield mask & ~sum(1 << number for number, holds in zip(asked, held, strict=True) if holds), some

    def _tail(self, mask: int, begun: bool) -> Node | None:
        """Properties that are not declared, until all of what is to come was there."""
        if (mask, begun) not in self._tails:
            self._tails[mask, begun] = self._make_tail(mask, begun)
        return self._tails[mask, begun]

    def _make_tail(self, mask: int, begun: bool) -> Node | None:
        neutral: list[Node] = []
        onward: list[Node] = [] if mask else [EMPTY]
        for node, left in self._ways_of_others(mask):
            if left == mask:
                neutral.append(node)
            elif (rest := self._tail(left, True)) is not None:
                onward.append(sequence(_COMMA, node, rest) if begun else sequence(node, rest))
        if begun:
            more = [Repeat(sequence(_COMMA, choice(*neutral)))] if neutral else []
            return self._nodes.called("properties", sequence(*more, choice(*onward))) if onward else None
        then = self._tail(mask, True)
        if neutral and then is not None:
            onward.append(sequence(choice(*neutral), then))
        return self._nodes.called("properties", choice(*onward)) if onward else None

    def _ways_of_others(self, mask: int) -> Iterator[tuple[Node, int]]:
        """A property that is not declared, by its name and what its value is one of, and what is to come after it."""
        for names, shape in self._groups:
            parts: list[tuple[String, list[int]]] = [(names, [])]
            for number in self._numbers(mask):
                parts = [part for each in parts for part in self._split(*each, number)]
            for part, asked in parts:
                for left, some in self._by_value(shape, asked, mask):
                    node = self._nodes.property(part, some, self._kind.pointer)
                    if node is not None:
                        yield node, left

    def _split(self, names: String, asked: list[int], number: int) -> Iterator[tuple[String, list[int]]]:
        """Names by whether they are those of a property that there has to be."""
        wanted = self._some(number).names
        for kind in meet_strings(names, wanted).kinds:
            if isinstance(kind, String):
                yield kind, [*asked, number]
        for kind in self._algebra.meet(Shape((names,)), self._algebra.denied(Shape((wanted,)))).kinds:
            if isinstance(kind, String):
                yield kind, asked

    def _some(self, number: int) -> Some:
        return self._kind.some[number]

    def _numbers(self, mask: int) -> list[int]:
        return [number for number in range(len(self._kind.some)) if mask >> number & 1]
