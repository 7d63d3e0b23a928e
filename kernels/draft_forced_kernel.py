"""The Triton side of `draft_forced`: one program a slot, which follows its rows of one token.

In: arguments that have been checked. Out: the drafts, overwritten.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from routine_grammar.kernels.grammar_tables import Tables
from routine_grammar.kernels.grammar_tables_kernel import (
    AFTER,
    COMB,
    DRAFTS,
    ENTRY,
    FORCED,
    NOWHERE,
    SLOT_COLUMNS,
    Held,
    after_token,
    first_arguments,
    ring_state,
    row_of_state,
)

DRAFT_OPTIONS = {"num_warps": 1, "enable_fp_fusion": False}


@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=["most", "vocab_size", "thinking_end", "opening", "ring_size"],
    do_not_specialize_on_alignment=["drafts", "batch_slots", "lengths", "last_tokens"],
)
def draft_kernel(
    drafts: tl.tensor,
    most: tl.tensor,
    arena: tl.tensor,
    slots: tl.tensor,
    vocab_size: tl.tensor,
    thinking_end: tl.tensor,
    opening: tl.tensor,
    ring: tl.tensor,
    ring_size: tl.tensor,
    batch_slots: tl.tensor,
    lengths: tl.tensor,
    last_tokens: tl.tensor,
) -> None:
    """Write the drafts of one slot; grid (slots of the batch,)."""
    held = Held(arena, slots, vocab_size, thinking_end, opening, ring, ring_size)
    slot = tl.load(batch_slots + tl.program_id(0)).to(tl.int64)
    of_slot = slots + slot * SLOT_COLUMNS
    last = tl.load(lengths + slot) - 1
    entry = tl.load(of_slot + ENTRY)
    state = tl.full([], NOWHERE, tl.int32)
    token = tl.load(last_tokens + slot)
    if (tl.load(of_slot + COMB) >= 0) & (last >= entry):
        known = tl.maximum(last - 1, entry)
        state = ring_state(held, slot, known)
        if last > known:
            state = after_token(held, of_slot, state, token.to(tl.int32))
    for place in range(most):
        draft = token
        if (state > NOWHERE) & (place < tl.load(of_slot + DRAFTS)):
            row = row_of_state(arena, of_slot, state)
            forced = tl.load(row + FORCED)
            draft = tl.where(forced >= 0, forced, token)
            state = tl.where(forced >= 0, tl.load(row + AFTER), NOWHERE)
        tl.store(drafts + tl.program_id(0).to(tl.int64) * most + place, draft)


def launch_draft_forced(
    drafts: torch.Tensor,
    tables: Tables,
    slots: torch.Tensor,
    lengths: torch.Tensor,
    last_tokens: torch.Tensor,
    ring: torch.Tensor,
) -> None:
    """Launch the kernel over drafts that are not empty."""
    with torch.cuda.device(ring.get_device()):
        draft_kernel[(len(slots),)](
            drafts, drafts.shape[1], *first_arguments(tables, ring), slots, lengths, last_tokens, **DRAFT_OPTIONS
        )
