"""Classes: the units that the sets of some patterns tell apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from routine_grammar.patterns.charset import UNITS, CharSet
from routine_grammar.patterns.pattern import Both, Boundary, Chars, Concat, Edge, Either, Multiple, Not, Pattern, Times

DIGITS = tuple(CharSet.chars(digit) for digit in "0123456789")
POINT = CharSet.chars(".")

Mask = npt.NDArray[np.bool_]
Longs = npt.NDArray[np.int64]


def parts_of(pattern: Pattern) -> Iterator[Pattern]:
    """A pattern and all that it is made of."""
    todo = [pattern]
    while todo:
        part = todo.pop()
        yield part
        match part:
            case Concat(items) | Either(items) | Both(items):
                todo += items
            case Times(item, _, _) | Not(item):
                todo.append(item)


def sets_of(pattern: Pattern) -> dict[CharSet, None]:
    """All sets of a pattern, each once."""
    found: dict[CharSet, None] = {}
    for part in parts_of(pattern):
        match part:
            case Chars(chars) | Boundary(chars):
                found[chars] = None
            case Multiple():
                found |= dict.fromkeys((*DIGITS, POINT))
    return found


def has_edges(pattern: Pattern) -> bool:
    """Whether an edge of the text, or of a word, is somewhere in a pattern."""
    return any(isinstance(part, Edge | Boundary) for part in parts_of(pattern))


class Classes:
    """The units that some sets tell apart, as classes numbered from 0; each set is a bit mask of classes.

    `lows` [n] are the beginnings of intervals that cover all units, `of` [n] the class of each.
    """

    def __init__(self, sets: Iterable[CharSet]) -> None:
        sets = list(sets)
        cuts = {0, *(bound for chars in sets for low, high in chars.ranges for bound in (low, high + 1))} - {UNITS}
        self.lows: Longs = np.array(sorted(cuts), np.int64)
        members = np.zeros((max(len(sets), 1), len(self.lows)), np.bool_)
        for row, chars in zip(members, sets, strict=False):
            bounds = np.array(chars.ranges, np.int64).reshape(-1, 2)
            row[:] = _covered(self.lows, bounds)
        first, self.of = distinct(np.packbits(members, axis=0).T)
        signatures = members[:, first]
        self.count = signatures.shape[1]
        self.masks = {
            chars: sum(1 << int(number) for number in np.flatnonzero(signatures[place])) for place, chars in enumerate(sets)
        }

    def members(self, masks: Iterable[int]) -> npt.NDArray[np.uint8]:
        """Bit masks as rows [masks, classes], 1 where a class is in one."""
        size = (self.count + 7) // 8
        packed = np.frombuffer(b"".join(mask.to_bytes(size, "little") for mask in masks), np.uint8).reshape(-1, size)
        return np.unpackbits(packed, axis=1, count=self.count, bitorder="little")


def _covered(lows: Longs, bounds: Longs) -> Mask:
    """Which of some interval beginnings lie inside sorted ranges."""
    if not len(bounds):
        return np.zeros(len(lows), np.bool_)
    place = np.searchsorted(bounds[:, 0], lows, side="right") - 1
    found: Mask = (place >= 0) & (lows <= bounds[np.maximum(place, 0), 1])
    return found


def distinct(rows: npt.NDArray[Any]) -> tuple[Longs, Longs]:
    """The places of the first of all equal rows, and for each row the number of its first."""
    numbers: dict[bytes, int] = {}
    of = np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in np.ascontiguousarray(rows)], np.int64)
    _, first = np.unique(of, return_index=True)
    return first, of
