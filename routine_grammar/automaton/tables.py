"""The arrays that stepping reads, behind one address.

Compiled code is given the address of an automaton's array of addresses: two dozen arrays as arguments would cost it more at
every call than the steps themselves. Who owns an array writes its new address before it lets go of the old one; compiled code
runs to its end while it holds the interpreter, so that it never sees an address of what is gone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from routine_grammar.automaton.counting import MAX_LAYERS
from routine_grammar.jit import jit

Handle = int  # the address of an automaton's addresses

SIZES = 0  # the place of the sizes of all arrays, which are looked at where all access is checked
# An automaton's addresses, by their places. That of the library is where its own addresses stand.
LIBRARY, STATES, EDGES, SYMBOLS = range(1, 5)
# Columns of `states` [n, 9], `edges` [n, 4] and `symbols` [n, 2], all int32.
KIND, ENDS, DISTANCE, FORWARD_TO, FORWARD_RETURN, EDGE_LOW, EDGE_HIGH, SYMBOL_LOW, SYMBOL_HIGH = range(9)
BYTE, TARGET, ENTERS, AFTER = range(4)
SYMBOL, SYMBOL_TARGET = range(2)
STATE_COLUMNS, EDGE_COLUMNS, SYMBOL_COLUMNS = 9, 4, 2
# The library's addresses, by their places.
TABLE, ACCEPTING, LEAF_DISTANCE, COUNTED_ROW, COMPLETES, COUNTS, LAYERS, PSEUDO, BOUNDS = range(1, 10)
EXTENDS_ROW, EXTENDS_WORDS, PSEUDO_TABLE = range(10, 13)

IS_CHECKED = bool(os.environ.get("ROUTINE_GRAMMAR_CHECKED"))  # a process ends where an index is outside of its array: for tests


class Addresses:
    """The addresses of some arrays, by their places; `handle` is where they stand, as long as this lives."""

    def __init__(self, last: int) -> None:
        both = np.zeros(2 * (last + 1), np.int64)
        self._addresses, self._sizes = both[: last + 1], both[last + 1 :]
        self.handle: Handle = both.ctypes.data
        both[SIZES] = self.handle + self._addresses.nbytes

    def set(self, place: int, array: npt.NDArray[Any]) -> None:
        """Say where an array stands; the one before may go afterwards, and not earlier."""
        assert array.flags.c_contiguous
        self._addresses[place] = array.ctypes.data
        self._sizes[place] = array.size

    def set_block(
        self, places: npt.NDArray[Any], block: npt.NDArray[Any], starts: npt.NDArray[Any], sizes: npt.NDArray[Any]
    ) -> None:
        """Say that arrays stand in one block of 32-bit words, where they start, and how many elements they have."""
        _point(self._addresses, self._sizes, places, block, starts, sizes)

    def set_function(self, place: int, address: int) -> None:
        """Say where a compiled function stands."""
        self._addresses[place] = address

    def set_handle(self, place: int, addresses: Addresses) -> None:
        """Say where other addresses stand, which have to live as long."""
        self._addresses[place] = addresses.handle


@jit
def _point(
    addresses: npt.NDArray[Any],
    sizes: npt.NDArray[Any],
    places: npt.NDArray[Any],
    block: npt.NDArray[Any],
    starts: npt.NDArray[Any],
    lengths: npt.NDArray[Any],
) -> None:
    base = block.ctypes.data
    for number, place in enumerate(places):
        addresses[place] = base + 4 * starts[number]
        sizes[place] = lengths[number]


def _element(builder: Any, place: Sequence[Any], width: int) -> Any:
    """A pointer to an element of the array whose address is at a place behind a handle; checked where all access is."""
    handle, array, index = place
    words = ir.IntType(64).as_pointer()
    addresses = builder.inttoptr(handle, words)
    if IS_CHECKED:
        sizes = builder.inttoptr(builder.load(builder.gep(addresses, [ir.Constant(ir.IntType(64), SIZES)])), words)
        size = builder.load(builder.gep(sizes, [array]))
        with builder.if_then(builder.icmp_unsigned(">=", index, size)):
            trap = builder.module.declare_intrinsic("llvm.trap", (), ir.FunctionType(ir.VoidType(), ()))
            builder.call(trap, ())
    base = builder.load(builder.gep(addresses, [array]))
    return builder.gep(builder.inttoptr(base, ir.IntType(width).as_pointer()), [index])


def _loaded(builder: Any, pointer: Any, width: int) -> Any:
    value = builder.load(pointer)
    if width == 64:
        return value
    extend = builder.zext if width == 8 else builder.sext
    return extend(value, ir.IntType(64))


def _getter(width: int) -> Callable[[int, int, int], int]:
    """A compiled function that reads an integer of so many bits: `(handle, place of the array, index)`."""

    @intrinsic  # type: ignore[untyped-decorator]
    def load(context: Any, handle: Any, array: Any, index: Any) -> Any:
        def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return _loaded(builder, _element(builder, arguments, width), width)

        return types.int64(types.int64, types.int64, types.int64), generate

    return cast(Callable[[int, int, int], int], load)


def _setter(width: int) -> Callable[[int, int, int, int], int]:
    """A compiled function that writes an integer of so many bits, and returns it: `(handle, place, index, value)`."""

    @intrinsic  # type: ignore[untyped-decorator]
    def store(context: Any, handle: Any, array: Any, index: Any, value: Any) -> Any:
        def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            *place, value = arguments
            kept = value if width == 64 else builder.trunc(value, ir.IntType(width))
            builder.store(kept, _element(builder, place, width))
            return value

        return types.int64(types.int64, types.int64, types.int64, types.int64), generate

    return cast(Callable[[int, int, int, int], int], store)


def column_getter(place: int, columns: int, width: int = 32, *, of_library: bool = False) -> Callable[[int, int, int], int]:
    """A compiled function that reads a column of a row of an array, one of the library's or not: `(handle, row, column)`."""

    @intrinsic  # type: ignore[untyped-decorator]
    def load(context: Any, handle: Any, row: Any, column: Any) -> Any:
        def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            word = ir.IntType(64)
            handle, row, column = arguments
            if of_library:
                addresses = builder.inttoptr(handle, word.as_pointer())
                handle = builder.load(builder.gep(addresses, [ir.Constant(word, LIBRARY)]))
            index = builder.add(builder.mul(row, ir.Constant(word, columns)), column)
            return _loaded(builder, _element(builder, (handle, ir.Constant(word, place), index), width), width)

        return types.int64(types.int64, types.int64, types.int64), generate

    return cast(Callable[[int, int, int], int], load)


def column_setter(place: int, columns: int) -> Callable[[int, int, int, int], int]:
    """A compiled function that writes a column of a row of an array, and returns the value: `(handle, row, column, value)`."""

    @intrinsic  # type: ignore[untyped-decorator]
    def store(context: Any, handle: Any, row: Any, column: Any, value: Any) -> Any:
        def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            handle, row, column, value = arguments
            index = builder.add(builder.mul(row, ir.Constant(ir.IntType(64), columns)), column)
            pointer = _element(builder, (handle, ir.Constant(ir.IntType(64), place), index), 32)
            builder.store(builder.trunc(value, ir.IntType(32)), pointer)
            return value

        return types.int64(types.int64, types.int64, types.int64, types.int64), generate

    return cast(Callable[[int, int, int, int], int], store)


@intrinsic  # type: ignore[untyped-decorator]
def _call_at(context: Any, handle: Any, place: Any, argument: Any) -> Any:
    """Call the function whose address is at a place, with the handle and an integer."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        handle, place, argument = arguments
        address = builder.load(builder.gep(builder.inttoptr(handle, word.as_pointer()), [place]))
        function = builder.inttoptr(address, ir.FunctionType(word, (word, word)).as_pointer())
        return builder.call(function, (handle, argument))

    return types.int64(types.int64, types.int64, types.int64), generate


call_at = cast(Callable[[int, int, int], int], _call_at)
get, put = _getter(32), _setter(32)
get_word, put_word = _getter(64), _setter(64)
get_byte = _getter(8)
of_state, set_state = column_getter(STATES, STATE_COLUMNS), column_setter(STATES, STATE_COLUMNS)
of_edge = column_getter(EDGES, EDGE_COLUMNS)
of_symbol = column_getter(SYMBOLS, SYMBOL_COLUMNS)
# Of the library: where a byte leads from a leaf's state; 1 where the leaf may end there; fewest bytes to its end (column 0).
leaf_next = column_getter(TABLE, 256, of_library=True)
_accepting = column_getter(ACCEPTING, 1, 8, of_library=True)
_leaf_distance = column_getter(LEAF_DISTANCE, 1, of_library=True)
_counted_row = column_getter(COUNTED_ROW, 1, of_library=True)
_completes = column_getter(COMPLETES, 1, 8, of_library=True)
_extends_row = column_getter(EXTENDS_ROW, 1, of_library=True)
_pseudo_slot = column_getter(PSEUDO_TABLE, 1, of_library=True)
# The least number of characters, of at least so many, that leads from a row of counts to the end; fewest bytes with so many.
counts = column_getter(COUNTS, MAX_LAYERS, of_library=True)
layer = column_getter(LAYERS, MAX_LAYERS, of_library=True)
# Of a pseudo state: its state, count or bounds. Of bounds on a count: the lower, the upper, the last layer, the slope then.
of_pseudo = column_getter(PSEUDO, 3, of_library=True)
of_bounds = column_getter(BOUNDS, 4, of_library=True)
# 32 of the bytes that may follow a complete word within a longer one.
extends_word = column_getter(EXTENDS_WORDS, 8, of_library=True)


@jit
def leaf_accepts(t: Handle, state: int) -> bool:
    """Whether a leaf may end in a state."""
    return _accepting(t, state, 0) != 0


@jit
def leaf_distance(t: Handle, state: int) -> int:
    """Fewest bytes from a state to the end of its leaf."""
    return _leaf_distance(t, state, 0)


@jit
def counted_row(t: Handle, state: int) -> int:
    """The row of counts of a state of a leaf, -1 where its characters are not counted."""
    return _counted_row(t, state, 0)


@jit
def completes(t: Handle, entry: int) -> int:
    """1 where what leads to a row of counts completes a character, else 0."""
    return _completes(t, entry, 0)


@jit
def leaf_extends(t: Handle, state: int) -> int:
    """The row of `extends_word` of a state of a leaf, or -1: not known yet."""
    return _extends_row(t, state, 0)


@jit
def pseudo_number(t: Handle, state: int, count: int, bounds: int) -> int:
    """The number of the pseudo state of a state, a count and bounds, or -1. The table begins with its size, a power of 2."""
    size = _pseudo_slot(t, 0, 0)
    at = pseudo_slot(state, count, bounds, size)
    number = _pseudo_slot(t, 1 + at, 0)
    while number >= 0:
        if of_pseudo(t, number, 0) == state and of_pseudo(t, number, 1) == count and of_pseudo(t, number, 2) == bounds:
            return number
        at = (at + 1) & (size - 1)
        number = _pseudo_slot(t, 1 + at, 0)
    return -1


@jit
def pseudo_slot(state: int, count: int, bounds: int, size: int) -> int:
    """Where a pseudo state is looked for first in a table of so many slots."""
    mixed = state * 0x9E3779B1 + count * 0x85EBCA6B + bounds * 0xC2B2AE35
    return int((mixed ^ (mixed >> 15)) & (size - 1))
