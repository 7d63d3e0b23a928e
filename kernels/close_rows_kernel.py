"""The Triton side of `close_rows`: one program per row and block of columns, which walks the tokens of a few columns at a time.

In: arguments that have been checked. Out: the logits, changed in place.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from routine_grammar.kernels.grammar_tables import Batch, Tables
from routine_grammar.kernels.grammar_tables_kernel import (
    AFTER,
    CLASS_COUNT,
    CLASSES,
    COMB,
    DISTANCE,
    FARTHEST,
    FORCED,
    LIMIT,
    NOWHERE,
    SLOT_COLUMNS,
    Held,
    after_byte,
    first_arguments,
    kept_state,
    row_of_state,
)
from routine_grammar.kernels.mask_logits_kernel import INTEGER_VIEWS

COLUMNS_PER_PROGRAM = 1024
COLUMNS_AT_ONCE = 128
CLOSE_OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}


@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=["logits_stride", "columns", "vocab_size", "thinking_end", "opening", "ring_size"],
    do_not_specialize_on_alignment=["logits", "batch_slots", "places", "positions", "tokens"],
)
def close_kernel(
    logits: tl.tensor,
    logits_stride: tl.tensor,
    columns: tl.tensor,
    arena: tl.tensor,
    slots: tl.tensor,
    vocab_size: tl.tensor,
    thinking_end: tl.tensor,
    opening: tl.tensor,
    ring: tl.tensor,
    ring_size: tl.tensor,
    batch_slots: tl.tensor,
    places: tl.tensor,
    positions: tl.tensor,
    tokens: tl.tensor,
    MINUS_INFINITY: tl.constexpr,
    BLOCK: tl.constexpr,
    AT_ONCE: tl.constexpr,
) -> None:
    """Close BLOCK columns of one row, AT_ONCE of them at a time; grid (rows, blocks)."""
    held = Held(arena, slots, vocab_size, thinking_end, opening, ring, ring_size)
    place = tl.program_id(0)
    state = kept_state(held, Batch(batch_slots, places, positions, tokens), place)
    if state >= 0:
        of_slot = slots + tl.load(batch_slots + place).to(tl.int64) * SLOT_COLUMNS
        row = row_of_state(arena, of_slot, state)
        left = tl.load(of_slot + LIMIT) - tl.load(positions + place) - 1
        left = tl.maximum(left, tl.load(row + DISTANCE) - 1)
        if left < tl.load(row + FARTHEST):
            end = tl.minimum(columns, vocab_size)
            for begin in range(tl.program_id(1) * BLOCK, tl.program_id(1) * BLOCK + BLOCK, AT_ONCE):
                column = begin + tl.arange(0, AT_ONCE)
                pointers = logits + place.to(tl.int64) * logits_stride + column
                is_allowed = tl.load(pointers, mask=column < end, other=MINUS_INFINITY) != MINUS_INFINITY
                if tl.max(is_allowed.to(tl.int32), axis=0) > 0:
                    after = after_tokens(arena, of_slot, row, state, column, is_allowed)
                    distance = tl.load(row_of_state(arena, of_slot, after) + DISTANCE)
                    tl.store(pointers, MINUS_INFINITY, mask=is_allowed & (after != NOWHERE) & (distance > left))


@triton.jit  # type: ignore[untyped-decorator]
def after_tokens(
    arena: tl.tensor, of_slot: tl.tensor, row: tl.tensor, state: tl.tensor, tokens: tl.tensor, is_allowed: tl.tensor
) -> tl.tensor:
    """Where each of some tokens leads from a state; NOWHERE for those that are not allowed."""
    comb = arena + tl.load(of_slot + COMB)
    classes = (arena + tl.load(of_slot + CLASSES)).to(tl.pointer_type(tl.uint8))
    spelled = arena.to(tl.pointer_type(tl.uint8))
    word = tl.load(arena + tokens, mask=is_allowed, other=0)
    at = word >> 32
    end = at + tl.where(is_allowed, word & 0xFFFFFFFF, 0)
    # A token that spells nothing has its number where others have the begin of their bytes.
    numbered = is_allowed & (at == end) & (at > 0)
    entry = tl.load(comb + state + tl.load(of_slot + CLASS_COUNT) + at, mask=numbered, other=-1)
    silent = tl.where(entry >> 32 == state, entry, NOWHERE).to(tl.int32)
    after = tl.where(at < end, state, silent)
    while tl.max(end - at, axis=0) > 0:
        byte = tl.load(spelled + at, mask=at < end, other=0)
        after = tl.where(at < end, after_byte(comb, classes, after, byte), after)
        at = tl.minimum(at + 1, end)
    return tl.where(tokens == tl.load(row + FORCED), tl.load(row + AFTER), after)


def launch_close_rows(logits: torch.Tensor, tables: Tables, batch: Batch, ring: torch.Tensor) -> None:
    """Launch the kernel over a batch and logits that are not empty."""
    integer, minus_infinity = INTEGER_VIEWS[logits.dtype]
    rows, columns = logits.shape
    with torch.cuda.device(ring.get_device()):
        close_kernel[(rows, triton.cdiv(columns, COLUMNS_PER_PROGRAM))](
            logits.view(integer),
            logits.stride(0),
            columns,
            *first_arguments(tables, ring),
            *batch,
            MINUS_INFINITY=minus_infinity,
            BLOCK=COLUMNS_PER_PROGRAM,
            AT_ONCE=COLUMNS_AT_ONCE,
            **CLOSE_OPTIONS,
        )
