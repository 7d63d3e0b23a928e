"""Keeps texts whole within their budgets, on a device: masks what would leave too few tokens to end a text.

In: logits that have been masked by the states of their rows, and what that was done with. Out: the logits, changed in place.
It walks every token that is still allowed, so it is for rows whose budget runs out, and costs others a look at their row.
"""

from __future__ import annotations

import os

import torch

from routine_grammar.kernels.advance_and_mask import check_logits
from routine_grammar.kernels.close_rows_reference import close_rows_reference
from routine_grammar.kernels.grammar_tables import Batch, Tables, check_batch, check_tables

_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def close_rows(logits: torch.Tensor, tables: Tables, batch: Batch, ring: torch.Tensor) -> None:
    """Set to minus infinity each logit whose token leads further from the end of a text than its slot's LIMIT leaves room for.

    Arguments as those of `mask_states`, which comes before it. Where the limit leaves too little room whatever comes, the
    tokens stay from which the end is nearest: no row is left empty. Tokens that end a text stay.

    On a CUDA device: one launch and no wait. Errors as of `mask_states`.
    """
    check_tables(tables, ring)
    rows = check_batch(batch, ring)
    check_logits(logits, rows, ring)
    if rows and logits.numel():
        if ring.is_cuda or _INTERPRETED:
            from routine_grammar.kernels.close_rows_kernel import launch_close_rows

            launch_close_rows(logits, tables, batch, ring)
        else:
            close_rows_reference(logits, tables, batch, ring)
