"""Drafts what has to come next, on a device: the tokens that are the only ones allowed, from the states that slots are in.

In: tables, the slots of a batch with how long their texts are and the last token of each, the ring. Out: drafts.
"""

from __future__ import annotations

import os

import torch

from routine_grammar.kernels.grammar_tables import DRAFTS, ENTRY, FORCED, NOWHERE, Tables, check_tables
from routine_grammar.kernels.grammar_tables_reference import Reader, state_at

_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def draft_forced(
    drafts: torch.Tensor,
    tables: Tables,
    slots: torch.Tensor,
    lengths: torch.Tensor,
    last_tokens: torch.Tensor,
    ring: torch.Tensor,
) -> None:
    """Fill drafts [n, most] int64 with the tokens that have to come behind the texts of n slots.

    Behind those, and for slots that have none, comes the last token of the slot: a token that a model can be asked about, as
    engines verify all that they are proposed.

    slots [n] int64. lengths [all slots] int32: the tokens of each slot, prompt and text. last_tokens [all slots]
    int64: the last of them. The ring has to know the state before it. At most DRAFTS of a slot are drafted. On a CUDA
    device: one launch (none where n is 0) and no wait; else as for `advance_states`. Raises ValueError for other shapes,
    dtypes, strides or devices.
    """
    check_tables(tables, ring)
    _check(drafts, slots, lengths, last_tokens, ring)
    if not drafts.numel():
        return
    if ring.is_cuda or _INTERPRETED:
        from routine_grammar.kernels.draft_forced_kernel import launch_draft_forced

        launch_draft_forced(drafts, tables, slots, lengths, last_tokens, ring)
    else:
        draft_forced_reference(drafts, tables, slots, lengths, last_tokens, ring)


def draft_forced_reference(
    drafts: torch.Tensor,
    tables: Tables,
    slots: torch.Tensor,
    lengths: torch.Tensor,
    last_tokens: torch.Tensor,
    ring: torch.Tensor,
) -> None:
    """Do what `draft_forced` does, token by token; it waits for the device."""
    for place, slot in enumerate(slots.tolist()):
        drafts[place] = last_tokens[slot]
        reader, last = Reader(tables, slot), int(lengths[slot]) - 1
        if not reader.has_grammar or last < reader.column(ENTRY):
            continue
        if last == reader.column(ENTRY):
            state = state_at(ring, slot, last)
        else:
            state = reader.after(state_at(ring, slot, last - 1), int(last_tokens[slot]))
        for draft in range(min(drafts.shape[1], reader.column(DRAFTS))):
            forced = reader.row(state)[FORCED] if state > NOWHERE else -1
            if forced < 0:
                break
            drafts[place, draft] = forced
            state = reader.after(state, forced)


def _check(
    drafts: torch.Tensor, slots: torch.Tensor, lengths: torch.Tensor, last_tokens: torch.Tensor, ring: torch.Tensor
) -> None:
    if drafts.ndim != 2 or drafts.dtype != torch.int64 or not drafts.is_contiguous() or slots.shape != drafts.shape[:1]:
        got = f"{drafts.dtype} {list(drafts.shape)} for slots {list(slots.shape)}"
        raise ValueError(f"got drafts of {got}, expected torch.int64 [n, most] for slots [n], side by side")
    if slots.dtype != torch.int64:
        raise ValueError(f"got slots of {slots.dtype}, expected torch.int64")
    expected = (len(ring),)
    if lengths.dtype != torch.int32 or last_tokens.dtype != torch.int64 or not lengths.shape == last_tokens.shape == expected:
        got = f"{lengths.dtype} {list(lengths.shape)} and {last_tokens.dtype} {list(last_tokens.shape)}"
        raise ValueError(f"got lengths and last_tokens of {got}; expected torch.int32 and torch.int64 [{len(ring)}]")
    if any(tensor.device != ring.device for tensor in (drafts, slots, lengths, last_tokens)):
        raise ValueError(f"got drafts, slots, lengths or last_tokens that are not on {ring.device}")
