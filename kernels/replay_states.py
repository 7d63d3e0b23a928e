"""Finds the states of slots that begin, or that go on after they were interrupted, from the tokens of their texts.

In: tables, the slots and where their texts begin, all their tokens. Out: the ring, changed in place.
"""

from __future__ import annotations

import os

import torch

from routine_grammar.kernels.grammar_tables import ENTRY, Tables, check_tables
from routine_grammar.kernels.grammar_tables_reference import Reader, ring_word

_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def replay_states(tables: Tables, added: torch.Tensor, tokens: torch.Tensor, ring: torch.Tensor) -> None:
    """Write to the ring the state that each of some slots has behind the token at its ENTRY.

    added [n, 3] int32: a slot; the position of the first token of its text, so far as there is one; its state before that.
    tokens [slots, length] int32: all tokens of each slot, to its ENTRY at least; rows any stride apart. Slots without a grammar
    are left alone. On a CUDA device: one launch (none where n is 0) and no wait; else as for `advance_states`. Raises
    ValueError for other shapes, dtypes, strides or devices.
    """
    check_tables(tables, ring)
    if added.ndim != 2 or added.shape[1] != 3 or added.dtype != torch.int32 or not added.is_contiguous():
        raise ValueError(f"got added of {added.dtype} and shape {list(added.shape)}, expected torch.int32 [n, 3]")
    if tokens.ndim != 2 or tokens.dtype != torch.int32 or len(tokens) != len(ring) or tokens.stride(1) != 1:
        got = f"{tokens.dtype}, shape {list(tokens.shape)}, strides {list(tokens.stride())}"
        raise ValueError(f"got tokens of {got}; expected torch.int32 [{len(ring)}, any], a row's side by side")
    if not len(added):
        return
    if ring.is_cuda or _INTERPRETED:
        from routine_grammar.kernels.replay_states_kernel import launch_replay_states

        launch_replay_states(tables, added, tokens, ring)
    else:
        replay_states_reference(tables, added, tokens, ring)


def replay_states_reference(tables: Tables, added: torch.Tensor, tokens: torch.Tensor, ring: torch.Tensor) -> None:
    """Do what `replay_states` does, token by token; it waits for the device."""
    for slot, first, state in added.tolist():
        reader = Reader(tables, slot)
        if reader.has_grammar:
            for token in tokens[slot, first : reader.column(ENTRY) + 1].tolist():
                state = reader.after(state, token)
            position = reader.column(ENTRY)
            ring[slot, position % ring.shape[1]] = ring_word(position, state)
