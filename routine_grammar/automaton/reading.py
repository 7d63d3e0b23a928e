"""Readings: what may be read next at a set of points, from which the skeleton's states are numbered."""

from __future__ import annotations

from typing import NamedTuple

Ends = tuple[int, ...]  # the points after a group, sorted


class Reading(NamedTuple):
    """A skeleton state before it is a number: all that may be read next, in canonical order."""

    literals: tuple[tuple[bytes, int], ...] = ()
    leaves: tuple[tuple[int, Ends], ...] = ()
    rules: tuple[tuple[str, Ends], ...] = ()
    symbols: tuple[tuple[int, Ends], ...] = ()
    end: bool = False


JUST_END = Reading(end=True)


class Gathering:
    """A reading under way."""

    def __init__(self) -> None:
        self.literals: set[tuple[bytes, int]] = set()
        self.leaves: dict[int, set[int]] = {}
        self.rules: dict[str, set[int]] = {}
        self.symbols: dict[int, set[int]] = {}
        self.end = False

    def add(self, reading: Reading) -> None:
        """All that another reading may read, too."""
        self.literals.update(reading.literals)
        for state, ends in reading.leaves:
            self.leaves.setdefault(state, set()).update(ends)
        for rule, ends in reading.rules:
            self.rules.setdefault(rule, set()).update(ends)
        for symbol, ends in reading.symbols:
            self.symbols.setdefault(symbol, set()).update(ends)
        self.end = self.end or reading.end

    def reading(self) -> Reading:
        """What was gathered."""
        return Reading(
            tuple(sorted(self.literals)),
            tuple(sorted((state, tuple(sorted(ends))) for state, ends in self.leaves.items())),
            tuple(sorted((rule, tuple(sorted(ends))) for rule, ends in self.rules.items())),
            tuple(sorted((symbol, tuple(sorted(ends))) for symbol, ends in self.symbols.items())),
            self.end,
        )


def size_of(reading: Reading) -> int:
    """How many configurations a reading is."""
    return len(reading.literals) + sum(len(ends) for group in (reading.leaves, reading.rules) for _, ends in group)
