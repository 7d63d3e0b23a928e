"""The contract of `advance_states` and `mask_states` in torch, row by row; it waits for the device."""

from __future__ import annotations

import torch

from routine_grammar.kernels.grammar_tables import UNTOUCHED, Batch, Tables
from routine_grammar.kernels.grammar_tables_reference import Reader, kept_state, ring_word, state_of_row
from routine_grammar.kernels.mask_logits_reference import unpack_row


def advance_states_reference(tables: Tables, batch: Batch, ring: torch.Tensor) -> None:
    """Do what `advance_states` does."""
    for row in range(len(batch.slots)):
        state = state_of_row(tables, batch, ring, row)
        if state != UNTOUCHED:
            slot, position = int(batch.slots[row]), int(batch.positions[row])
            ring[slot, position % ring.shape[1]] = ring_word(position, state)


def mask_states_reference(logits: torch.Tensor, tables: Tables, batch: Batch, ring: torch.Tensor) -> None:
    """Do what `mask_states` does."""
    for row in range(len(batch.slots)):
        slot = int(batch.slots[row])
        state = kept_state(tables, batch, ring, row)
        if state >= 0:
            width = min(tables.vocab_size, logits.shape[1])
            forbidden = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
            forbidden[:width] = unpack_row(Reader(tables, slot).allowed(state))[:width] == 0
            logits[row].masked_fill_(forbidden, float("-inf"))
