"""Which of some patterns match the same texts: told for all of them at once, by one walk through all their automata."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from routine_grammar.errors import GrammarTooLargeError
from routine_grammar.patterns.automaton import automaton_of
from routine_grammar.patterns.classes import distinct
from routine_grammar.patterns.minimizing import DEAD
from routine_grammar.patterns.pattern import Pattern

MAX_PLACES = 4_000  # of all automata together


def told_apart(whole: Pattern, patterns: Sequence[Pattern]) -> frozenset[frozenset[int]]:
    """Each set of patterns (by number) of which some text of `whole` is matched by all, and by none of the others.

    Raises `GrammarTooLargeError` past the bounds on states.
    """
    automata = [automaton_of(pattern) for pattern in (whole, *patterns)]
    lows = np.unique(np.concatenate([automaton.lows for automaton in automata]))
    classes = [automaton.of[np.searchsorted(automaton.lows, lows, side="right") - 1] for automaton in automata]
    first, _ = distinct(np.array(classes).T)
    # One more state stands for those that lead to no end.
    tables = [
        np.vstack([np.where(automaton.table == DEAD, len(automaton.table), automaton.table), np.full((1, width), size)])
        for automaton in automata
        for size, width in (automaton.table.shape,)
    ]
    ways = [table[:, of[first]] for table, of in zip(tables, classes, strict=True)]
    ends = [np.r_[automaton.accepting, False] for automaton in automata]
    dead = len(automata[0].table)
    found: set[bytes] = set()
    told: set[bytes] = set()
    frontier = np.zeros((1, len(automata)), np.int64)
    while len(frontier):
        places = {row.tobytes(): row for row in frontier}
        frontier = np.array([row for key, row in places.items() if key not in found], np.int64).reshape(-1, len(automata))
        found |= places.keys()
        if len(found) > MAX_PLACES:
            raise GrammarTooLargeError(f"patterns need more than {MAX_PLACES} states, the bound, to be told apart")
        is_end = np.stack([end[column] for end, column in zip(ends, frontier.T, strict=True)], axis=1)
        told |= {row.tobytes() for row in is_end[is_end[:, 0], 1:]}
        behind = np.stack([way[column] for way, column in zip(ways, frontier.T, strict=True)], axis=2)
        frontier = behind.reshape(-1, len(automata))
        frontier = frontier[frontier[:, 0] != dead]
    return frozenset(frozenset(np.flatnonzero(np.frombuffer(row, np.bool_)).tolist()) for row in told)
