"""The Triton side of `replay_states`: one program a slot, which walks its text token by token.

In: arguments that have been checked. Out: the ring, changed in place.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from routine_grammar.kernels.grammar_tables import Tables
from routine_grammar.kernels.grammar_tables_kernel import COMB, ENTRY, SLOT_COLUMNS, after_token

REPLAY_OPTIONS = {"num_warps": 1, "enable_fp_fusion": False}


@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=["vocab_size", "ring_size", "thinking_end", "opening", "tokens_stride"],
    do_not_specialize_on_alignment=["added", "tokens"],
)
def replay_kernel(
    arena: tl.tensor,
    vocab_size: tl.tensor,
    slots: tl.tensor,
    ring: tl.tensor,
    ring_size: tl.tensor,
    added: tl.tensor,
    tokens: tl.tensor,
    tokens_stride: tl.tensor,
    thinking_end: tl.tensor,
    opening: tl.tensor,
) -> None:
    """Find the state of one slot; grid (slots that were added,)."""
    of_added = added + tl.program_id(0) * 3
    slot = tl.load(of_added).to(tl.int64)
    of_slot = slots + slot * SLOT_COLUMNS
    if tl.load(of_slot + COMB) >= 0:
        state = tl.load(of_added + 2)
        entry = tl.load(of_slot + ENTRY)
        for position in range(tl.load(of_added + 1), entry + 1):
            token = tl.load(tokens + slot * tokens_stride + position)
            state = after_token(arena, vocab_size, of_slot, state, token, thinking_end, opening)
        word = (entry.to(tl.int64) << 32) | (state.to(tl.int64) & 0xFFFFFFFF)
        tl.store(ring + slot * ring_size + (entry & (ring_size - 1)), word)


def launch_replay_states(tables: Tables, added: torch.Tensor, tokens: torch.Tensor, ring: torch.Tensor) -> None:
    """Launch the kernel for slots of which there is one at least."""
    with torch.cuda.device(ring.get_device()):
        replay_kernel[(len(added),)](
            tables.arena,
            tables.vocab_size,
            tables.slots,
            ring,
            ring.shape[1],
            added,
            tokens,
            tokens.stride(0),
            tables.thinking_end,
            tables.opening,
            **REPLAY_OPTIONS,
        )
