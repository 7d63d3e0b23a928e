"""Packed rows: a bit for each token."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]
BITS = [1 << bit if bit < 31 else -(1 << 31) for bit in range(32)]  # the words of one bit, as the rows' int32
Bitmap = npt.NDArray[np.uint32]  # [vocabulary.words], bit t & 31 of word t >> 5 for token t


def set_bits(bits: Bitmap, ids: Ids) -> None:
    """Set the bits of some tokens."""
    np.bitwise_or.at(bits, ids >> 5, np.left_shift(np.uint32(1), (ids & 31).astype(np.uint32), dtype=np.uint32))


def clear_bits(bits: Bitmap, ids: Ids) -> None:
    """Clear the bits of some tokens."""
    np.bitwise_and.at(bits, ids >> 5, ~np.left_shift(np.uint32(1), (ids & 31).astype(np.uint32), dtype=np.uint32))
