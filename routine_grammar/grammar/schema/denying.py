"""The values that are not of a kind, as kinds: of its type those that something it says does not hold of, and all others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
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
    String,
    Value,
    are_values,
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

    def meet(self, one: Shape, other: Shape) -> Shape:
        """The values that are in both shapes."""

    def may_be(self, shape: Shape) -> bool:
        """Whether a shape may have a value."""


def denied_kind(algebra: Denying, kind: Kind) -> Shape:
    """The values that are not of a kind, which is no name. Raises `Undecided` where they can't be told exactly."""
    if isinstance(kind, Anything):
        return NOTHING
    others = Shape(tuple(each for each in everything() if type_of(each) != type_of(kind)))
    match kind:
        case Value(_, value):
            return joined(others, _other_values(algebra, kind, value))
        case Number(low, high, multiples, is_integer, never, plain):
            outside = [] if low is None else [Number(high=Bound(low.value, not low.is_open))]
            outside += [Number(low=Bound(high.value, not high.is_open))] if high is not None else []
            outside += [Number(never=frozenset((multiple,))) for multiple in sorted(multiples)]
            outside += [Number(never=frozenset((Decimal(1),)))] if is_integer and not plain else []
            outside += [Number(plain=not plain)] if plain is not None else []
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
            return denied_objects(algebra, (kind,))
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
        case dict():
            members = tuple((name, Member(values_of(item), True, declared=False)) for name, item in value.items())
            return denied_objects(algebra, (Object(members, (Layer(rest=NOTHING),)),))
    raise AssertionError(kind)


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


def denied_objects(algebra: Denying, kinds: Sequence[Object]) -> Shape:
    """The values that are of none of some kinds of objects."""
    never = tuple(kind for kind in kinds if not (_is_of_one_name(kind) or _is_denial(kind)))
    members: dict[str, Member] = {}
    for kind in filter(_is_of_one_name, kinds):
        for name, member in (each for way in outside(algebra, kind) for each in way.members):
            before = members.get(name, Member(ANYTHING, declared=False))
            shape = algebra.meet(before.shape, member.shape)
            members[name] = Member(shape, before.required or member.required, declared=False)
    found = algebra.object(Object(tuple(members.items()), never=never))
    for kind in filter(_is_denial, kinds):
        found = algebra.meet(found, Shape(kind.never))
    return joined(Shape(tuple(each for each in everything() if not isinstance(each, Object))), found)


def _is_denial(kind: Object) -> bool:
    """Whether an object is any that another is not."""
    return len(kind.never) == 1 and kind == Object(never=kind.never)


def _is_of_one_name(kind: Object) -> bool:
    """Whether an object says something of one name alone: then one way leads out of it."""
    said = [member for _, member in kind.members if member.required or member.shape != ANYTHING]
    is_counted = kind.low > sum(member.required for member in said) or kind.high is not None
    return len(said) == 1 and not is_counted and kind.names == ANYTHING and not (kind.layers or kind.never)


def outside(algebra: Denying, kind: Object) -> list[Object]:
    """Ways out of an object: what lies on none of them is of it.

    Raises `Undecided` where it says more than of its members and how many properties there are.
    """
    if kind.layers or kind.names != ANYTHING:
        raise Undecided("objects that are none by properties that are not named")
    required = sum(member.required for _, member in kind.members)
    ways = [Object(high=kind.low - 1)] if kind.low > required else []
    ways += [Object(low=kind.high + 1)] if kind.high is not None else []
    for name, member in kind.members:
        if member.required:
            ways.append(Object(members=((name, Member(algebra.denied(member.shape), declared=False)),)))
        elif member.shape != ANYTHING:
            ways.append(Object(members=((name, Member(algebra.denied(member.shape), True, declared=False)),)))
    met = [algebra.meet(Shape((replace(kind, never=()),)), Shape((each,))) for each in kind.never]
    return ways + [each for shape in met for each in shape.kinds if isinstance(each, Object)]


def spread(algebra: Denying, kind: Object) -> list[Object]:
    """An object as several, none of which has others to be none of. Raises `Undecided` where it can't be."""
    shape = Shape((replace(kind, never=()),))
    for each in kind.never:
        shape = algebra.meet(shape, Shape(tuple(outside(algebra, each))))
    objects = [each for each in shape.kinds if isinstance(each, Object)]
    return [plain for each in objects for plain in (spread(algebra, each) if each.never else [each])]


def flattened(algebra: Denying, kind: Object) -> list[Object]:
    """An object as several, of which none has others to be none of that have some themselves."""
    shape = Shape((replace(kind, never=()),))
    for each in kind.never:
        shape = algebra.meet(shape, Shape((Object(never=(replace(each, never=()),)), *_inner(algebra, each))))
    objects = [each for each in shape.kinds if isinstance(each, Object)]
    return [flat for each in objects for flat in (flattened(algebra, each) if is_nested(each) else [each])]


def _inner(algebra: Denying, kind: Object) -> Iterator[Kind]:
    """What lies within a kind and is of one that it has to be none of: of the first such, as far as that can be told.

    So the ways of `if`, `then` and `else` stay apart, and none is added that others have together.
    """
    left = Shape((replace(kind, never=()),))
    for each in kind.never:
        yield from algebra.meet(left, Shape((each,))).kinds
        with suppress(Undecided):
            left = algebra.meet(left, algebra.denied(Shape((each,))))


def is_nested(kind: Object) -> bool:
    """Whether an object has others to be none of that have some themselves."""
    return any(each.never for each in kind.never)


def in_one_alone(algebra: Denying, ways: Sequence[Shape], schemas: Sequence[Shape]) -> Shape:
    """The values that are in one of some `ways` alone, which are what is left of some `schemas`."""
    if all(map(are_values, ways)):
        values = [kind for way in ways for kind in way.kinds if isinstance(kind, Value)]
        count = Counter(kind.key for kind in values)
        return Shape(tuple(kind for kind in values if count[kind.key] == 1))
    pairs = [(one, other) for one in range(len(ways)) for other in range(one)]
    overlapping: dict[int, list[Shape]] = {}
    for one, other in [(one, other) for one, other in pairs if algebra.may_be(algebra.meet(ways[one], ways[other]))]:
        overlapping.setdefault(one, []).append(schemas[other])
        overlapping.setdefault(other, []).append(schemas[one])
    denied = {number: algebra.denied(joined(*others)) for number, others in overlapping.items()}
    return joined(*(algebra.meet(way, denied.get(number, ANYTHING)) for number, way in enumerate(ways)))
