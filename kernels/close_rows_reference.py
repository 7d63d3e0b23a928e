"""The contract of `close_rows` in torch, row by row and token by token; it waits for the device."""

from __future__ import annotations

import torch

from routine_grammar.kernels.grammar_tables import DISTANCE, FARTHEST, LIMIT, NOWHERE, Batch, Tables
from routine_grammar.kernels.grammar_tables_reference import Reader, kept_state


def close_rows_reference(logits: torch.Tensor, tables: Tables, batch: Batch, ring: torch.Tensor) -> None:
    """Do what `close_rows` does."""
    for place in range(len(batch.slots)):
        state, reader = kept_state(tables, batch, ring, place), Reader(tables, int(batch.slots[place]))
        if state < 0:
            continue
        row = reader.row(state)
        left = max(reader.column(LIMIT) - int(batch.positions[place]) - 1, row[DISTANCE] - 1)
        if left >= row[FARTHEST]:
            continue
        for token in torch.nonzero(logits[place, : tables.vocab_size] != float("-inf")).flatten().tolist():
            after = reader.after(state, token)
            if after != NOWHERE and reader.row(after)[DISTANCE] > left:
                logits[place, token] = float("-inf")
