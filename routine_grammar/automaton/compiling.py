"""Leaf automata: a terminal as a DFA over bytes, its characters counted beside it where they can be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from routine_grammar.automaton.counting import Counting, counting_of
from routine_grammar.automaton.lowering import MAX_LEAF_STATES, ByteAutomaton, to_bytes
from routine_grammar.automaton.step import DEAD, RETURN
from routine_grammar.errors import GrammarError, GrammarTooLargeError
from routine_grammar.grammar.terminals import JsonString, Terminal, automaton_of_terminal
from routine_grammar.patterns.automaton import UnitAutomaton, automaton_of, quoted

Table = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class LeafAutomaton:
    """A DFA over bytes; state 0 is the start, every state can reach an accepting one.

    `table` [states, 256] int32 holds the next state, DEAD, or RETURN: the leaf ends with this byte and could not go on.
    `accepting` [states] bool. `counting`: what its characters are counted by, where they are.
    """

    table: Table
    accepting: npt.NDArray[np.bool_]
    counting: Counting | None = None


def compile_leaf(terminal: Terminal) -> LeafAutomaton:
    """Compile a terminal, the length of a string as part of its automaton.

    Raises `GrammarError` for an expression that can't be read or that matches nothing, `GrammarTooLargeError` past the bounds.
    """
    return LeafAutomaton(*_sealed(to_bytes(_with_length(terminal))))


def compile_counted(terminal: JsonString) -> LeafAutomaton | None:
    """A string whose length is to be counted beside its automaton; None where that can't be. Raises as `compile_leaf`."""
    leaf = _with_length(terminal)
    table, accepting = _sealed(to_bytes(leaf))
    completes = np.zeros(len(table), np.bool_)
    completes[1 : len(leaf.accepting) - 1] = True  # all but the start, and the end, which is sealed
    counting = counting_of(table, completes, RETURN)
    return None if counting is None else LeafAutomaton(table, accepting, counting)


def _with_length(terminal: Terminal) -> UnitAutomaton:
    if isinstance(terminal, JsonString) and terminal.is_counted:
        leaf = quoted(automaton_of(terminal.inner()))
    else:
        leaf = automaton_of_terminal(terminal)
    if leaf.is_empty:
        raise nothing_of(terminal)
    return leaf


def nothing_of(terminal: Terminal) -> GrammarError:
    """What to say of a terminal that matches nothing."""
    told = f"pattern {terminal[:200]!r}" if isinstance(terminal, str) else f"a terminal of {terminal!r:.200}"
    return GrammarError(f"{told} matches nothing")


def _sealed(automaton: ByteAutomaton) -> tuple[Table, npt.NDArray[np.bool_]]:
    """The table and what is accepting, with ends that can't go on turned into RETURN, the start left as it is."""
    count = len(automaton.table)
    if count > MAX_LEAF_STATES:
        raise GrammarTooLargeError(f"a pattern needs {count} states; the bound is {MAX_LEAF_STATES}")
    accepting = np.zeros(count, np.bool_)
    accepting[: len(automaton.accepting)] = automaton.accepting
    sealed = accepting & (automaton.table < 0).all(axis=1)
    sealed[0] = False
    renumber = np.where(sealed, RETURN, np.cumsum(~sealed) - 1).astype(np.int32)
    rows = automaton.table[~sealed]
    return np.where(rows >= 0, renumber[rows], DEAD).astype(np.int32), accepting[~sealed]
