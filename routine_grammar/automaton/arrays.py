"""The skeleton's states as flat arrays that grow, in the form that stepping reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass

import numpy as np
import numpy.typing as npt

from routine_grammar.automaton import tables
from routine_grammar.automaton.leaf import LeafLibrary
from routine_grammar.automaton.step import EDGES_KNOWN, FORWARD, MARK, UNKNOWN
from routine_grammar.automaton.tables import (
    DISTANCE,
    EDGE_LOW,
    ENDS,
    FORWARD_RETURN,
    FORWARD_TO,
    KIND,
    SYMBOL_HIGH,
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
        index, self._count[0] = self._count[0], self._count[0] + 1
        self._states = self._grown(tables.STATES, self._states, self._count[0])
        self._states[index, DISTANCE] = distance
        self._states[index, ENDS] = ends

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
            self._edges[low:high] = [astuple(edge) for edge in sorted(edges, key=lambda edge: edge.byte)]
        if symbols:
            self._symbols[first:last] = symbols
        self._count[1:] = high, last
        self._states[index, EDGE_LOW : SYMBOL_HIGH + 1] = low, high, first, last
        self._states[index, KIND] = EDGES_KNOWN

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
