"""JSON's escapes of characters, spelled out as patterns of characters as they are."""

from __future__ import annotations

from functools import lru_cache

from routine_grammar.patterns.charset import HEX, CharSet, Ranges
from routine_grammar.patterns.pattern import Chars, Pattern, Times, concat, either, literal

SHORT_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}


@lru_cache(maxsize=256)
def escapes_of(chars: CharSet) -> Pattern:
    """The escapes of a set's characters: short ones, and `\\u` with digits in either case, twice for what takes a pair."""
    short = "".join(letter for char, letter in SHORT_ESCAPES.items() if ord(char) in chars)
    ways: list[Pattern] = [concat(literal("\\"), Chars(CharSet.chars(short)))] if short else []
    basic = chars & CharSet.of((0, 0xFFFF))
    if basic:
        ways.append(concat(literal("\\u"), _hexadecimal(basic.ranges, 4)))
    for first, second in _pairs(chars):
        ways.append(concat(literal("\\u"), _hexadecimal(first, 4), literal("\\u"), _hexadecimal(second, 4)))
    return either(*ways)


def _pairs(chars: CharSet) -> list[tuple[Ranges, Ranges]]:
    """The surrogate pairs of a set: ranges of first units, each with the ranges of second units that may follow."""
    found: dict[Ranges, list[tuple[int, int]]] = {}
    for low, high in (chars & CharSet.of((0x10000, 0x10FFFF))).ranges:
        low, high = low - 0x10000, high - 0x10000
        first, last = low >> 10, high >> 10
        if first == last:
            blocks = [(first, first, low & 0x3FF, high & 0x3FF)]
        else:
            blocks = [(first, first, low & 0x3FF, 0x3FF), (first + 1, last - 1, 0, 0x3FF), (last, last, 0, high & 0x3FF)]
        for begin, end, lowest, highest in blocks:
            if begin <= end:
                found.setdefault(((0xDC00 + lowest, 0xDC00 + highest),), []).append((0xD800 + begin, 0xD800 + end))
    return [(CharSet.of(*firsts).ranges, second) for second, firsts in found.items()]


def _hexadecimal(ranges: Ranges, count: int) -> Pattern:
    """A number of `count` hexadecimal digits in some ranges."""
    if count == 0:
        return concat()
    size = 16 ** (count - 1)
    by_rest: dict[Pattern, str] = {}
    for digit in range(16):
        low, high = digit * size, (digit + 1) * size - 1
        inside = tuple(
            (max(first, low) - low, min(last, high) - low) for first, last in ranges if first <= high and low <= last
        )
        if inside:
            is_whole = inside == ((0, size - 1),)
            rest = Times(Chars(HEX), count - 1, count - 1) if is_whole and count > 1 else _hexadecimal(inside, count - 1)
            by_rest[rest] = by_rest.get(rest, "") + f"{digit:x}{digit:X}"
    return either(*(concat(Chars(CharSet.chars(digits)), rest) for rest, digits in by_rest.items()))
