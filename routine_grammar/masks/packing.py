"""Packed rows, compiled by numba: words of a row behind their places, and rows that are written where they differ."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from routine_grammar.jit import carray, jit, pointer

Ids = npt.NDArray[np.int32]


@jit
def add_word(place: int, bits: int, packed: Ids, slots: Ids, used: int) -> int:
    """Put 32 tokens into a packed row of so many words, each behind its place; returns how many there are then.

    `slots` [words] says where in `packed` a word is, behind how many with itself, or 0.
    """
    slot = slots[place]
    if slot == 0:
        used += 1
        slot = used
        slots[place] = slot
        packed[2 * slot - 2] = place
        packed[2 * slot - 1] = 0
    packed[2 * slot - 1] |= bits
    return used


@jit
def add_token(token: int, packed: Ids, slots: Ids, used: int) -> int:
    """As `add_word`, for one token."""
    return add_word(token >> 5, 1 << (token & 31), packed, slots, used)


@jit
def clear_slots(packed: Ids, slots: Ids, used: int) -> None:
    """Make all slots of a packed row 0."""
    for place in range(used):
        slots[packed[2 * place]] = 0


@jit
def pack(tokens: Ids, packed: Ids, slots: Ids) -> int:
    """Write the words of a packed row of some tokens, each behind its place; returns how many. `slots` stays 0."""
    used = 0
    for token in tokens:
        used = add_token(token, packed, slots, used)
    clear_slots(packed, slots, used)
    return used


@jit
def write_row(out: Ids, base: Ids, packed: Ids) -> None:
    """Overwrite a packed row with a base, which may be shorter, and some words beside it; those outside of it are left out."""
    out[: len(base)] = base
    out[len(base) :] = 0
    set_words(out, packed)


@jit
def set_words(row: Ids, packed: Ids) -> None:
    """Set the bits of some words of a row, each behind its place; those outside of the row are left out."""
    for place in range(0, len(packed), 2):
        if 0 <= packed[place] < len(row):
            row[packed[place]] |= packed[place + 1]


@jit
def write_rows(out: int, words: int, rows: npt.NDArray[np.int64], written: npt.NDArray[np.int64]) -> None:
    """Overwrite packed rows, int32 of so many words each from the address `out` on, where they differ from what was written.

    A row stands at an address: the address of its base and its length, and those of its words beside it. `written` are the
    rows that are there, and then those that are.
    """
    for line in range(len(rows)):
        if rows[line] == written[line]:
            continue
        row = carray(pointer(out + 4 * words * line), (words,), np.int32)
        wanted = carray(pointer(rows[line]), (4,), np.int64)
        before = carray(pointer(written[line]), (4,), np.int64)
        base = carray(pointer(wanted[0]), (wanted[1],), np.int32)
        if before[0] == wanted[0] and before[1] == wanted[1]:
            beside = carray(pointer(before[2]), (before[3],), np.int32)
            for at in beside[::2]:
                if 0 <= at < words:
                    row[at] = base[at] if at < len(base) else 0
        else:
            row[: len(base)] = base
            row[len(base) :] = 0
        set_words(row, carray(pointer(wanted[2]), (wanted[3],), np.int32))
        written[line] = rows[line]
