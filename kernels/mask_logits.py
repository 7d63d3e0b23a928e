"""Masks a batch of logits by packed rows: one contract, with a Triton kernel for GPUs and a compiled loop for CPUs behind it.

In: logits, rows of packed bits on the same device, one row id per slot. Out: the logits, changed in place. It does not
know what a row means, which request a slot serves, or how rows got to the device.
"""

from __future__ import annotations

import os

import torch

from routine_grammar.kernels.mask_logits_reference import check_mask_arguments, mask_logits_reference

_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def mask_logits(logits: torch.Tensor, rows: torch.Tensor, row_ids: torch.Tensor, *, vocab_size: int | None = None) -> None:
    """Set to minus infinity, in place, each logit that its slot's row forbids; every other logit keeps all its bits.

    logits [slots, columns] float32, float16 or bfloat16: columns side by side, rows any stride apart. rows [n, words]
    int32: words side by side; bit c % 32 of word c // 32 is 1 where column c is allowed. row_ids [slots] int32: the row
    of each slot, or -1 for a slot to leave alone. All on one device. Columns from `vocab_size` on are masked, whatever
    the rows hold there; it defaults to words * 32, or to `columns` where that is less. A row without a single 1 masks
    its whole slot.

    On a CUDA device: one launch (none for an empty batch) and no wait for the device; fit for a CUDA graph once logits
    of this dtype and alignment have been masked before the capture. Row ids are read on the device alone: an id of n or
    more is undefined behaviour there, and a negative one leaves its slot alone. On CPUs a compiled loop runs, and the torch
    reference on what is neither; both refuse ids outside [-1, n). With TRITON_INTERPRET=1 in the environment from the
    start, Triton's interpreter runs the kernel there instead.

    Raises ValueError for shapes, dtypes, strides, devices or a `vocab_size` other than these.
    """
    if not logits.is_cuda and not logits.is_cpu and not _INTERPRETED:
        mask_logits_reference(logits, rows, row_ids, vocab_size=vocab_size)
        return
    vocab_size = check_mask_arguments(logits, rows, row_ids, vocab_size)
    if logits.is_cpu and not _INTERPRETED:
        # Imported here: a machine that masks on a GPU need not have numba.
        from routine_grammar.kernels.mask_logits_cpu import mask_logits_cpu

        mask_logits_cpu(logits, rows, row_ids, vocab_size=vocab_size)
    elif logits.numel():
        # Imported here: a machine without a GPU need not have Triton.
        from routine_grammar.kernels.mask_logits_kernel import launch_mask_logits

        launch_mask_logits(logits, rows, row_ids, vocab_size=vocab_size)
