"""Sets of characters, and of the two ways to spell one: a unit is a character as it is, or a JSON escape of it.

A unit is an int: a code point for the character as it is, `ESCAPED` + code point for its escape. Surrogates are no characters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache

import numpy as np

ESCAPED = 0x110000
UNITS = 2 * ESCAPED

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class CharSet:
    """A set of units as sorted ranges, both ends included, with a gap between any two."""

    ranges: Ranges

    @classmethod
    def of(cls, *ranges: tuple[int, int]) -> CharSet:
        """The set of some ranges in any order, overlapping or not."""
        merged: list[tuple[int, int]] = []
        for low, high in sorted(ranges):
            if merged and low <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(merged[-1][1], high))
            elif low <= high:
                merged.append((low, high))
        return cls(tuple(merged))

    @classmethod
    @lru_cache(maxsize=4096)
    def chars(cls, chars: str) -> CharSet:
        """These characters as they are."""
        return cls.of(*((ord(char), ord(char)) for char in chars))

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(self.ranges)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __len__(self) -> int:
        return sum(high - low + 1 for low, high in self.ranges)

    def __contains__(self, unit: int) -> bool:
        return any(low <= unit <= high for low, high in self.ranges)

    def __or__(self, other: CharSet) -> CharSet:
        return CharSet.of(*self.ranges, *other.ranges)

    def __and__(self, other: CharSet) -> CharSet:
        found = []
        mine, others = iter(self.ranges), iter(other.ranges)
        one, two = next(mine, None), next(others, None)
        while one is not None and two is not None:
            low, high = max(one[0], two[0]), min(one[1], two[1])
            if low <= high:
                found.append((low, high))
            if one[1] < two[1]:
                one = next(mine, None)
            else:
                two = next(others, None)
        return CharSet.of(*found)

    def __sub__(self, other: CharSet) -> CharSet:
        return self & other.complement

    @cached_property
    def complement(self) -> CharSet:
        """All other units, surrogates too where the set has none: intersect it with what there is."""
        gaps, low = [], 0
        for first, last in self.ranges:
            gaps.append((low, first - 1))
            low = last + 1
        return CharSet.of(*gaps, (low, UNITS - 1))

    @cached_property
    def escapes(self) -> CharSet:
        """The escapes of the set's characters."""
        return CharSet(tuple((low + ESCAPED, high + ESCAPED) for low, high in self.ranges))

    @cached_property
    def as_is(self) -> CharSet:
        """Those of the units that are characters as they are."""
        return self & CHARS

    @cached_property
    def escaped(self) -> CharSet:
        """The characters whose escapes are in the set."""
        return CharSet(tuple((low - ESCAPED, high - ESCAPED) for low, high in (self & CHARS.escapes).ranges))


_BLOCK = 128
_UPPER, _LOWER = range(ord("A"), ord("Z") + 1), range(ord("a"), ord("z") + 1)
CHARS = CharSet(((0, 0xD7FF), (0xE000, 0x10FFFF)))
NO_CHARS = CharSet(())
DIGITS = CharSet.of((ord("0"), ord("9")))
HEX = DIGITS | CharSet.of((ord("a"), ord("f")), (ord("A"), ord("F")))


@cache
def matching(pattern: str) -> CharSet:
    """The characters that a character class of Python's `re` matches."""
    return CharSet.of(*(run for found in re.finditer(f"(?:{pattern})+", all_chars()) for run in _runs(found.group())))


@cache
def all_chars() -> str:
    """All characters, in order."""
    codes = np.concatenate([np.arange(low, high + 1, dtype="<u4") for low, high in CHARS.ranges])
    return str(codes.tobytes(), "utf-32-le")


def _runs(text: str) -> Ranges:
    """The one or two ranges of a run of characters: two where it steps over the surrogates."""
    first, last = ord(text[0]), ord(text[-1])
    return ((first, 0xD7FF), (0xE000, last)) if first < 0xD800 <= last else ((first, last),)


# What `re` takes for the same though no case of one is the other: dotted and dotless i, letters with two marks, ligatures.
_ALIKE = ({0x49, 0x69, 0x130, 0x131}, {0x390, 0x1FD3}, {0x3B0, 0x1FE3}, {0xFB05, 0xFB06})


@cache
def either_case(chars: CharSet, *, of_ascii: bool = False) -> CharSet:
    """A set with every character's other cases, as Python's `re` and JavaScript's `u` fold single characters.

    `of_ascii`: of ASCII's letters alone, as under `re`'s flag `a`.
    """
    if of_ascii:
        return chars | CharSet.chars("".join(chr(code).swapcase() for code in (*_UPPER, *_LOWER) if code in chars))
    found = list(chars.ranges)
    for low, high in chars.ranges:
        for code in range(low, high + 1):
            found += _cases().get(code, ())
    return CharSet.of(*found)


@cache
def _cases() -> dict[int, Ranges]:
    """The characters that each cased character folds together with."""
    together: dict[str, set[int]] = {}
    chars = all_chars()
    for start in range(0, len(chars), _BLOCK):
        block = chars[start : start + _BLOCK]
        if block.lower() == block == block.upper():  # most of them
            continue
        for char in block:
            lower, upper = char.lower(), char.upper()
            if lower != char or upper != char:
                key = (upper if len(upper) == 1 else char).lower()
                if len(lower) == 1 and len(key) == 1:
                    together.setdefault(key, set()).add(ord(char))
    groups = [group for group in together.values() if not any(group & alike for alike in _ALIKE)]
    groups += [alike.union(*(group for group in together.values() if group & alike)) for alike in _ALIKE]
    return {code: tuple((other, other) for other in sorted(group)) for group in groups for code in group}
