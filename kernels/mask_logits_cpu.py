"""What `mask_logits` does on CPUs: a loop over words of the rows, compiled by numba.

In: logits, rows of packed bits, one row id per slot, all checked. Out: the logits, changed in place. Most words allow all of
their 32 columns or none: the first cost nothing, the second a store. Logits are taken as integers: so all their dtypes are, and
every bit of those that are allowed is kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from routine_grammar.jit import carray, jit, pointer
from routine_grammar.kernels.mask_logits_reference import describe_bad_id

_BITS = (np.uint32(1) << np.arange(32, dtype=np.uint32)).view(np.int32)
# Minus infinity of each dtype of logits, as the integer of its size.
_LOWEST = {torch.float32: 0xFF800000 - (1 << 32), torch.float16: 0xFC00 - (1 << 16), torch.bfloat16: 0xFF80 - (1 << 16)}


def mask_logits_cpu(logits: torch.Tensor, rows: torch.Tensor, row_ids: torch.Tensor, *, vocab_size: int) -> None:
    """Do what `mask_logits` does. The arguments are those that `check_mask_arguments` lets pass, on the CPU.

    Raises ValueError for row ids outside [-1, number of rows), before anything is masked.
    """
    slots, columns = logits.shape
    # Addresses and numbers: arrays would cost compiled code more to take than a short row takes to mask.
    bad = _mask(
        logits.data_ptr(),
        logits.element_size(),
        logits.stride(0),
        slots,
        columns,
        rows.data_ptr(),
        rows.stride(0),
        len(rows),
        row_ids.data_ptr(),
        vocab_size,
        _LOWEST[logits.dtype],
    )
    if bad < slots:
        raise ValueError(describe_bad_id(bad, int(row_ids[bad]), len(rows)))


@jit
def _mask(
    logits: int,
    size: int,
    stride: int,
    slots: int,
    columns: int,
    rows: int,
    words: int,
    count: int,
    ids: int,
    vocab_size: int,
    lowest: int,
) -> int:
    """Mask all slots, or none where the id of one is no row: returns that slot, else the number of slots.

    `logits`, `rows` and `ids` are addresses, `size` the bytes of a logit, `stride` and `words` what lies between two lines.
    """
    row_ids = carray(pointer(ids), (slots,), np.int32)
    bad = _first_bad(row_ids, count)
    if bad < slots:
        return bad
    for slot in range(slots):
        if row_ids[slot] >= 0:
            begin = pointer(logits + size * slot * stride)
            row = carray(pointer(rows + 4 * row_ids[slot] * words), ((vocab_size + 31) >> 5,), np.int32)
            if size == 4:
                _mask_line(carray(begin, (columns,), np.int32), row, vocab_size, lowest)
            else:
                _mask_line(carray(begin, (columns,), np.int16), row, vocab_size, lowest)
    return slots


@jit
def _first_bad(row_ids: npt.NDArray[np.int32], count: int) -> int:
    """The first slot whose id is neither -1 nor one of `count` rows; their number where there is none."""
    for slot in range(len(row_ids)):
        if not -1 <= row_ids[slot] < count:
            return slot
    return len(row_ids)


@jit
def _mask_line(line: npt.NDArray[np.signedinteger[Any]], row: npt.NDArray[np.int32], vocab_size: int, lowest: int) -> None:
    whole = vocab_size >> 5
    for place in range(whole):
        word = row[place]
        if word == -1:
            continue
        part = line[place * 32 : place * 32 + 32]
        if word == 0:
            part[:] = lowest
        else:
            for bit in range(32):
                if word & _BITS[bit] == 0:
                    part[bit] = lowest
    for column in range(whole * 32, vocab_size):
        if row[column >> 5] & _BITS[column & 31] == 0:
            line[column] = lowest
    line[vocab_size:] = lowest
