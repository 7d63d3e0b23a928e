"""Follows grammars on a device: from a batch's tokens to the states behind them, and from those to masked logits.

In: tables, a batch, a ring of states, logits. Out: the ring and the logits, changed in place. `advance_and_mask` is one launch,
which computes a row's state again in each of its programs; `advance_states` and `mask_states` are the same in two, for
batches of many rows. Neither asks the host, and running one twice changes nothing.
"""

from __future__ import annotations

import os

import torch

from routine_grammar.kernels.advance_and_mask_reference import advance_states_reference, mask_states_reference
from routine_grammar.kernels.grammar_tables import Batch, Tables, check_batch, check_tables

_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def advance_states(tables: Tables, batch: Batch, ring: torch.Tensor) -> None:
    """Write the state behind the token of every row of a batch to the ring.

    ring [slots, places] int64, a power of two of places, 2 more at least than a slot ever has drafts: at that of a position
    the position (upper half) and the state behind its token. The state before a slot's first row has to be there, from the
    step before or from `replay_states`; where it is not, the row's state is NOWHERE. Rows of slots without a grammar, and those
    before a slot's ENTRY, write nothing.

    On a CUDA device: one launch (none for an empty batch) and no wait for the device. On others the reference runs, or with
    TRITON_INTERPRET=1 in the environment from the start Triton's interpreter. Raises ValueError for shapes, dtypes, strides or
    devices other than those.
    """
    check_tables(tables, ring)
    if check_batch(batch, ring):
        if _has_kernels(ring):
            from routine_grammar.kernels.advance_and_mask_kernel import launch_advance

            launch_advance(tables, batch, ring)
        else:
            advance_states_reference(tables, batch, ring)


def mask_states(logits: torch.Tensor, tables: Tables, batch: Batch, ring: torch.Tensor) -> None:
    """Set to minus infinity each logit that the state of its row forbids; every other logit keeps all its bits.

    logits [rows, columns] float32, float16 or bfloat16, rows any stride apart. States are those that the ring has at the rows'
    positions. Columns behind the vocabulary are masked; rows without a state, and those before a text begins, are left
    alone. Launches and errors as of `advance_states`.
    """
    check_tables(tables, ring)
    rows = check_batch(batch, ring)
    check_logits(logits, rows, ring)
    if rows and logits.numel():
        if _has_kernels(ring):
            from routine_grammar.kernels.advance_and_mask_kernel import launch_mask

            launch_mask(logits, tables, batch, ring, advances=False)
        else:
            mask_states_reference(logits, tables, batch, ring)


def advance_and_mask(logits: torch.Tensor, tables: Tables, batch: Batch, ring: torch.Tensor) -> None:
    """Do what `advance_states` and then `mask_states` do, in one launch."""
    check_tables(tables, ring)
    rows = check_batch(batch, ring)
    check_logits(logits, rows, ring)
    if not rows:
        return
    if _has_kernels(ring) and logits.numel():
        from routine_grammar.kernels.advance_and_mask_kernel import launch_mask

        launch_mask(logits, tables, batch, ring, advances=True)
    else:
        advance_states(tables, batch, ring)
        mask_states(logits, tables, batch, ring)


def check_logits(logits: torch.Tensor, rows: int, ring: torch.Tensor) -> None:
    """Raise ValueError where logits are not as kernels take them; reads no values."""
    if logits.ndim != 2 or len(logits) != rows:
        raise ValueError(f"got logits of shape {list(logits.shape)} for a batch of {rows} rows, expected [rows, columns]")
    if logits.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise ValueError(f"got logits of {logits.dtype}, expected torch.float32, torch.float16 or torch.bfloat16")
    if logits.device != ring.device:
        raise ValueError(f"got logits on {logits.device} and states on {ring.device}, expected one device")
    if logits.shape[1] > 1 and logits.stride(1) != 1:
        raise ValueError(f"got logits with column stride {logits.stride(1)}, expected 1 (a row's columns side by side)")
    if rows > 1 and logits.stride(0) < logits.shape[1]:
        raise ValueError(f"got logits with row stride {logits.stride(0)}, expected {logits.shape[1]} or more: rows overlap")


def _has_kernels(ring: torch.Tensor) -> bool:
    return ring.is_cuda or _INTERPRETED
