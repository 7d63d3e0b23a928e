"""The Triton side of `replay_states`: one program a slot, which walks its text token by token.

In: arguments that have been checked. Out: the ring, changed in place.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from routine_grammar.kernels.grammar_tables import Tables
from routine_grammar.kernels.grammar_tables_kernel import (
    COMB,
    ENTRY,
    SLOT_COLUMNS,
    Held,
    after_token,
    first_arguments,
    put_in_ring,
)

REPLAY_OPTIONS = {"num_warps": 1, "enable_fp_fusion": False}


@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=["vocab_size", "thinking_end", "opening", "ring_size", "tokens_stride"],
    do_not_specialize_on_alignment=["added", "tokens"],
)
def replay_kernel(
    arena: tl.tensor,
    slots: tl.tensor,
    vocab_size: tl.tensor,
    thinking_end: tl.tensor,
    opening: tl.tensor,
    ring: tl.tensor,
    ring_size: tl.tensor,
    added: tl.tensor,
    tokens: tl.tensor,
    tokens_stride: tl.tensor,
) -> None:
    """Find the state of one slot; grid (slots that were added,)."""
    held = Held(arena, slots, vocab_size, thinking_end, opening, ring, ring_size)
    of_added = added + tl.program_id(0) * 3
    slot = tl.load(of_added).to(tl.int64)
    of_slot = slots + slot * SLOT_COLUMNS
    if tl.load(of_slot + COMB) >= 0:
        state = tl.load(of_added + 2)
        entry = tl.load(of_slot + ENTRY)
        for position in range(tl.load(of_added + 1), entry + 1):
            state = after_token(held, of_slot, state, tl.load(tokens + slot * tokens_stride + position))
        put_in_ring(held, slot, entry, state)


def launch_replay_states(tables: Tables, added: torch.Tensor, tokens: torch.Tensor, ring: torch.Tensor) -> None:
    """Launch the kernel for slots of which there is one at least."""
    with torch.cuda.device(ring.get_device()):
        replay_kernel[(len(added),)](*first_arguments(tables, ring), added, tokens, tokens.stride(0), **REPLAY_OPTIONS)
