"""The values that are not of a kind, as kinds: of its type those that something it says does not hold of, and all others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any, Protocol

from routine_grammar.grammar.json_number import Bound, decimal_of
from routine_grammar.grammar.schema.meeting import one_of
from routine_grammar.grammar.schema.refusals import Undecided
from routine_grammar.grammar.schema.shapes import (
    ANYTHING,
    NOTHING,
    Anything,
    Array,
    Contained,
    Kind,
    Layer,
    Member,
    Number,
    Object,
    Shape,
    Some,
    String,
    Value,
    everything,
    joined,
    type_of,
    values_of,
)


class Denying(Protocol):
    """What tells of shapes."""

    def denied(self, shape: Shape) -> Shape:
        """The values that are not in a shape."""

    def array(self, kind: Array) -> Shape:
        """An array's shape."""

    def object(self, kind: Object) -> Shape:
        """An object's shape."""

    def groups(self, kind: Object, *, with_nothing: bool = False) -> Iterator[tuple[String, Shape]]:
        """The properties that are not declared."""


def _layer_without(algebra: Denying, some: Some) -> Layer:
    """What says that no property is of some kind."""
    other = algebra.denied(some.shape)
    found, never = sorted(some.names.found), sorted(some.names.never)
    if some.names.low or some.names.high is not None or len(found) + len(never) > 1:
        raise Undecided("objects in which no property with some names is of a kind")
    if not found and not never:
        return Layer(rest=other)
    return Layer(((found[0], other),)) if found else Layer(((never[0], ANYTHING),), other)


def denied_kind(algebra: Denying, kind: Kind) -> Shape:
    """The values that are not of a kind, which is no name. Raises `Undecided` where they can't be told exactly."""
    if isinstance(kind, Anything):
        return NOTHING
    others = Shape(tuple(each for each in everything() if type_of(each) != type_of(kind)))
    match kind:
        case Value(_, value):
            return joined(others, _other_values(algebra, kind, value))
        case Number(low, high, multiples, is_integer, never):
            outside = [] if low is None else [Number(high=Bound(low.value, not low.is_open))]
            outside += [Number(low=Bound(high.value, not high.is_open))] if high is not None else []
            outside += [Number(never=frozenset((multiple,))) for multiple in sorted(multiples)]
            outside += [Number(never=frozenset((Decimal(1),)))] if is_integer else []
            outside += [Number(multiples=frozenset((multiple,))) for multiple in sorted(never)]
            return joined(others, Shape(tuple(outside)))
        case String(found, never, low, high):
            ways = [String(never=frozenset((pattern,))) for pattern in sorted(found)]
            ways += [String(found=frozenset((pattern,))) for pattern in sorted(never)]
            ways += [String(high=low - 1)] if low else []
            ways += [String(low=high + 1)] if high is not None else []
            return joined(others, Shape(tuple(ways)))
        case Array():
            return joined(others, _denied_array(algebra, kind))
        case Object():
            return joined(others, _denied_object(algebra, kind))
    raise AssertionError(kind)


def _other_values(algebra: Denying, kind: Value, value: Any) -> Shape:
    """The other values of a value's type."""
    match value:
        case None:
            return NOTHING
        case bool():
            return Shape(tuple(each for each in everything() if isinstance(each, Value) and each.value is (not value)))
        case int() | float():
            number = decimal_of(value)
            return Shape((Number(high=Bound(number, True)), Number(low=Bound(number, True))))
        case str():
            return Shape((String(never=frozenset((one_of([value]),))),))
        case list():
            return _denied_array(algebra, Array(tuple(map(values_of, value)), NOTHING, len(value), len(value)))
        case dict() if not value:
            return Shape((Object(low=1),))
    raise Undecided("an object that is not equal to a value")


def _denied_array(algebra: Denying, kind: Array) -> Shape:
    if kind.is_distinct:
        raise Undecided("arrays in which some item comes twice")
    ways = [Array(high=kind.low - 1)] if kind.low else []
    ways += [Array(low=kind.high + 1)] if kind.high is not None else []
    for place, shape in enumerate(kind.prefix):
        if shape != ANYTHING:
            before = (ANYTHING,) * place
            ways.append(Array(prefix=(*before, algebra.denied(shape)), low=place + 1))
    own = len(kind.prefix)
    if kind.rest == NOTHING:
        ways.append(Array(low=own + 1))
    elif kind.rest != ANYTHING:
        ways.append(Array(contained=(Contained(algebra.denied(kind.rest), start=own),)))
    for each in kind.contained:
        ways += [Array(contained=(replace(each, low=0, high=each.low - 1, looked_at=False),))] if each.low else []
        if each.high is not None:
            ways.append(Array(contained=(replace(each, low=each.high + 1, high=None, looked_at=False),)))
    return Shape(tuple(kind for way in ways for kind in algebra.array(way).kinds))


def _denied_object(algebra: Denying, kind: Object) -> Shape:
    required = sum(member.required for _, member in kind.members)
    ways = [Object(high=kind.low - 1)] if kind.low > required else []
    ways += [Object(low=kind.high + 1)] if kind.high is not None else []
    for name, member in kind.members:
        if member.required:
            ways.append(Object(members=((name, Member(NOTHING, declared=False)),)))
        if member.shape != ANYTHING:
            ways.append(Object(members=((name, Member(algebra.denied(member.shape), True, declared=False)),)))
    if kind.names != ANYTHING:
        others = algebra.denied(kind.names).kinds
        ways += [Object(some=(Some(names, ANYTHING),)) for names in others if isinstance(names, String)]
    for names, shape in algebra.groups(kind, with_nothing=True):
        if shape != ANYTHING:
            ways.append(Object(some=(Some(names, algebra.denied(shape)),)))
    for each in kind.some:
        ways.append(Object(layers=(_layer_without(algebra, each),)))
    return Shape(tuple(each for way in ways for each in algebra.object(way).kinds))
