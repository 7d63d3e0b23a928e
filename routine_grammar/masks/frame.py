"""What compiled walks work with, behind one address: an argument costs a call more than a step does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from routine_grammar.automaton.step import HEAD, STACK
from routine_grammar.masks import walks
from routine_grammar.masks.leaf_rows import VocabularyRows

Ids = npt.NDArray[np.int32]
_SIZE = HEAD + STACK


class Frame:
    """The arrays of a vocabulary's rows, and the symbols of one automaton. Used by one thread at a time.

    It is given the key of a configuration; what else it has the last walk left: the `key`, `state` and `bounds` of the
    configuration after a token, or the `packed` words of a row and whether the text `ends`.
    """

    def __init__(self, rows: VocabularyRows, symbols: Sequence[int]) -> None:
        block = np.zeros(2 * _SIZE + 2 + len(symbols), np.int32)
        block[2 * _SIZE + 2 :] = symbols
        self._words = memoryview(block)  # type: ignore[arg-type]
        self._bytes = self._words.cast("B")
        self._scratch = rows.scratch[1]
        self._rows = rows  # whose arrays have to live as long
        self._frame = rows.frame.copy()
        begin = int(block.ctypes.data)
        self._frame[[walks.GIVEN, walks.AFTER, walks.DONE, walks.SYMBOLS]] = [
            begin + 4 * place for place in (0, _SIZE, 2 * _SIZE, 2 * _SIZE + 2)
        ]
        self._frame[walks.SYMBOL_COUNT] = len(symbols)
        self.address = int(self._frame.ctypes.data)

    def give(self, key: bytes) -> None:
        """Have the next walk begin at the configuration of a key: what stands behind its stack does not count."""
        self._bytes[: len(key)] = key

    @property
    def state(self) -> int:
        """The state after a token."""
        return self._words[_SIZE]

    @property
    def bounds(self) -> int:
        """The bounds on a count there, if there is one."""
        return self._words[_SIZE + 3]

    @property
    def key(self) -> bytes:
        """The same for equal configurations after a token; empty where it is not allowed, or nested deeper than the stack."""
        words = self._words
        return b"" if words[_SIZE] < 0 else bytes(self._bytes[4 * _SIZE : 4 * (_SIZE + HEAD + words[_SIZE + 1])])

    @property
    def packed(self) -> Ids:
        """The words of a row, each behind its place."""
        packed: Ids = self._scratch[: 2 * self._words[2 * _SIZE]].copy()
        return packed

    @property
    def ends(self) -> bool:
        """Whether the text may end where a row was made."""
        return self._words[2 * _SIZE + 1] == 1
