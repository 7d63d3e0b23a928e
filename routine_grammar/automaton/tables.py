"""The arrays that stepping reads, behind one address.

Compiled code is given the address of an automaton's array of addresses: two dozen arrays as arguments would cost it more at
every call than the steps themselves. Who owns an array writes its new address before it lets go of the old one; compiled code
runs to its end while it holds the interpreter, so that it never sees an address of what is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from routine_grammar.automaton.counting import MAX_LAYERS
from routine_grammar.jit import jit

Handle = int  # the address of an automaton's addresses

# An automaton's addresses, by their places.
LIBRARY, STATES, EDGES, SYMBOLS = range(4)
# Columns of `states` [n, 9], `edges` [n, 4] and `symbols` [n, 2], all int32.
KIND, ENDS, DISTANCE, FORWARD_TO, FORWARD_RETURN, EDGE_LOW, EDGE_HIGH, SYMBOL_LOW, SYMBOL_HIGH = range(9)
BYTE, TARGET, ENTERS, AFTER = range(4)
SYMBOL, SYMBOL_TARGET = range(2)
STATE_COLUMNS, EDGE_COLUMNS, SYMBOL_COLUMNS = 9, 4, 2
# The library's addresses, by their places.
TABLE, ACCEPTING, LEAF_DISTANCE, COUNTED_ROW, COMPLETES, COUNTS, LAYERS, PSEUDO, BOUNDS = range(9)


class Addresses:
    """The addresses of some arrays, by their places; `handle` is where they stand, as long as this lives."""

    def __init__(self, count: int) -> None:
        self._addresses = np.zeros(count, np.int64)
        self.handle: Handle = self._addresses.ctypes.data

    def set(self, place: int, array: npt.NDArray[Any]) -> None:
        """Say where an array stands; the one before may go afterwards, and not earlier."""
        assert array.flags.c_contiguous
        self._addresses[place] = array.ctypes.data

    def set_handle(self, place: int, addresses: Addresses) -> None:
        """Say where other addresses stand, which have to live as long."""
        self._addresses[place] = addresses.handle


def _load(width: int, *, is_signed: bool) -> Callable[[int, int], int]:
    """A compiled function that reads the integer of so many bits at `address[index]`."""

    @intrinsic  # type: ignore[untyped-decorator]
    def load(context: Any, address: Any, index: Any) -> Any:
        def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = builder.inttoptr(arguments[0], ir.IntType(width).as_pointer())
            value = builder.load(builder.gep(pointer, [arguments[1]]))
            if width == 64:
                return value
            return builder.sext(value, ir.IntType(64)) if is_signed else builder.zext(value, ir.IntType(64))

        return types.int64(types.int64, types.int64), generate

    return cast(Callable[[int, int], int], load)


_word = _load(64, is_signed=True)
_int = _load(32, is_signed=True)
_byte = _load(8, is_signed=False)


@jit
def of_state(t: Handle, state: int, column: int) -> int:
    """A column of a state of the skeleton."""
    return _int(_word(t, STATES), state * STATE_COLUMNS + column)


@jit
def of_edge(t: Handle, edge: int, column: int) -> int:
    """A column of an edge."""
    return _int(_word(t, EDGES), edge * EDGE_COLUMNS + column)


@jit
def of_symbol(t: Handle, edge: int, column: int) -> int:
    """A column of an edge that takes a symbol."""
    return _int(_word(t, SYMBOLS), edge * SYMBOL_COLUMNS + column)


@jit
def leaf_next(t: Handle, state: int, byte: int) -> int:
    """Where a byte leads from a state of a leaf."""
    return _int(_word(_word(t, LIBRARY), TABLE), state * 256 + byte)


@jit
def leaf_accepts(t: Handle, state: int) -> bool:
    """Whether a leaf may end in a state."""
    return _byte(_word(_word(t, LIBRARY), ACCEPTING), state) != 0


@jit
def leaf_distance(t: Handle, state: int) -> int:
    """Fewest bytes from a state to the end of its leaf."""
    return _int(_word(_word(t, LIBRARY), LEAF_DISTANCE), state)


@jit
def counted_row(t: Handle, state: int) -> int:
    """The row of counts of a state of a leaf, -1 where its characters are not counted."""
    return _int(_word(_word(t, LIBRARY), COUNTED_ROW), state)


@jit
def completes(t: Handle, entry: int) -> int:
    """1 where what leads to a row of counts completes a character, else 0."""
    return _byte(_word(_word(t, LIBRARY), COMPLETES), entry)


@jit
def counts(t: Handle, entry: int, least: int) -> int:
    """The least number of characters, of at least so many, that leads from a row of counts to the end."""
    return _int(_word(_word(t, LIBRARY), COUNTS), entry * MAX_LAYERS + least)


@jit
def layer(t: Handle, entry: int, number: int) -> int:
    """Fewest bytes from a row of counts to the end, with so many characters."""
    return _int(_word(_word(t, LIBRARY), LAYERS), entry * MAX_LAYERS + number)


@jit
def of_pseudo(t: Handle, number: int, column: int) -> int:
    """Of a pseudo state: its state, count or bounds."""
    return _int(_word(_word(t, LIBRARY), PSEUDO), number * 3 + column)


@jit
def of_bounds(t: Handle, number: int, column: int) -> int:
    """Of bounds on a count: the lower, the upper, the last layer, or the slope behind it."""
    return _int(_word(_word(t, LIBRARY), BOUNDS), number * 4 + column)
