"""The skeleton's states as flat arrays that grow, in the form that stepping reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from routine_grammar.automaton.leaf import LeafLibrary
from routine_grammar.automaton.step import EDGES, FORWARD, MARK, UNKNOWN, Tables

S = TypeVar("S", bound=np.generic)


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
    """Columns of states, edges and symbol edges. Only the skeleton writes; readers take `tables` anew after it did."""

    def __init__(self) -> None:
        self._states = 0
        self._edges = 0
        self._symbols = 0
        self._kind = np.zeros(64, np.uint8)
        self._ends = np.zeros(64, np.bool_)
        self._distance, self._forward, self._forward_return = (np.zeros(64, np.int32) for _ in range(3))
        self._edge_low, self._edge_high, self._symbol_low, self._symbol_high = (np.zeros(64, np.int32) for _ in range(4))
        self._edge_byte = np.zeros(256, np.uint8)
        self._edge_enters = np.zeros(256, np.bool_)
        self._edge_target, self._edge_return = (np.zeros(256, np.int32) for _ in range(2))
        self._symbol, self._symbol_target = (np.zeros(16, np.int32) for _ in range(2))

    def tables(self, library: LeafLibrary) -> Tables:
        """The arrays, for stepping. Valid until the next state is added or expanded."""
        return Tables(
            library.table,
            library.accepting,
            library.distance,
            library.counted,
            library.completes,
            library.counts,
            library.layers,
            library.pseudo,
            library.bounds,
            self._kind,
            self._ends,
            self._distance,
            self._forward,
            self._forward_return,
            self._edge_low,
            self._edge_high,
            self._edge_byte,
            self._edge_target,
            self._edge_enters,
            self._edge_return,
            self._symbol_low,
            self._symbol_high,
            self._symbol,
            self._symbol_target,
        )

    def is_expanded(self, index: int) -> bool:
        """Whether the edges of a state are known."""
        return bool(self._kind[index] != UNKNOWN)

    def add_state(self, distance: int, ends: bool) -> None:
        """Append a state whose edges are not known yet."""
        index, self._states = self._states, self._states + 1
        if self._states > len(self._kind):
            for name in ("_kind", "_ends", "_distance", "_forward", "_forward_return"):
                setattr(self, name, _grown(getattr(self, name), self._states))
            for name in ("_edge_low", "_edge_high", "_symbol_low", "_symbol_high"):
                setattr(self, name, _grown(getattr(self, name), self._states))
        self._distance[index] = distance
        self._ends[index] = ends

    def set_forward(self, index: int, target: int, after: int) -> None:
        """Make a state one that is left at once for `target`, to return to `after`."""
        self._forward[index] = target
        self._forward_return[index] = after
        self._kind[index] = FORWARD

    def set_mark(self, index: int) -> None:
        """Make a state one that is only there to be returned from."""
        self._kind[index] = MARK

    def set_edges(self, index: int, edges: Sequence[Edge], symbols: Sequence[tuple[int, int]] = ()) -> None:
        """Give a state its edges, at most one a byte."""
        low, self._edges = self._edges, self._edges + len(edges)
        if self._edges > len(self._edge_byte):
            for name in ("_edge_byte", "_edge_enters", "_edge_target", "_edge_return"):
                setattr(self, name, _grown(getattr(self, name), self._edges))
        ordered = sorted(edges, key=lambda edge: edge.byte)
        self._edge_byte[low : self._edges] = [edge.byte for edge in ordered]
        self._edge_target[low : self._edges] = [edge.target for edge in ordered]
        self._edge_enters[low : self._edges] = [edge.enters for edge in ordered]
        self._edge_return[low : self._edges] = [edge.after for edge in ordered]
        self._edge_low[index], self._edge_high[index] = low, self._edges
        self._set_symbols(index, symbols)
        self._kind[index] = EDGES

    def state(self, index: int) -> ExpandedState:
        """An expanded state, read back."""
        forward = (int(self._forward[index]), int(self._forward_return[index])) if self._kind[index] == FORWARD else None
        low, high = self._edge_low[index], self._edge_high[index]
        edges = tuple(
            Edge(int(byte), int(target), bool(enters), int(after))
            for byte, target, enters, after in zip(
                self._edge_byte[low:high],
                self._edge_target[low:high],
                self._edge_enters[low:high],
                self._edge_return[low:high],
                strict=True,
            )
        )
        low, high = self._symbol_low[index], self._symbol_high[index]
        symbols = zip(self._symbol[low:high].tolist(), self._symbol_target[low:high].tolist(), strict=True)
        return ExpandedState(bool(self._ends[index]), forward, edges, tuple(symbols))

    def ends(self, index: int) -> bool:
        """Whether the rule may end in a state."""
        return bool(self._ends[index])

    def _set_symbols(self, index: int, symbols: Sequence[tuple[int, int]]) -> None:
        low, self._symbols = self._symbols, self._symbols + len(symbols)
        if self._symbols > len(self._symbol):
            self._symbol = _grown(self._symbol, self._symbols)
            self._symbol_target = _grown(self._symbol_target, self._symbols)
        for offset, (symbol, target) in enumerate(symbols):
            self._symbol[low + offset], self._symbol_target[low + offset] = symbol, target
        self._symbol_low[index], self._symbol_high[index] = low, self._symbols


def _grown(column: npt.NDArray[S], size: int) -> npt.NDArray[S]:
    """A copy with room for at least `size` entries. Readers of the old array keep what they had."""
    bigger = np.zeros(max(size, 2 * len(column)), column.dtype)
    bigger[: len(column)] = column
    return bigger
