"""The Triton side of `advance_and_mask`: states by one program a row, masks by one program a row and block of columns.

In: arguments that have been checked. Out: the ring and the logits, changed in place. Every program of a row that needs its
state walks to it by itself: what it reads of the ring no program writes in the same launch.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from routine_grammar.kernels.grammar_tables import Batch, Tables
from routine_grammar.kernels.grammar_tables_kernel import SLOT_COLUMNS, keep_state, kept_state, load_allowed, state_of_row
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
    do_not_specialize=["vocab_size", "ring_size", "thinking_end", "opening"],
    do_not_specialize_on_alignment=["batch_slots", "places", "positions", "tokens"],
)
def advance_kernel(
    arena: tl.tensor,
    vocab_size: tl.tensor,
    slots: tl.tensor,
    ring: tl.tensor,
    ring_size: tl.tensor,
    batch_slots: tl.tensor,
    places: tl.tensor,
    positions: tl.tensor,
    tokens: tl.tensor,
    thinking_end: tl.tensor,
    opening: tl.tensor,
) -> None:
    """Write the state of one row to the ring; grid (rows,)."""
    row = tl.program_id(0)
    state = state_of_row(
        arena, vocab_size, slots, ring, ring_size, batch_slots, places, positions, tokens, thinking_end, opening, row
    )
    keep_state(ring, ring_size, batch_slots, positions, row, state)


@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=["vocab_size", "ring_size", "logits_stride", "columns"],
    do_not_specialize_on_alignment=["logits", "batch_slots", "positions"],
)
def mask_kernel(
    logits: tl.tensor,
    logits_stride: tl.tensor,
    columns: tl.tensor,
    arena: tl.tensor,
    vocab_size: tl.tensor,
    slots: tl.tensor,
    ring: tl.tensor,
    ring_size: tl.tensor,
    batch_slots: tl.tensor,
    positions: tl.tensor,
    MINUS_INFINITY: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Mask BLOCK columns of one row by the state that the ring has of it; grid (rows, blocks)."""
    row = tl.program_id(0)
    state = kept_state(slots, ring, ring_size, batch_slots, positions, row)
    of_slot = slots + tl.load(batch_slots + row).to(tl.int64) * SLOT_COLUMNS
    mask_block(
        logits,
        logits_stride,
        columns,
        arena,
        vocab_size,
        of_slot,
        state,
        row,
        tl.program_id(1) * BLOCK,
        MINUS_INFINITY,
        ALIGNED,
        BLOCK,
    )


@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=["vocab_size", "ring_size", "thinking_end", "opening", "logits_stride", "columns"],
    do_not_specialize_on_alignment=["logits", "batch_slots", "places", "positions", "tokens"],
)
def advance_and_mask_kernel(
    logits: tl.tensor,
    logits_stride: tl.tensor,
    columns: tl.tensor,
    arena: tl.tensor,
    vocab_size: tl.tensor,
    slots: tl.tensor,
    ring: tl.tensor,
    ring_size: tl.tensor,
    batch_slots: tl.tensor,
    places: tl.tensor,
    positions: tl.tensor,
    tokens: tl.tensor,
    thinking_end: tl.tensor,
    opening: tl.tensor,
    MINUS_INFINITY: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Find the state of a row and mask BLOCK of its columns; grid (rows, blocks), of which the first keep the state."""
    row = tl.program_id(0)
    state = state_of_row(
        arena, vocab_size, slots, ring, ring_size, batch_slots, places, positions, tokens, thinking_end, opening, row
    )
    if tl.program_id(1) == 0:
        keep_state(ring, ring_size, batch_slots, positions, row, state)
    of_slot = slots + tl.load(batch_slots + row).to(tl.int64) * SLOT_COLUMNS
    mask_block(
        logits,
        logits_stride,
        columns,
        arena,
        vocab_size,
        of_slot,
        state,
        row,
        tl.program_id(1) * BLOCK,
        MINUS_INFINITY,
        ALIGNED,
        BLOCK,
    )


@triton.jit  # type: ignore[untyped-decorator]
def mask_block(
    logits: tl.tensor,
    logits_stride: tl.tensor,
    columns: tl.tensor,
    arena: tl.tensor,
    vocab_size: tl.tensor,
    of_slot: tl.tensor,
    state: tl.tensor,
    row: tl.tensor,
    first: tl.tensor,
    MINUS_INFINITY: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Mask BLOCK columns of a row, from column `first` on, by what its state allows; none where it has no state."""
    if state >= 0:
        words = load_allowed(arena, of_slot, state, first, vocab_size, BLOCK // 32)
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
        advance_kernel[(len(batch.slots),)](
            tables.arena,
            tables.vocab_size,
            tables.slots,
            ring,
            ring.shape[1],
            *batch,
            tables.thinking_end,
            tables.opening,
            **ADVANCE_OPTIONS,
        )


def launch_mask(logits: torch.Tensor, tables: Tables, batch: Batch, ring: torch.Tensor) -> None:
    """Launch the second kernel over a batch and logits that are not empty."""
    with torch.cuda.device(ring.get_device()):
        mask_kernel[_grid(logits)](
            *_of_logits(logits),
            tables.arena,
            tables.vocab_size,
            tables.slots,
            ring,
            ring.shape[1],
            batch.slots,
            batch.positions,
            **_constants(logits),
        )


def launch_advance_and_mask(logits: torch.Tensor, tables: Tables, batch: Batch, ring: torch.Tensor) -> None:
    """Launch both as one, over a batch and logits that are not empty."""
    with torch.cuda.device(ring.get_device()):
        advance_and_mask_kernel[_grid(logits)](
            *_of_logits(logits),
            tables.arena,
            tables.vocab_size,
            tables.slots,
            ring,
            ring.shape[1],
            *batch,
            tables.thinking_end,
            tables.opening,
            **_constants(logits),
        )


def _grid(logits: torch.Tensor) -> tuple[int, int]:
    return len(logits), triton.cdiv(logits.shape[1], COLUMNS_PER_PROGRAM)


def _of_logits(logits: torch.Tensor) -> tuple[torch.Tensor, int, int]:
    return logits.view(INTEGER_VIEWS[logits.dtype][0]), logits.stride(0), logits.shape[1]


def _constants(logits: torch.Tensor) -> dict[str, Any]:
    minus_infinity, aligned = INTEGER_VIEWS[logits.dtype][1], rows_are_aligned(logits)
    options = MASK_OPTIONS[logits.element_size()]
    return {"MINUS_INFINITY": minus_infinity, "ALIGNED": aligned, "BLOCK": COLUMNS_PER_PROGRAM, **options}
