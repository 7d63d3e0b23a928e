"""The Triton side of `mask_logits`: one launch, one program per slot and block of columns.

In: arguments that `check_mask_arguments` has passed. Out: the logits, changed in place. Logits travel as integers of
their own width, so that what stays allowed keeps every bit. Each dtype has exactly two builds: 16-byte vectors where
every row of logits starts on a 16-byte boundary, single elements elsewhere. It does not know what a row means.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

COLUMNS_PER_PROGRAM = 4096
# Nothing here computes with floats; naming the fusion keeps Triton from warning that its default will change.
COMPILE_OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}
VECTOR_BYTES = 16
# The integer that holds a logit, and minus infinity's bit pattern read as that integer.
INTEGER_VIEWS = {
    torch.float32: (torch.int32, -0x0080_0000),
    torch.float16: (torch.int16, -0x0400),
    torch.bfloat16: (torch.int16, -0x0080),
}


# Builds must not depend on sizes or on the alignment of slices: a new build in the middle of serving is a stall.
@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=["logits_stride", "columns", "rows_stride", "vocab_size"],
    do_not_specialize_on_alignment=["logits", "rows", "row_ids"],
)
def mask_logits_kernel(
    logits: tl.tensor,
    logits_stride: tl.tensor,
    columns: tl.tensor,
    rows: tl.tensor,
    rows_stride: tl.tensor,
    vocab_size: tl.tensor,
    row_ids: tl.tensor,
    MINUS_INFINITY: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Mask BLOCK columns of one slot; grid (slots, blocks). ALIGNED: each row of logits is, to 16 bytes."""
    slot = tl.program_id(0)
    row = tl.load(row_ids + slot)
    if row >= 0:
        bits = rows + row.to(tl.int64) * rows_stride
        start = logits + slot.to(tl.int64) * logits_stride
        first = tl.program_id(1) * BLOCK
        words = load_words(bits, first, vocab_size, BLOCK // 32)
        if ALIGNED:
            start = tl.multiple_of(start, 16)
            store_groups(start, first, columns, words, MINUS_INFINITY, BLOCK // 32)
            # The last columns of a row may not fill a group of eight.
            if first + BLOCK > columns:
                store_tail(start, first, columns, words, MINUS_INFINITY, BLOCK // 32)
        else:
            store_columns(start, first, columns, words, MINUS_INFINITY, BLOCK // 32)


@triton.jit  # type: ignore[untyped-decorator]
def load_words(bits: tl.tensor, first: tl.tensor, vocab_size: tl.tensor, WORDS: tl.constexpr) -> tl.tensor:
    """Load WORDS words of the row at `bits`, from column `first` on; bits past the vocabulary come back as 0."""
    column = first + tl.arange(0, WORDS) * 32
    left = vocab_size - column
    words = tl.load(bits + column // 32, mask=left > 0, other=0)
    partial = words & ~(tl.full([WORDS], -1, tl.int32) << tl.minimum(tl.maximum(left, 0), 31))
    return tl.where(left < 32, partial, words)


@triton.jit  # type: ignore[untyped-decorator]
def store_groups(
    start: tl.tensor,
    first: tl.tensor,
    columns: tl.tensor,
    words: tl.tensor,
    MINUS_INFINITY: tl.constexpr,
    WORDS: tl.constexpr,
) -> None:
    """Mask the whole groups of eight columns that share a byte, in vectors; `start` is where the row of logits begins.

    A group that is allowed is left alone, a forbidden one is written unread, a mixed one is read and written back.
    """
    byte_place = tl.arange(0, 4)[None, :, None] * 8
    bit_place = tl.arange(0, 8)[None, None, :]
    byte = (words[:, None, None] >> byte_place) & 0xFF
    group = first + tl.arange(0, WORDS)[:, None, None] * 32 + byte_place
    touched = (group + 8 <= columns) & (byte != 0xFF)
    pointers = start + group + bit_place
    values = tl.load(pointers, mask=touched & (byte != 0), other=MINUS_INFINITY)
    allowed = ((byte >> bit_place) & 1) != 0
    tl.store(pointers, tl.where(allowed, values, MINUS_INFINITY), mask=touched)


@triton.jit  # type: ignore[untyped-decorator]
def store_tail(
    start: tl.tensor,
    first: tl.tensor,
    columns: tl.tensor,
    words: tl.tensor,
    MINUS_INFINITY: tl.constexpr,
    WORDS: tl.constexpr,
) -> None:
    """Mask the columns after the last whole group of eight, one by one."""
    column = columns // 8 * 8 + tl.arange(0, 8)
    word = tl.sum(tl.where(first // 32 + tl.arange(0, WORDS) == columns // 32, words, 0), axis=0)
    forbidden = ((word >> (column % 32)) & 1) == 0
    tl.store(start + column, MINUS_INFINITY, mask=forbidden & (column < columns))


@triton.jit  # type: ignore[untyped-decorator]
def store_columns(
    start: tl.tensor,
    first: tl.tensor,
    columns: tl.tensor,
    words: tl.tensor,
    MINUS_INFINITY: tl.constexpr,
    WORDS: tl.constexpr,
) -> None:
    """Mask column by column, for rows of logits that start anywhere."""
    place = tl.arange(0, 32)[None, :]
    column = first + tl.arange(0, WORDS)[:, None] * 32 + place
    forbidden = ((words[:, None] >> place) & 1) == 0
    tl.store(start + column, MINUS_INFINITY, mask=forbidden & (column < columns))


def launch_mask_logits(
    logits: torch.Tensor, rows: torch.Tensor, row_ids: torch.Tensor, *, vocab_size: int, aligned: bool | None = None
) -> None:
    """Launch the kernel once over checked, non-empty arguments; `aligned` forces a build, for measurements."""
    integer, minus_infinity = INTEGER_VIEWS[logits.dtype]
    slots, columns = logits.shape
    if aligned is None:
        aligned = rows_are_aligned(logits)
    grid = (slots, triton.cdiv(columns, COLUMNS_PER_PROGRAM))
    with torch.cuda.device(logits.get_device()):
        mask_logits_kernel[grid](
            logits.view(integer),
            logits.stride(0),
            columns,
            rows,
            rows.stride(0),
            vocab_size,
            row_ids,
            MINUS_INFINITY=minus_infinity,
            ALIGNED=aligned,
            BLOCK=COLUMNS_PER_PROGRAM,
            **COMPILE_OPTIONS,
        )


def rows_are_aligned(logits: torch.Tensor) -> bool:
    """Tell whether every row of logits starts on a 16-byte boundary."""
    return logits.data_ptr() % VECTOR_BYTES == 0 and logits.stride(0) * logits.element_size() % VECTOR_BYTES == 0
