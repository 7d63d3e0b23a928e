"""Arrays that compiled code finds behind one handle, and that grow as it asks for room."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from routine_grammar.automaton.tables import SIZES, Addresses, Handle, get_word
from routine_grammar.jit import jit


class Arrays:
    """Arrays by their places, of rows of some columns each. Compiled code finds them by `handle`, as long as this lives."""

    def __init__(self, last: int) -> None:
        self._addresses = Addresses(last)
        self._arrays: dict[int, npt.NDArray[Any]] = {}
        self._kept: list[Any] = []
        self.handle: Handle = self._addresses.handle

    def __getitem__(self, place: int) -> npt.NDArray[Any]:
        return self._arrays[place]

    def put(self, place: int, array: npt.NDArray[Any]) -> None:
        """Say which array stands at a place."""
        self._addresses.set(place, array)
        self._arrays[place] = array

    def keep(self, owner: Any) -> None:
        """Keep what has a handle of its own that stands in one of the arrays."""
        self._kept.append(owner)

    def lengthen(self, place: int, rows: int) -> None:
        """Have an array at least so many rows, new ones being 0."""
        array = self._arrays[place]
        if rows > len(array):
            longer = np.zeros((rows, *array.shape[1:]), array.dtype)
            longer[: len(array)] = array
            self.put(place, longer)


@jit
def size_of(f: Handle, place: int) -> int:
    """How many elements the array at a place has, all columns of it counted."""
    return get_word(f, SIZES, place)
