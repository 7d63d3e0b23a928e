"""What the kernels that follow grammars read: tables in an arena, the slots that decode under them, and a batch's rows.

An arena is one array of int64 words. It begins with a word for each token: its length in bytes (lower half) and where they
begin in the arena (upper half), or 0 and 1 + the token's number among those that spell nothing, 0 where it has none. A
table has the classes of the 256 bytes in 32 words, rows of ROW_COLUMNS int32, listed words of two int32 (place, 32 tokens), and
a comb. There the word at a state's place has where all bytes lead that have no entry (lower half), and -1 less the number of
its row; the entry of a byte is 1 + its class behind it, if that has the state in its upper half, and leads where its lower
half says.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

# Columns of `slots`: the words of the arena at which a slot's comb, its classes (its rows are behind them) and its listed words
# begin, the number of classes; the state where texts begin; the position at whose token the ring has the slot's state from the
# start; the position of the last token that its text may have; the most tokens that are drafted. A comb of -1: no grammar.
COMB, CLASSES, LISTED, CLASS_COUNT, START, ENTRY, LIMIT, DRAFTS = range(8)
SLOT_COLUMNS = 8
# Columns of a row: the word of the arena at which its bitmap begins or -1, where its listed words begin and how many there are;
# how few further tokens end the text, how few do behind the token for which that is most; the one token that is allowed or
# -1, and the state behind it.
BASE, FIRST, COUNT, DISTANCE, FARTHEST, FORCED, AFTER = range(7)
ROW_COLUMNS = 8
CLASS_WORDS = 32  # of the classes of 256 bytes
# States that are no places of a comb: what is not allowed leads to NOWHERE, whose row is row 0; a text has not begun before the
# token that ends the model's thoughts.
NOWHERE = 0
UNTOUCHED, THINKING = -1, -2


class Tables(NamedTuple):
    """`arena` int64 [words], of `vocab_size` tokens at its begin; `slots` int32 [slots, SLOT_COLUMNS].

    A slot that thinks begins its text behind the token `thinking_end`, or with the token `opening`; -1: there is none.
    """

    arena: torch.Tensor
    slots: torch.Tensor
    vocab_size: int
    thinking_end: int = -1
    opening: int = -1


class Batch(NamedTuple):
    """The rows of logits of a batch, those of one slot side by side: its last token, then what is drafted behind it.

    slots [rows] int64: whose row it is. places [rows] int32: its place among those of its slot. positions [rows] int64:
    that of the token that the row comes after. tokens [rows] int32: that token.
    """

    slots: torch.Tensor
    places: torch.Tensor
    positions: torch.Tensor
    tokens: torch.Tensor


def check_tables(tables: Tables, ring: torch.Tensor) -> None:
    """Raise ValueError where tables or the ring of states are not as kernels take them; reads no tensor's values."""
    _expect("arena", tables.arena, torch.int64, 1)
    _expect("slots", tables.slots, torch.int32, 2)
    _expect("ring", ring, torch.int64, 2)
    if tables.slots.shape[1] != SLOT_COLUMNS or len(ring) != len(tables.slots):
        got = f"{list(tables.slots.shape)} and {list(ring.shape)}"
        raise ValueError(f"got slots and ring of shapes {got}, expected [slots, {SLOT_COLUMNS}] and [slots, any]")
    places = ring.shape[1]
    if places < 2 or places & (places - 1):
        raise ValueError(f"got a ring of {places} places a slot, expected a power of two from 2 on")
    if not 0 <= tables.vocab_size <= len(tables.arena):
        raise ValueError(f"got vocab_size {tables.vocab_size}, expected one that an arena of {len(tables.arena)} words has")


def check_batch(batch: Batch, ring: torch.Tensor) -> int:
    """Return the number of rows of a batch. Raises ValueError where it is not as kernels take it; reads no tensor's values."""
    _expect("slots", batch.slots, torch.int64, 1)
    _expect("places", batch.places, torch.int32, 1)
    _expect("positions", batch.positions, torch.int64, 1)
    _expect("tokens", batch.tokens, torch.int32, 1)
    shapes = {tuple(tensor.shape) for tensor in batch}
    if len(shapes) != 1:
        raise ValueError(f"got slots, places, positions and tokens of shapes {sorted(shapes)}, expected one shape")
    if any(tensor.device != ring.device for tensor in batch):
        raise ValueError(f"got a batch that is not on {ring.device}")
    return len(batch.slots)


def _expect(name: str, tensor: torch.Tensor, dtype: torch.dtype, dimensions: int) -> None:
    if tensor.dtype != dtype or tensor.ndim != dimensions or not tensor.is_contiguous():
        got = f"{tensor.dtype} of shape {list(tensor.shape)}, strides {list(tensor.stride())}"
        raise ValueError(f"got {name} of {got}; expected {dtype} of {dimensions} dimensions, side by side")
