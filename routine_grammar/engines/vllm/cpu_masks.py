"""Masks the logits of a pass on CPUs: which row of the grammars' is whose, and our loop over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from routine_grammar.kernels.mask_logits import mask_logits


def mask_batch(
    logits: torch.Tensor,
    rows: npt.NDArray[np.int32],
    constrained: Sequence[str],
    batch: Sequence[str],
    drafts: Mapping[str, Sequence[int]],
) -> None:
    """Mask the logits [slots, columns] of the requests under a grammar, in place.

    The requests of the `batch` have their slots in that order, and those that are `constrained` their `rows` [n, words] in
    that one: one each, and one for each of its `drafts`.
    """
    if not drafts and constrained == batch and len(batch) == len(logits):  # nearly always
        row_ids = np.arange(len(batch), dtype=np.int32)
    else:
        row_ids = _row_ids(len(logits), constrained, batch, drafts)
    if not rows.flags.writeable:  # as they come from another process, of which torch would warn
        rows = rows.copy()
    mask_logits(logits, torch.from_numpy(rows), torch.from_numpy(row_ids))


def _row_ids(
    slots: int, constrained: Sequence[str], batch: Sequence[str], drafts: Mapping[str, Sequence[int]]
) -> npt.NDArray[np.int32]:
    """The row of each slot, -1 where it has none."""
    first_rows, count = {}, 0
    for name in constrained:
        first_rows[name] = count
        count += 1 + len(drafts.get(name, ()))
    row_ids: list[int] = []
    for name in batch:
        width = 1 + len(drafts.get(name, ()))
        row = first_rows.get(name)
        row_ids += [-1] * width if row is None else range(row, row + width)
    return np.array(row_ids + [-1] * (slots - len(row_ids)), np.int32)
