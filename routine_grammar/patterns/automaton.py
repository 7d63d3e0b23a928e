"""Deterministic automata over units: what a pattern is when questions are asked of it, or bytes are wanted.

Few states and few classes: a JSON string that spells no marker and begins with no sigil has some thirty states here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from routine_grammar.kept import kept
from routine_grammar.patterns.charset import CHARS, UNITS, CharSet
from routine_grammar.patterns.classes import Classes, distinct, parts_of, sets_of
from routine_grammar.patterns.minimizing import DEAD, Determined, distances, minimized
from routine_grammar.patterns.pattern import Chars, Not, Pattern, Times, both
from routine_grammar.patterns.points import Contexts, Points

NEVER = 1 << 40
MAX_KEPT_BYTES = 32 * 2**20  # of automata
_ALL = CHARS | CHARS.escapes

Table = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class UnitAutomaton:
    """A DFA; state 0 is the start, and every state but perhaps the start leads to an accepting one.

    `table` [states, classes] int32 holds the next state or DEAD, `accepting` [states] bool; `lows` [n] int64 are the
    beginnings of intervals of units, `of` [n] the class of each.
    """

    table: Table
    accepting: Mask
    lows: npt.NDArray[np.int64]
    of: npt.NDArray[np.int64]

    @property
    def nbytes(self) -> int:
        """The bytes of its arrays."""
        return self.table.nbytes + self.accepting.nbytes + self.lows.nbytes + self.of.nbytes

    @property
    def is_empty(self) -> bool:
        """Whether it accepts nothing."""
        return len(self.table) == 1 and not self.accepting[0] and not (self.table >= 0).any()

    @property
    def is_finite(self) -> bool:
        """Whether it accepts so many texts and no more."""
        states = np.arange(len(self.table))
        ways = self.table
        while len(states):
            kept = states[np.isin(ways, states).any(axis=1)]
            if len(kept) == len(states):
                return False
            states, ways = kept, self.table[kept]
        return True

    def moves(self, state: int) -> list[tuple[int, int, int]]:
        """What may be read in a state: `(first unit, last unit, next state)`, in order, neighbours joined."""
        targets = self.table[state][self.of]
        starts = np.flatnonzero(np.r_[True, targets[1:] != targets[:-1]])
        ends = np.r_[self.lows[starts[1:]], UNITS] - 1
        return [
            (low, high, target)
            for low, high, target in zip(self.lows[starts].tolist(), ends.tolist(), targets[starts].tolist(), strict=True)
            if target != DEAD
        ]

    def accepts(self, units: Sequence[int]) -> bool:
        """Whether it accepts these units."""
        state = 0
        for unit in units:
            state = int(self.table[state, self.of[int(np.searchsorted(self.lows, unit, side="right")) - 1]])
            if state == DEAD:
                return False
        return bool(self.accepting[state])

    def most(self) -> int:
        """How many units the longest text has; NEVER where there is none longest."""
        if not self.is_finite:
            return NEVER
        longest = np.where(self.accepting, 0, -1)
        while True:
            behind = np.where(self.table >= 0, longest[self.table], -1).max(axis=1, initial=-1)
            longer = np.maximum(longest, np.where(behind >= 0, behind + 1, -1))
            if (longer == longest).all():
                return int(longest[0])
            longest = longer

    def fewest(self) -> npt.NDArray[np.int64]:
        """How few units lead from each state to an end."""
        found = distances(self.table, self.accepting).astype(np.int64)
        return np.where(found < 0, NEVER, found)


def bytes_of(automaton: UnitAutomaton) -> int:
    """The bytes of an automaton's arrays."""
    return automaton.nbytes


@kept(MAX_KEPT_BYTES, bytes_of)
def automaton_of(pattern: Pattern) -> UnitAutomaton:
    """The automaton of a pattern, kept for the next who asks. Raises `GrammarTooLargeError` past the bounds."""
    return make_automaton(pattern)


def make_automaton(pattern: Pattern) -> UnitAutomaton:
    """The automaton of a pattern. Raises `GrammarTooLargeError` past the bounds on points and states."""
    # A complement has to be told that not every number is a unit.
    whole = both(pattern, Times(Chars(_ALL), 0, None)) if any(isinstance(part, Not) for part in parts_of(pattern)) else pattern
    classes = Classes(sets_of(whole))
    found = Points(classes, Contexts(classes, whole)).determine(whole, everywhere=False)
    return _with_classes(found, classes)


def minimal(table: Table, accepting: Mask, classes: Classes) -> UnitAutomaton:
    """The automaton of a table, its states numbered breadth-first, with one for all equivalent ones, and so its classes."""
    return _with_classes(minimized(table, accepting.astype(np.uint64), np.zeros(1, np.int32)), classes)


def _with_classes(found: Determined, classes: Classes) -> UnitAutomaton:
    """An automaton with one class for all that lead to the same states."""
    first, of = distinct(found.table.T)
    accepting = (found.ends & np.uint64(1)).astype(np.bool_)
    return UnitAutomaton(np.ascontiguousarray(found.table[:, first]), accepting, classes.lows, of[classes.of])


def quoted(inner: UnitAutomaton) -> UnitAutomaton:
    """The texts of an automaton between quotes, which are in none of them."""
    if inner.is_empty:
        return inner
    quote = ord('"')
    place = int(np.searchsorted(inner.lows, quote, side="right")) - 1
    lows = np.unique(np.r_[inner.lows, quote, quote + 1])
    of = inner.of[np.searchsorted(inner.lows, lows, side="right") - 1]
    states, classes = inner.table.shape
    assert (inner.table[:, inner.of[place]] == DEAD).all()
    of[np.searchsorted(lows, quote)] = classes
    table = np.full((states + 2, classes + 1), DEAD, np.int32)
    table[1 : states + 1, :classes] = np.where(inner.table >= 0, inner.table + 1, DEAD)
    accepting = np.zeros(states + 2, np.bool_)
    table[0, classes] = 1
    table[1 : states + 1, classes][inner.accepting] = states + 1
    accepting[-1] = True
    return UnitAutomaton(table, accepting, lows, of)


def is_empty(pattern: Pattern) -> bool:
    """Whether a pattern matches nothing."""
    return automaton_of(pattern).is_empty


def are_disjoint(one: Pattern, other: Pattern) -> bool:
    """Whether no text is matched by both."""
    return is_empty(both(one, other))


def chars_between(automaton: UnitAutomaton, state: int, target: int) -> CharSet:
    """The units that lead from one state to another."""
    return CharSet.of(*((low, high) for low, high, to in automaton.moves(state) if to == target))
