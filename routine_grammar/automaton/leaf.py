"""Leaf automata: a terminal's regular expression as a byte DFA, and the library that shares them.

In: a pattern over text. Out: rows of one int32 table, `next state per byte`, addressed by state ids that stay valid for
the life of the library. Regular expressions are compiled by outlines-core over a vocabulary of the 256 single bytes.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import outlines_core

from routine_grammar.errors import GrammarError, GrammarTooLargeError

DEAD = -1
RETURN = -2  # the leaf ends with this byte and could not go on: return to the caller at once
MAX_LEAF_STATES = 50_000
MAX_REFINEMENTS = 32  # long counters need as many as they count to, and are nearly minimal as they come
MAX_PATTERN_CHARS = 200_000
_ASSERTIONS = frozenset(("^", "$", "\\A", "\\z", "\\Z", "\\b", "\\B", "\\<", "\\>"))
# An escape; the beginning of a character class, with a bracket in first place, which is a member; any other character.
_UNIT = re.compile(r"\\.|\[\^?\]?|.", re.DOTALL)
_UNREACHABLE = np.int32(1 << 30)
# outlines-core stops a word at its first match in the order of the alternatives (`a|ab` never reaches `ab`). Behind every
# pattern stands a character that no text contains, so that a match is only complete with it and no alternative is cut.
_END_MARK = "\U0010ffff"
# outlines-core also follows matches that begin later in a text: for `[ab][abc]{20}` the sets of places where one may have
# begun are two to the power of 20 states. An empty alternative of lower rank matches at once, so that no later one is looked
# for. Its trace lasts for one byte, which the two bytes of this mark, one token, step over.
_BEGIN_MARK = "\x02\x02"
_BEGIN_TOKEN = 256

Table = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class LeafAutomaton:
    """A DFA over bytes (minimal, but for long counters); state 0 is the start, every state can reach an accepting one.

    `table` [states, 256] int32 holds the next state, DEAD, or RETURN; `accepting` [states] bool.
    """

    table: Table
    accepting: npt.NDArray[np.bool_]


@cache
def _byte_vocabulary() -> outlines_core.Vocabulary:
    tokens: dict[bytes, list[int]] = {bytes([byte]): [byte] for byte in range(256)}
    return outlines_core.Vocabulary(257, {**tokens, _BEGIN_MARK.encode(): [_BEGIN_TOKEN]})


def compile_leaf(pattern: str) -> LeafAutomaton:
    """Compile a pattern that must match whole.

    Raises `GrammarError` for a pattern that outlines-core refuses or that matches nothing, `GrammarTooLargeError` past
    the bounds on a pattern's length and on a leaf's states.
    """
    if len(pattern) > MAX_PATTERN_CHARS:
        raise GrammarTooLargeError(f"a pattern has {len(pattern)} characters; the bound is {MAX_PATTERN_CHARS}")
    if assertion := _assertion_in(pattern):
        message = f"it asserts a place by {assertion}, and it has to match whole in any case"
        raise GrammarError(f"pattern {pattern[:200]!r} is not supported: {message}")
    try:
        index = outlines_core.Index(f"{_BEGIN_MARK}(?:{pattern}){_END_MARK}|", _byte_vocabulary())
    except Exception as error:  # outlines-core raises ValueError and its own types alike
        raise GrammarError(f"pattern {pattern[:200]!r} is not a regular expression that can be compiled: {error}") from error
    table, start, accepting = _dense(index)
    if len(table) > MAX_LEAF_STATES:
        raise GrammarTooLargeError(f"pattern {pattern[:200]!r} needs {len(table)} states; the bound is {MAX_LEAF_STATES}")
    useful = _can_reach(table, accepting)
    if not useful[start]:
        raise GrammarError(f"pattern {pattern[:200]!r} matches nothing")
    table = np.where(useful[table] & (table >= 0), table, DEAD).astype(np.int32)
    return _numbered(table, start, accepting, _equivalent(table, accepting))


def _assertion_in(pattern: str) -> str | None:
    """The first anchor or word boundary outside of character classes: between the marks it would mean something else."""
    nesting = 0  # of character classes
    for unit in _UNIT.findall(pattern):
        if unit.startswith("["):
            nesting += 1
        elif unit == "]":
            nesting = max(nesting - 1, 0)
        elif not nesting and unit in _ASSERTIONS:
            return str(unit)
    return None


def _dense(index: outlines_core.Index) -> tuple[Table, int, npt.NDArray[np.bool_]]:
    """The index as a dense table over its own states; accepting where the end mark would complete a match."""
    transitions = index.get_transitions()
    number = {state: n for n, state in enumerate(transitions)}
    table = np.full((len(number), 256), DEAD, np.int32)
    for state, row in transitions.items():
        edges = [(byte, number[target]) for byte, target in row.items() if byte < 256 and target in number]
        if edges:
            bytes_, targets = zip(*edges, strict=True)
            table[number[state], list(bytes_)] = targets
    final = np.zeros(len(number) + 1, np.bool_)  # the last entry answers for DEAD
    final[[number[state] for state in index.get_final_states()]] = True
    ends = np.arange(len(number))
    for byte in _END_MARK.encode():
        ends = np.where(ends >= 0, table[ends, byte], DEAD)
    return table, number[transitions[index.get_initial_state()][_BEGIN_TOKEN]], final[ends]


def _can_reach(table: Table, goal: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which states reach a goal state."""
    reach = goal.copy()
    while True:
        more = reach | ((table >= 0) & reach[table]).any(axis=1)
        if (more == reach).all():
            return reach
        reach = more


def _equivalent(table: Table, accepting: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The block of equivalent states that each state belongs to: Moore's refinement, given up after MAX_REFINEMENTS."""
    columns = np.unique(table, axis=1)  # bytes that no state tells apart: patterns have few of them
    block = accepting.astype(np.int64)
    blocks = len(np.unique(block))
    for _ in range(MAX_REFINEMENTS):
        signature = np.concatenate([block[:, None], np.where(columns >= 0, block[columns], DEAD)], axis=1)
        _, block = np.unique(signature, axis=0, return_inverse=True)
        block = block.reshape(-1)
        if (count := int(block.max()) + 1) == blocks:
            return block
        blocks = count
    return np.arange(len(table))


def _numbered(table: Table, start: int, accepting: npt.NDArray[np.bool_], block: npt.NDArray[np.int64]) -> LeafAutomaton:
    """One state a block, numbered breadth-first from the start; ends that can't go on are turned into RETURN."""
    member = np.zeros(int(block.max()) + 1, np.int64)
    member[block] = np.arange(len(block))
    sealed = accepting[member] & (table[member] < 0).all(axis=1)
    order, number = [int(block[start])], {int(block[start])}
    for current in order:
        row = table[member[current]]
        for target in dict.fromkeys(block[row[row >= 0]].tolist()):
            if target not in number and not sealed[target]:
                number.add(target)
                order.append(target)
    renumber = np.full(len(member), RETURN, np.int32)
    renumber[order] = np.arange(len(order))
    rows = table[member[order]]
    numbered = np.where(rows >= 0, renumber[block[rows]], DEAD).astype(np.int32)
    return LeafAutomaton(np.ascontiguousarray(numbered), accepting[member[order]])


class LeafLibrary:
    """All leaf automata of a process in one table, compiled once a pattern. Safe to use from several threads.

    `table` [capacity, 256] int32, `accepting` [capacity] bool, and `distance` [capacity] int32 (fewest bytes to an
    accepting end) grow by replacement: read the attribute again after `start` was called.
    """

    def __init__(self) -> None:
        self.table: Table = np.full((256, 256), DEAD, np.int32)
        self.accepting: npt.NDArray[np.bool_] = np.zeros(256, np.bool_)
        self.distance: Table = np.zeros(256, np.int32)
        self.size = 0
        self._starts: dict[str, int] = {}
        self._first: dict[int, int] = {}
        self._extends: dict[int, int] = {}
        self._farthest: dict[int, int] = {}
        self._lock = threading.Lock()

    @classmethod
    @cache
    def shared(cls) -> LeafLibrary:
        """The library of this process."""
        return cls()

    def start(self, pattern: str) -> int:
        """The start state of a pattern's automaton, compiled on first use. Raises as `compile_leaf_apart` does."""
        known = self._starts.get(pattern)
        if known is not None:
            return known
        from routine_grammar.automaton.leaf_process import compile_leaf_apart

        automaton = compile_leaf_apart(pattern)
        with self._lock:
            if pattern not in self._starts:
                self._starts[pattern] = self._append(automaton)
            return self._starts[pattern]

    def first(self, state: int) -> int:
        """The bytes that may come next inside the leaf, as a bit set."""
        if state not in self._first:
            self._first[state] = _byte_set(self.table[state] != DEAD)
        return self._first[state]

    def extends(self, state: int) -> int:
        """The bytes that may follow a complete word of the language from `state`, as a bit set."""
        if state not in self._extends:
            ends = self._reachable(state) & self.accepting[: self.size]
            self._extends[state] = _byte_set((self.table[: self.size][ends] != DEAD).any(axis=0))
        return self._extends[state]

    def farthest(self, state: int) -> int:
        """The largest distance to the end among the states that `state` reaches."""
        if state not in self._farthest:
            self._farthest[state] = int(self.distance[: self.size][self._reachable(state)].max())
        return self._farthest[state]

    def _reachable(self, state: int) -> npt.NDArray[np.bool_]:
        seen = np.zeros(self.size, np.bool_)
        seen[state] = True
        todo = [state]
        while todo:
            row = self.table[todo.pop()]
            fresh = [int(target) for target in np.unique(row[row >= 0]) if not seen[target]]
            seen[fresh] = True
            todo += fresh
        return seen

    def _append(self, automaton: LeafAutomaton) -> int:
        base, count = self.size, len(automaton.table)
        while base + count > len(self.table):
            self.table = np.concatenate([self.table, np.full_like(self.table, DEAD)])
            self.accepting = np.concatenate([self.accepting, np.zeros_like(self.accepting)])
            self.distance = np.concatenate([self.distance, np.zeros_like(self.distance)])
        self.table[base : base + count] = np.where(automaton.table >= 0, automaton.table + base, automaton.table)
        self.accepting[base : base + count] = automaton.accepting
        self.distance[base : base + count] = _distances(automaton)
        self.size = base + count
        return base


def _distances(automaton: LeafAutomaton) -> Table:
    """Fewest bytes from each state to the end of a word."""
    table = np.unique(automaton.table, axis=1)
    distance = np.where(automaton.accepting, 0, _UNREACHABLE).astype(np.int32)
    while True:
        step = np.where(table >= 0, distance[np.maximum(table, 0)] + 1, np.where(table == RETURN, 1, _UNREACHABLE)).min(axis=1)
        shorter = np.minimum(distance, step).astype(np.int32)
        if (shorter == distance).all():
            return distance
        distance = shorter


def _byte_set(allowed: npt.NDArray[np.bool_]) -> int:
    return int.from_bytes(np.packbits(allowed, bitorder="little").tobytes(), "little")
