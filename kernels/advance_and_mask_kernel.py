"""The Triton side of `advance_and_mask`: states by one program a row, masks by one program a row and block of columns.

In: arguments that have been checked. Out: the ring and the logits, changed in place. Every program of a row that needs its
state walks to it by itself: what it reads of the ring no program writes in the same launch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from routine_grammar.kernels.grammar_tables import Batch, Tables
from routine_grammar.kernels.grammar_tables_kernel import (
    SLOT_COLUMNS,
    Held,
    first_arguments,
    keep_state,
    kept_state,
    load_allowed,
    state_of_row,
)
from routine_grammar.kernels.mask_logits_kernel import (
    COLUMNS_PER_PROGRAM,
    COMPILE_OPTIONS,
    INTEGER_VIEWS,
    rows_are_aligned,
    store_columns,
    store_groups,
    store_tail,
)

ADVANCE_OPTIONS = {"num_warps": 1, "enable_fp_fusion": False}
# Twice the threads for logits of twice the size: with as many columns a thread they would need more registers than it has.
MASK_OPTIONS = {2: COMPILE_OPTIONS, 4: {**COMPILE_OPTIONS, "num_warps": 8}}


@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=["vocab_size", "thinking_end", "opening", "ring_size"],
    do_not_specialize_on_alignment=["batch_slots", "places", "positions", "tokens"],
)
def advance_kernel(
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
) -> None:
    """Write the state of one row to the ring; grid (rows,)."""
    held = Held(arena, slots, vocab_size, thinking_end, opening, ring, ring_size)
    batch = Batch(batch_slots, places, positions, tokens)
    row = tl.program_id(0)
    keep_state(held, batch, row, state_of_row(held, batch, row))


@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=["logits_stride", "columns", "vocab_size", "thinking_end", "opening", "ring_size"],
    do_not_specialize_on_alignment=["logits", "batch_slots", "places", "positions", "tokens"],
)
def mask_kernel(
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
    ADVANCES: tl.constexpr,
    MINUS_INFINITY: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Mask BLOCK columns of one row; grid (rows, blocks).

    Where it ADVANCES every program finds the state of its row, and the first ones keep it; else the ring has it already.
    """
    held = Held(arena, slots, vocab_size, thinking_end, opening, ring, ring_size)
    batch = Batch(batch_slots, places, positions, tokens)
    row = tl.program_id(0)
    if ADVANCES:
        state = state_of_row(held, batch, row)
        if tl.program_id(1) == 0:
            keep_state(held, batch, row, state)
    else:
        state = kept_state(held, batch, row)
    if state >= 0:
        of_slot = slots + tl.load(batch_slots + row).to(tl.int64) * SLOT_COLUMNS
        first = tl.program_id(1) * BLOCK
        words = load_allowed(held, of_slot, state, first, BLOCK // 32)
        start = logits + row.to(tl.int64) * logits_stride
        if ALIGNED:
            start = tl.multiple_of(start, 16)
            store_groups(start, first, columns, words, MINUS_INFINITY, BLOCK // 32)
            # The last columns of a row may not fill a group of eight.
            if first + BLOCK > columns:
                store_tail(start, first, columns, words, MINUS_INFINITY, BLOCK // 32)
        else:
            store_columns(start, first, columns, words, MINUS_INFINITY, BLOCK // 32)


def launch_advance(tables: Tables, batch: Batch, ring: torch.Tensor) -> None:
    """Launch the first kernel over a batch that is not empty."""
    with torch.cuda.device(ring.get_device()):
        advance_kernel[(len(batch.slots),)](*first_arguments(tables, ring), *batch, **ADVANCE_OPTIONS)


def launch_mask(logits: torch.Tensor, tables: Tables, batch: Batch, ring: torch.Tensor, *, advances: bool) -> None:
    """Launch the second kernel over a batch and logits that are not empty; it does what the first does, too, if it advances."""
    integer, minus_infinity = INTEGER_VIEWS[logits.dtype]
    rows, columns = logits.shape
    with torch.cuda.device(ring.get_device()):
        mask_kernel[(rows, triton.cdiv(columns, COLUMNS_PER_PROGRAM))](
            logits.view(integer),
            logits.stride(0),
            columns,
            *first_arguments(tables, ring),
            *batch,
            ADVANCES=advances,
            MINUS_INFINITY=minus_infinity,
            ALIGNED=rows_are_aligned(logits),
            BLOCK=COLUMNS_PER_PROGRAM,
            **MASK_OPTIONS[logits.element_size()],
        )
