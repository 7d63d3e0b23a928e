"""Deterministic automata over units: what a pattern is when questions are asked of it, or bytes are wanted.

Few states and few classes: a JSON string that spells no marker and begins with no sigil has some thirty states here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from routine_grammar.patterns.charset import CHARS, UNITS, CharSet
from routine_grammar.patterns.pattern import Chars, Pattern, Times, both
from routine_grammar.patterns.terms import Classes, Place, Terms, has_complement, reached, sets_of

DEAD = -1
NEVER = 1 << 40
MAX_STATES = 20_000
MAX_REFINEMENTS = 32  # long counters need as many as they count to, and are nearly minimal as they come
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

    def fewest(self) -> npt.NDArray[np.int64]:
        """How few units lead from each state to an end."""
        return _levels(self.table, self.accepting)


@lru_cache(maxsize=256)
def automaton_of(pattern: Pattern) -> UnitAutomaton:
    """The automaton of a pattern. Raises `GrammarTooLargeError` past the bounds on terms and states."""
    # A complement has to be told that not every number is a unit.
    whole = both(pattern, Times(Chars(_ALL), 0, None)) if has_complement(pattern) else pattern
    classes = Classes(sets_of((whole,)))
    terms = Terms(classes)
    start = terms.of(whole)
    order, rows, cells = reached(terms, start, MAX_STATES)
    table = np.full((len(order), classes.count), DEAD, np.int32)
    for place, (row, groups) in enumerate(zip(rows, cells, strict=True)):
        for target, group in zip(row, groups, strict=True):
            table[place, list(group)] = target
    ends = (terms.nullable(term, Place(place == 0, True, max(before, 0))) for place, (term, before) in enumerate(order))
    accepting = np.array(list(ends), np.bool_)
    return minimal(_trimmed(table, accepting), accepting, classes)


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


def _levels(table: Table, goal: Mask) -> npt.NDArray[np.int64]:
    """How few steps lead from each state to a goal state; NEVER where none do."""
    sources, columns = np.nonzero(table >= 0)
    targets = table[sources, columns]
    order = np.argsort(targets, kind="stable")
    sources = sources[order]
    begins = np.searchsorted(targets[order], np.arange(len(table) + 1)).tolist()
    level = np.where(goal, 0, NEVER)
    reached = np.flatnonzero(goal).tolist()
    known = set(reached)
    for state in reached:
        for source in sources[begins[state] : begins[state + 1]].tolist():
            if source not in known:
                known.add(source)
                level[source] = level[state] + 1
                reached.append(source)
    return level


def _trimmed(table: Table, accepting: Mask) -> Table:
    """The table without ways into states that lead to no end."""
    useful = _levels(table, accepting) < NEVER
    return np.where((table >= 0) & useful[table], table, DEAD).astype(np.int32)


def minimal(table: Table, accepting: Mask, classes: Classes) -> UnitAutomaton:
    """The automaton of a table, its states numbered breadth-first, with one for all equivalent ones, and so its classes."""
    columns, of = _distinct(table.T)
    table = np.ascontiguousarray(table.T[columns].T)
    block = _equivalent(table, accepting)
    _, first = np.unique(block, return_index=True)
    order = [int(block[0])]
    number = {order[0]: 0}
    for current in order:
        row = table[first[current]]
        for target in dict.fromkeys(block[row[row >= 0]].tolist()):
            if target not in number:
                number[target] = len(order)
                order.append(target)
    renumber = np.full(len(first) + 1, DEAD, np.int32)
    renumber[order] = np.arange(len(order))
    rows = table[first[order]]
    made = np.where(rows >= 0, renumber[block[rows]], DEAD).astype(np.int32)
    columns, again = _distinct(made.T)
    return UnitAutomaton(np.ascontiguousarray(made.T[columns].T), accepting[first[order]], classes.lows, again[of][classes.of])


def _distinct(rows: Table) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The places of the first of all equal rows, and for each row the number of its first."""
    numbers: dict[bytes, int] = {}
    of = np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in np.ascontiguousarray(rows)], np.int64)
    _, first = np.unique(of, return_index=True)
    return first, of


def _equivalent(table: Table, accepting: Mask) -> npt.NDArray[np.int64]:
    """The block of equivalent states that each state belongs to: Moore's refinement, given up after MAX_REFINEMENTS."""
    block = accepting.astype(np.int64)
    blocks = int(block.max()) + 1
    for _ in range(MAX_REFINEMENTS):
        signature = np.concatenate([block[:, None], np.where(table >= 0, block[table], DEAD)], axis=1)
        first, block = _distinct(signature.astype(np.int32))
        if len(first) == blocks:
            return block
        blocks = len(first)
    return np.arange(len(table))
