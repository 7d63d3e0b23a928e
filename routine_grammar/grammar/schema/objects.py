"""Objects as rules: members in order, other properties behind them; counted where that matters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from routine_grammar.errors import UnsupportedSchemaError
from routine_grammar.grammar.schema.refusals import NothingAllowed
from routine_grammar.grammar.schema.shapes import Shape, String
from routine_grammar.grammar.tree import EMPTY, Literal, Node, Optional, Repeat, choice, sequence

MAX_OPTIONAL = 1_500  # properties of an object that requires none: behind each, any later one may come
MAX_COUNTED = 2_000  # places in an object that counts its properties
_MEMBERS_A_RULE = 32  # optional members are nested: rules keep the tree shallow
_COMMA = Literal(", ")

Members = Sequence[tuple[Node, bool]]  # name and value, whether it is required


class Nodes(Protocol):
    """What lays out the parts."""

    def called(self, name: str, node: Node) -> Node:
        """A node that is used often."""

    def member(self, name: str, shape: Shape, pointer: str) -> Node | None:
        """A property of this name; None where there is no value."""

    def property(self, names: String, shape: Shape, pointer: str, *, once: bool = False) -> Node | None:
        """A property of any of these names, no name twice within `distinct` where asked for; None where there is none."""

    def distinct(self, node: Node, pointer: str, least: int = 0) -> Node:
        """An object of which no name that is not declared comes twice."""


def plain_object(members: Members, others: Node | None, nodes: Nodes, pointer: str) -> Node:
    """An object of members in order, and others behind them."""
    first = next((place for place, (_, each) in enumerate(members) if each), None)
    if first is None and len(members) > MAX_OPTIONAL:
        message = f"'properties' of {len(members)} names, none of them required, are not supported; the bound is {MAX_OPTIONAL}"
        raise UnsupportedSchemaError(message, pointer=f"{pointer}/properties", keyword="properties")
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
