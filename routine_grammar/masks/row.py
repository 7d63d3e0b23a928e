"""One row: the tokens allowed at a place, as a bitmap and what is set beside it; and a buffer that many are written to.

A buffer knows which row each of its lines holds, and writes what differs from it: most tokens stay where they are in a string,
or lead from one row of a few tokens to another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from routine_grammar.masks import packing
from routine_grammar.masks.bits import BITS, Bitmap, clear_bits

Ids = npt.NDArray[np.int32]
_NO_TOKENS = np.zeros(0, np.int32)


class Ends:
    """The tokens that end a text for some sequences: `ids`, and of these `within` those that spell something."""

    __slots__ = ("ids", "packed", "within")

    def __init__(self, ids: Iterable[int], tokens: Sequence[bytes]) -> None:
        self.ids = frozenset(ids)
        self.packed = _packed(sorted(self.ids))
        self.within = np.array([end for end in sorted(self.ids) if end < len(tokens) and tokens[end]], np.int32)


class Row:
    """The tokens allowed in one configuration: those of `base`, and those of `packed`; `ends`: the text may end here.

    `packed` [2 * n] int32 has words of a packed row, 32 tokens each, behind their places. `base` may be shorter than a row;
    `beneath` is it as int32, where that is there already.
    """

    __slots__ = ("_address", "_beneath", "_place", "_whole", "_whole_for", "base", "ends", "packed")

    def __init__(self, base: Bitmap | None, packed: Ids, ends: bool, beneath: Ids | None = None) -> None:
        self.base = base
        self.packed = packed
        self.ends = ends
        self._beneath = beneath if beneath is not None else _NO_TOKENS if base is None else base.view(np.int32)
        self._whole_for: Ends | None = None
        self._whole = self
        self._address = 0

    @classmethod
    def of(cls, base: Bitmap | None, tokens: Ids, ends: bool) -> Row:
        """The row of a base and some tokens."""
        packed = np.empty(2 * len(tokens), np.int32)
        used = packing.pack(tokens, packed, np.zeros(1 + (int(tokens.max(initial=0)) >> 5), np.int32))
        return cls(base, packed[: 2 * used].copy(), ends)

    @classmethod
    def single(cls, token: int) -> Row:
        """The row of one token."""
        return cls(None, _packed([token]), False)

    def write(self, out: Ids) -> None:
        """Overwrite a packed row, int32, with the tokens' bits."""
        packing.write_row(out, self._beneath, self.packed)

    @property
    def allowed(self) -> Ids:
        """The allowed token ids, sorted; ends of text not among them."""
        out = np.zeros(max(len(self._beneath), 1 + int(self.packed[::2].max(initial=-1))), np.int32)
        self.write(out)
        return np.flatnonzero(np.unpackbits(out.view(np.uint8), bitorder="little")).astype(np.int32)

    def whole(self, ends: Ends) -> Row:
        """The row with the tokens that end a text, where it may end, and without those of them that would be within it."""
        if self._whole_for is not ends:
            self._whole, self._whole_for = self._with(ends), ends
        return self._whole

    def _with(self, ends: Ends) -> Row:
        base, packed = self.base, self.packed
        if len(ends.within):
            base = np.zeros(
                max(len(self._beneath), 1 + int(max(packed[::2].max(initial=0), ends.within.max() >> 5))), np.uint32
            )
            self.write(base.view(np.int32))
            clear_bits(base, ends.within)
            packed = _NO_TOKENS
        elif not self.ends:
            return self
        return Row(base, np.concatenate([packed, ends.packed]) if self.ends else packed, False)

    @property
    def address(self) -> int:
        """Where compiled code finds the row, as long as it lives: addresses and lengths of its base and its words."""
        if not self._address:
            self._place = np.array(
                [self._beneath.ctypes.data, len(self._beneath), self.packed.ctypes.data, len(self.packed)], np.int64
            )
            self._address = self._place.ctypes.data
        return self._address


NO_TOKEN = Row(None, _NO_TOKENS, False)


def _packed(tokens: Sequence[int]) -> Ids:
    """The words of some tokens, one each, behind their places: those of one word of a row stand beside each other."""
    return np.array([part for token in tokens for part in (token >> 5, BITS[token & 31])], np.int32)


class RowBuffer:
    """Lines of packed rows, int32 [lines, words], that nobody else writes to."""

    def __init__(self, lines: int, words: int) -> None:
        self.lines = np.zeros((lines, words), np.int32)
        self._every = Row(np.full(words, 0xFFFFFFFF, np.uint32), _NO_TOKENS, False)
        self._held: list[Row] = [NO_TOKEN] * lines  # which live as long as their addresses may be looked at
        self._written = np.full(lines, NO_TOKEN.address, np.int64)
        self._data: int = self.lines.ctypes.data

    def write(self, rows: Sequence[Row | None]) -> Ids:
        """Have the first lines hold these rows, None being the one that allows every token; returns those lines."""
        every = self._every
        held = [every if row is None else row for row in rows]
        count = len(held)
        wanted = np.array([row._address or row.address for row in held], np.int64)
        packing.write_rows(self._data, self.lines.shape[1], wanted, self._written)
        self._held[:count] = held
        return self.lines[:count]
