"""The contract of `mask_logits` in plain torch: what its arguments must be, and what it does to the logits.

In: logits, rows of packed bits, one row id per slot. Out: the logits, changed in place. It runs on any device and waits
for it: what `mask_logits` calls where it has neither a kernel nor a loop. It does not know Triton.
"""

from __future__ import annotations

import torch


def mask_logits_reference(
    logits: torch.Tensor, rows: torch.Tensor, row_ids: torch.Tensor, *, vocab_size: int | None = None
) -> None:
    """Do what `mask_logits` does, slot by slot, and refuse row ids outside [-1, number of rows).

    Shapes, dtypes and `vocab_size` as in `mask_logits`. Raises ValueError.
    """
    vocab_size = check_mask_arguments(logits, rows, row_ids, vocab_size)
    ids: list[int] = row_ids.tolist()
    for slot, row in enumerate(ids):
        if not -1 <= row < rows.shape[0]:
            raise ValueError(describe_bad_id(slot, row, rows.shape[0]))
    for slot, row in enumerate(ids):
        if row >= 0:
            forbidden = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
            forbidden[:vocab_size] = unpack_row(rows[row])[:vocab_size] == 0
            logits[slot].masked_fill_(forbidden, float("-inf"))


def describe_bad_id(slot: int, row: int, count: int) -> str:
    """Say that a slot's row id is none of `count` rows."""
    return f"row_ids[{slot}] is {row}, expected -1 (untouched) or a row below {count}"


def unpack_row(row: torch.Tensor) -> torch.Tensor:
    """Return the bits of row [words] int32 as [words * 32] int32 of 0 and 1, lowest bit of the first word first."""
    places = torch.arange(32, dtype=torch.int32, device=row.device)
    return ((row[:, None] >> places) & 1).flatten()


def check_mask_arguments(logits: torch.Tensor, rows: torch.Tensor, row_ids: torch.Tensor, vocab_size: int | None) -> int:
    """Return the number of columns that have a bit, from `vocab_size` or from the shapes; reads no tensor's values.

    Raises ValueError where shape, dtype, stride or device is not what `mask_logits` takes.
    """
    if logits.ndim != 2 or rows.ndim != 2 or row_ids.shape != logits.shape[:1]:
        got = f"{list(logits.shape)}, {list(rows.shape)} and {list(row_ids.shape)}"
        raise ValueError(f"got shapes {got}, expected logits [slots, columns], rows [n, words] and row_ids [slots]")
    if logits.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise ValueError(f"got logits of {logits.dtype}, expected torch.float32, torch.float16 or torch.bfloat16")
    if rows.dtype != torch.int32 or row_ids.dtype != torch.int32:
        raise ValueError(f"got rows of {rows.dtype} and row_ids of {row_ids.dtype}, expected torch.int32 for both")
    if not logits.device == rows.device == row_ids.device:
        got = f"{logits.device}, {rows.device} and {row_ids.device}"
        raise ValueError(f"got logits, rows and row_ids on {got}, expected one device")
    _check_strides(logits, rows, row_ids)
    bits = min(rows.shape[1] * 32, logits.shape[1])
    if vocab_size is None:
        return bits
    if not 0 <= vocab_size <= bits:
        shapes = f"rows of {rows.shape[1]} words and logits of {logits.shape[1]} columns"
        raise ValueError(f"got vocab_size {vocab_size}, expected 0 to {bits} for {shapes}")
    return vocab_size


def _check_strides(logits: torch.Tensor, rows: torch.Tensor, row_ids: torch.Tensor) -> None:
    slots, columns = logits.shape
    if columns > 1 and logits.stride(1) != 1:
        raise ValueError(f"got logits with column stride {logits.stride(1)}, expected 1 (a row's columns side by side)")
    if slots > 1 and logits.stride(0) < columns:
        raise ValueError(f"got logits with row stride {logits.stride(0)}, expected {columns} or more: rows overlap")
    if rows.shape[1] > 1 and rows.stride(1) != 1:
        raise ValueError(f"got rows with word stride {rows.stride(1)}, expected 1 (a row's words side by side)")
    if slots > 1 and row_ids.stride(0) != 1:
        raise ValueError(f"got row_ids with stride {row_ids.stride(0)}, expected 1")
