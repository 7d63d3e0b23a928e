"""Shapes: sets of JSON values as unions of kinds, closed under what JSON Schema's applicators do: meeting, joining, denying.

A kind says all about values of one type. What is recursive, or referred to, is a `Named` kind: its shape is looked up when it
is needed, and two of them meet in a name of their own, so that meeting recursive shapes ends.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from routine_grammar.grammar.json_number import Bound
from routine_grammar.patterns.hashed import Hashed, hashed_once

MAX_EXPONENT_DIGITS = 1_000


def _anything() -> Shape:
    return ANYTHING


@dataclass(frozen=True, slots=True)
class Value:
    """One value. `key` is equal for equal values: `1` is `1.0`, but not `true`; the order of names does not matter."""

    key: str
    value: Any = field(compare=False)
    pointer: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Number:
    """Numbers within bounds, multiples of all of `multiples` and of none of `never`, perhaps integers alone.

    `plain`: spelled with neither a fraction nor an exponent, as drafts before 6 mean integers; False: with one.
    """

    low: Bound | None = None
    high: Bound | None = None
    multiples: frozenset[Decimal] = frozenset()
    is_integer: bool = False
    never: frozenset[Decimal] = frozenset()
    plain: bool | None = None
    pointer: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class String:
    """Strings in which all of `found` are found and none of `never`, of `low` to `high` characters."""

    found: frozenset[str] = frozenset()
    never: frozenset[str] = frozenset()
    low: int = 0
    high: int | None = None
    pointer: str = field(default="", compare=False)


@hashed_once
@dataclass(frozen=True, slots=True)
class Contained(Hashed):
    """How many items of an array, those before `start` not counted, are of a shape: `low` to `high`.

    `looked_at`: no such item counts as unevaluated.
    """

    shape: Shape
    low: int = 1
    high: int | None = None
    start: int = 0
    looked_at: bool = False


@hashed_once
@dataclass(frozen=True, slots=True)
class Array(Hashed):
    """Arrays of `low` to `high` items: the first ones of the shapes of `prefix`, the others of `rest`.

    `looked_at`: how many of the first items some schema has as its own; None: all. Only kept where that matters.
    `is_distinct`: no two items are equal.
    """

    prefix: tuple[Shape, ...] = ()
    rest: Shape = field(default_factory=_anything)
    low: int = 0
    high: int | None = None
    contained: tuple[Contained, ...] = ()
    looked_at: int | None = 0
    is_distinct: bool = False
    pointer: str = field(default="", compare=False)


@hashed_once
@dataclass(frozen=True, slots=True)
class Layer(Hashed):
    """What one schema says of properties that no schema declares: by patterns of their names, else `rest`.

    `rest` None: it says nothing.
    """

    patterns: tuple[tuple[str, Shape], ...] = ()
    rest: Shape | None = None


@hashed_once
@dataclass(frozen=True, slots=True)
class Member(Hashed):
    """A property of its own; `declared`: some schema has it among its properties, and does not only require or forbid it."""

    shape: Shape
    required: bool = False
    declared: bool = True


@hashed_once
@dataclass(frozen=True, slots=True)
class Object(Hashed):
    """Objects of `low` to `high` properties: declared `members` in order, and others as every layer allows.

    `names`: the shape of all names. A member of shape NOTHING is a name that there can't be. `never`: what they are none of.
    """

    members: tuple[tuple[str, Member], ...] = ()
    layers: tuple[Layer, ...] = ()
    names: Shape = field(default_factory=_anything)
    low: int = 0
    high: int | None = None
    never: tuple[Object, ...] = ()
    pointer: str = field(default="", compare=False)

    @property
    def declared(self) -> Mapping[str, Member]:
        """The members by name."""
        return dict(self.members)


@dataclass(frozen=True, slots=True)
class Named:
    """The shape of this name."""

    name: str


@dataclass(frozen=True, slots=True)
class Anything:
    """Every value."""


Kind = Value | Number | String | Array | Object | Named | Anything


@hashed_once
@dataclass(frozen=True, slots=True)
class Shape(Hashed):
    """A union of kinds; without any there is no such value."""

    kinds: tuple[Kind, ...]

    def __bool__(self) -> bool:
        return bool(self.kinds)


NOTHING = Shape(())
ANYTHING: Shape = Shape((Anything(),))


def key_of(value: Any) -> str:
    """A text that is the same for equal JSON values. Raises `ValueError` for what is none, such as an infinite number."""
    if type(value) is str:
        return json.encoder.encode_basestring_ascii(value)
    return json.dumps(_canonical(value), ensure_ascii=True, separators=(",", ":"), allow_nan=False)


class _Numeral(str):
    """A number as its text."""

    def key(self) -> str:
        """The same for equal numbers: as readers tell them apart that hold those with a fraction or exponent as floats."""
        if self.lstrip("-").isdigit():
            return "0" if self == "-0" else str(self)
        if math.isfinite(rounded := float(self)):
            return str(int(Decimal(repr(rounded)))) if rounded == int(rounded) else repr(rounded)
        mantissa, _, exponent = self.lower().partition("e")  # too large for a float
        whole, _, fraction = mantissa.partition(".")
        if len(exponent) > MAX_EXPONENT_DIGITS:
            return str(self)
        digits = (whole + fraction).rstrip("0")
        power = int(exponent) + len(whole) - len(digits)
        return f"{'-' * self.startswith('-')}{digits.lstrip('-0')}e{power}"


def key_of_text(text: bytes) -> str:
    """As `key_of`, of a value as JSON text, with numbers of any size."""
    return key_of(json.loads(text, parse_int=_Numeral, parse_float=_Numeral))


def _canonical(value: Any) -> Any:
    match value:
        case _Numeral():
            return ["number", value.key()]
        case bool() | None | str():
            return value
        case int():
            return ["number", str(value)]
        case float():
            return ["number", _Numeral(repr(value)).key()] if math.isfinite(value) else value
        case dict():
            return {name: _canonical(value[name]) for name in sorted(value)}
        case list() | tuple():
            return ["list", *(_canonical(item) for item in value)]
    raise ValueError(f"{type(value).__name__} is no JSON value")


def value_kind(value: Any, pointer: str = "") -> Value:
    """The kind of one value. Raises as `key_of`."""
    return Value(key_of(value), value, pointer)


def values_of(*values: Any, pointer: str = "") -> Shape:
    """The shape of these values."""
    return Shape(tuple(dict.fromkeys(value_kind(value, pointer) for value in values)))


def type_of(kind: Kind) -> str:
    """The JSON type of a kind's values; empty where it is not of one type alone."""
    match kind:
        case Value(_, value):
            return type_of_value(value)
        case Number():
            return "number"
        case String():
            return "string"
        case Array():
            return "array"
        case Object():
            return "object"
    return ""


def type_of_value(value: Any) -> str:
    """The JSON type of a value; integers are numbers."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case dict():
            return "object"
    return "array"


CONSTANTS = (value_kind(None), value_kind(True), value_kind(False))


def everything(pointer: str = "") -> tuple[Kind, ...]:
    """Every value, by type."""
    return (*CONSTANTS, Number(pointer=pointer), String(pointer=pointer), Array(pointer=pointer), Object(pointer=pointer))


_FREE = {kind: type_of(kind) for kind in (Number(), String(), Array(), Array(looked_at=None), Object())}


def joined(*shapes: Shape) -> Shape:
    """The values of any of some shapes.

    What allows all of a type stands for all that is of this type, and one kind for strings that only differ in their length.
    """
    kinds = tuple(dict.fromkeys(kind for shape in shapes for kind in shape.kinds))
    if Anything() in kinds:
        return ANYTHING
    if sum(isinstance(kind, String) for kind in kinds) > 1:
        kinds = tuple(_with_lengths_joined(kinds))
    free = {_FREE[kind] for kind in kinds if kind in _FREE}
    return Shape(tuple(kind for kind in kinds if kind in _FREE or not free or type_of(kind) not in free))


def _with_lengths_joined(kinds: Sequence[Kind]) -> Iterator[Kind]:
    """The same values, with one kind for strings of which one's length goes on where another's ends."""
    alike: dict[String, list[String]] = {}
    for kind in kinds:
        if isinstance(kind, String):
            alike.setdefault(replace(kind, low=0, high=None), []).append(kind)
    for kind in kinds:
        if not isinstance(kind, String):
            yield kind
        elif some := alike.pop(replace(kind, low=0, high=None), None):
            some.sort(key=lambda each: each.low)
            last = some[0]
            for each in some[1:]:
                if last.high is None or each.low <= last.high + 1:
                    last = replace(last, high=None if None in (last.high, each.high) else max(last.high or 0, each.high or 0))
                else:
                    yield last
                    last = each
            yield last


def are_values(shape: Shape) -> bool:
    """Whether a shape lists its values."""
    return all(isinstance(kind, Value) for kind in shape.kinds)
