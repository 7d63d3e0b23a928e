"""What schemas say of numbers, strings, counts and names, and how it is told what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from routine_grammar.errors import GrammarError, GrammarTooLargeError, SchemaError, UnsupportedSchemaError
from routine_grammar.grammar.json_number import Bound, decimal_of
from routine_grammar.grammar.schema.documents import Place
from routine_grammar.grammar.schema.formats import INTEGERS, NAMES, SAYS_NOTHING, format_of
from routine_grammar.grammar.schema.shapes import Kind, Number, Shape, String, values_of
from routine_grammar.grammar.terminals import MAX_COUNT
from routine_grammar.patterns.reader import read_search

MAX_LISTED = 30_000  # values of an `enum`: a grammar of more takes longer than a second

Meet = Callable[[Shape, Shape], Shape]


def listed(place: Place, keyword: str, values: list[Any]) -> Shape:
    """The values that a schema lists."""
    # Most of them are told apart without being read one by one.
    apart = len({value for value in values if isinstance(value, str | int | float) and not isinstance(value, bool)})
    if apart <= MAX_LISTED:
        pointer = f"{place.pointer}/{keyword}"
        try:
            shape = values_of(*values, pointer=pointer)
        except ValueError as error:
            raise SchemaError(str(error), pointer=pointer) from error
        apart = len(shape.kinds)
    if apart > MAX_LISTED:
        raise unsupported(place, keyword, f"{apart} values; the bound is {MAX_LISTED}")
    return shape


def number_of(place: Place, meet: Meet, *, is_integer: bool) -> list[Kind]:
    """The numbers that a schema allows."""
    schema = place.schema
    low, high = _bound(place, "minimum", False), _bound(place, "maximum", False)
    for keyword, other in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(schema.get(keyword), bool) and not place.is_from(6):
            if schema[keyword] and other in schema:
                bound = _bound(place, other, True)
                low, high = (bound, high) if other == "minimum" else (low, bound)
        elif keyword in schema:
            bound = _bound(place, keyword, True)
            edge = Number(low=bound) if other == "minimum" else Number(high=bound)
            met = meet(Shape((Number(low, high),)), Shape((edge,)))
            if not met:
                return []
            (kind,) = met.kinds
            assert isinstance(kind, Number)
            low, high = kind.low, kind.high
    multiples = frozenset[Decimal]()
    if "multipleOf" in schema:
        multiple = _numeral(place, "multipleOf")
        if multiple <= 0:
            raise malformed(place, "multipleOf", "a number above 0")
        multiples = frozenset((multiple,))
    plain = True if is_integer and not place.is_from(6) else None
    kind = Number(low, high, multiples, is_integer, plain=plain, pointer=place.pointer)
    name = format_name(place)
    if is_integer and name in INTEGERS:
        most = 2 ** INTEGERS[name]
        kinds = meet(Shape((kind,)), Shape((Number(Bound(Decimal(-most)), Bound(Decimal(most - 1))),)))
        return list(kinds.kinds)
    return [kind] if low is None or high is None else list(meet(Shape((kind,)), Shape((Number(),))).kinds)


def _bound(place: Place, keyword: str, is_open: bool) -> Bound | None:
    return Bound(_numeral(place, keyword), is_open) if keyword in place.schema else None


def _numeral(place: Place, keyword: str) -> Decimal:
    number = place.schema[keyword]
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise malformed(place, keyword, "a number")
    try:
        return decimal_of(number)
    except GrammarTooLargeError as error:
        raise unsupported(place, keyword, str(error)) from error
    except GrammarError as error:
        raise SchemaError(str(error), pointer=f"{place.pointer}/{keyword}") from error


def flag_of(place: Place, keyword: str) -> bool:
    """What a keyword says that is true or false, and false where it is not there."""
    given = place.schema.get(keyword, False)
    if not isinstance(given, bool):
        raise malformed(place, keyword, "true or false")
    return given


def count_of(place: Place, keyword: str) -> int | None:
    """A count; to JSON Schema `2.0` is one too."""
    count = place.schema.get(keyword)
    if isinstance(count, float) and count.is_integer():
        count = int(count)
    if count is None and keyword not in place.schema:
        return None
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise malformed(place, keyword, "a count")
    if count >= MAX_COUNT:
        if keyword.startswith("min"):
            raise unsupported(place, keyword, f"{count}; the bound is {MAX_COUNT - 1}")
        return None  # no text has as many
    return count


def string_of(place: Place, meet: Meet) -> list[Kind]:
    """The strings that a schema allows."""
    schema = place.schema
    low, high = count_of(place, "minLength") or 0, count_of(place, "maxLength")
    found = frozenset[str]()
    if "pattern" in schema:
        check_expression(schema["pattern"], f"{place.pointer}/pattern", "pattern")
        found = frozenset((schema["pattern"],))
    if high is not None and low > high:
        return []
    kind = Shape((String(found, frozenset(), low, high, place.pointer),))
    name = format_name(place)
    if name is not None and name not in SAYS_NOTHING and name not in INTEGERS:
        if (of_format := format_of(name)) is None:
            raise unsupported(place, "format", f"format {name!r:.80} is not known; known are {', '.join(NAMES)}")
        kind = meet(kind, Shape((of_format,)))
    return list(kind.kinds)


def format_name(place: Place) -> str | None:
    """What a schema says of `format`. Raises `SchemaError` where it is no name."""
    name = place.schema.get("format")
    if name is not None and not isinstance(name, str):
        raise malformed(place, "format", "the name of a format")
    return name


def check_expression(text: Any, pointer: str, keyword: str) -> None:
    """Raise where an expression can't be read."""
    if not isinstance(text, str):
        raise SchemaError(f"expected a regular expression, got {text!r:.80}", pointer=pointer)
    try:
        read_search(text)
    except GrammarError as error:
        raise UnsupportedSchemaError(str(error), pointer=pointer, keyword=keyword) from error


def names_of(place: Place, keyword: str, given: Any) -> list[str]:
    """A list of names."""
    if keyword == "required" and isinstance(given, bool) and not place.is_from(4):
        return []
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise malformed(place, keyword, "a list of names")
    return given


def draft_name(number: int) -> str:
    """A draft as people write it."""
    return str(number) if number < 100 else f"{number // 100}-{number % 100:02d}"


def malformed(place: Place, keyword: str, expected: str) -> SchemaError:
    """An error about what a keyword has."""
    return SchemaError(f"expected {expected}, got {place.schema[keyword]!r:.80}", pointer=f"{place.pointer}/{keyword}")


def unsupported(place: Place, keyword: str, told: str) -> UnsupportedSchemaError:
    """An error about a keyword that can't be enforced."""
    return UnsupportedSchemaError(
        f"{keyword!r} is not supported here: {told}", pointer=f"{place.pointer}/{keyword}", keyword=keyword
    )
