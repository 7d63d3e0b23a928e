"""The skeleton's states as flat arrays that grow, in the form that stepping reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from routine_grammar.automaton import tables
from routine_grammar.automaton.leaf import LeafLibrary
from routine_grammar.automaton.step import EDGES_KNOWN, FORWARD, MARK, SKELETON, UNKNOWN
from routine_grammar.automaton.tables import (
    AFTER,
    BYTE,
    DISTANCE,
    EDGE_HIGH,
    EDGE_LOW,
    ENDS,
    FORWARD_RETURN,
    FORWARD_TO,
    KIND,
    SYMBOL_HIGH,
    TARGET,
    Addresses,
    Handle,
)

Rows = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge of a skeleton state: takes `byte` and goes to `target`, or enters `target` with it and returns to `after`."""

    byte: int
    target: int
    enters: bool = False
    after: int = -1


@dataclass(frozen=True, slots=True)
class ExpandedState:
    """A skeleton state read back from the arrays."""

    ends: bool
    forward: tuple[int, int] | None
    edges: tuple[Edge, ...]
    symbols: tuple[tuple[int, int], ...]

    def entered(self) -> Iterator[tuple[int, int]]:
        """What is entered from here, each with the state to return to (-1: the caller's)."""
        if self.forward:
            yield self.forward
        yield from dict.fromkeys((edge.target, edge.after) for edge in self.edges if edge.enters)


class SkeletonArrays:
    """States, edges and symbol edges as rows of integers, which grow by replacement. Only the skeleton writes."""

    def __init__(self, library: LeafLibrary) -> None:
        self._count = [0, 0, 0]  # states, edges, symbol edges
        self._library = library
        self._addresses = Addresses(4)
        self._addresses.set_handle(tables.LIBRARY, library.addresses)
        self._states = self._kept(tables.STATES, np.zeros((64, tables.STATE_COLUMNS), np.int32))
        self._edges = self._kept(tables.EDGES, np.zeros((256, tables.EDGE_COLUMNS), np.int32))
        self._symbols = self._kept(tables.SYMBOLS, np.zeros((16, tables.SYMBOL_COLUMNS), np.int32))

    @property
    def handle(self) -> Handle:
        """What compiled code finds the arrays by, and the library's, as long as this lives."""
        return self._addresses.handle

    def is_expanded(self, index: int) -> bool:
        """Whether the edges of a state are known."""
        return bool(self._states[index, KIND] != UNKNOWN)

    def add_state(self, distance: int, ends: bool) -> None:
        """Append a state whose edges are not known yet."""
        index = self.add_states(1)
        self._states[index, : DISTANCE + 1] = UNKNOWN, ends, distance

    def add_states(self, count: int) -> int:
        """Append states of which nothing is known yet; returns the first one's index."""
        index, self._count[0] = self._count[0], self._count[0] + count
        self._states = self._grown(tables.STATES, self._states, self._count[0])
        return index

    def set_forward(self, index: int, target: int, after: int) -> None:
        """Make a state one that is left at once for `target`, to return to `after`."""
        self._states[index, FORWARD_TO] = target
        self._states[index, FORWARD_RETURN] = after
        self._states[index, KIND] = FORWARD

    def set_mark(self, index: int) -> None:
        """Make a state one that is only there to be returned from."""
        self._states[index, KIND] = MARK

    def set_edges(self, index: int, edges: Sequence[Edge], symbols: Sequence[tuple[int, int]] = ()) -> None:
        """Give a state its edges, at most one a byte."""
        low, high = self._count[1], self._count[1] + len(edges)
        first, last = self._count[2], self._count[2] + len(symbols)
        self._edges = self._grown(tables.EDGES, self._edges, high)
        self._symbols = self._grown(tables.SYMBOLS, self._symbols, last)
        if edges:
            ordered = sorted(edges, key=lambda edge: edge.byte)
            self._edges[low:high] = [(edge.byte, edge.target, edge.enters, edge.after) for edge in ordered]
        if symbols:
            self._symbols[first:last] = symbols
        self._count[1:] = high, last
        self._states[index, EDGE_LOW : SYMBOL_HIGH + 1] = low, high, first, last
        self._states[index, KIND] = EDGES_KNOWN

    def set_text(self, index: int, text: bytes, first: int, target: int) -> None:
        """Have a state read a text, through states from `first` on of which there is one between any two bytes, to `target`."""
        low, high, count = self._count[1], self._count[1] + len(text), len(text) - 1
        self._edges = self._grown(tables.EDGES, self._edges, high)
        edges = self._edges[low:high]
        edges[:, BYTE] = np.frombuffer(text, np.uint8)
        edges[:, TARGET] = np.arange(SKELETON + first, SKELETON + first + count + 1)
        edges[-1, TARGET] = target
        edges[:, AFTER] = -1
        self._count[1] = high
        self._states[index, KIND] = EDGES_KNOWN
        self._states[index, EDGE_LOW : EDGE_HIGH + 1] = low, low + 1
        inner = self._states[first : first + count]
        inner[:, KIND] = EDGES_KNOWN
        inner[:, DISTANCE] = self._states[index, DISTANCE] - np.arange(1, count + 1)
        inner[:, EDGE_LOW] = np.arange(low + 1, high)
        inner[:, EDGE_HIGH] = inner[:, EDGE_LOW] + 1

    def state(self, index: int) -> ExpandedState:
        """An expanded state, read back."""
        kind, ends, _, target, after, low, high, first, last = self._states[index].tolist()
        edges = tuple(Edge(byte, to, bool(enters), back) for byte, to, enters, back in self._edges[low:high].tolist())
        symbols = tuple((symbol, to) for symbol, to in self._symbols[first:last].tolist())
        return ExpandedState(bool(ends), (target, after) if kind == FORWARD else None, edges, symbols)

    def ends(self, index: int) -> bool:
        """Whether the rule may end in a state."""
        return bool(self._states[index, ENDS])

    def _kept(self, place: int, array: Rows) -> Rows:
        """An array, told to compiled code; the one that it replaces has to be there until then."""
        self._addresses.set(place, array)
        return array

    def _grown(self, place: int, array: Rows, size: int) -> Rows:
        """An array with room for at least `size` rows: itself, or a copy."""
        if size <= len(array):
            return array
        bigger = np.zeros((max(size, 2 * len(array)), array.shape[1]), np.int32)
        bigger[: len(array)] = array
        return self._kept(place, bigger)
