"""Cases and checks of `mask_logits` for any device, shared by the interpreted and the compiled kernel."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from routine_grammar.kernels.mask_logits import mask_logits
from routine_grammar.kernels.mask_logits_reference import mask_logits_reference

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
INTEGERS = {torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16}
SPECIAL_VALUES = (float("nan"), -0.0, float("inf"), float("-inf"))


@dataclass(frozen=True, slots=True)
class Case:
    """A batch by its shapes: logits are a slice of a wider tensor, with `lead` columns before it and `padding` after.

    Rows have `spare_words` more words than the vocabulary needs, behind `rows_lead` words that are not theirs.
    """

    columns: int
    vocab_size: int | None = None
    row_ids: tuple[int, ...] = (1, -1, 0, 1)
    row_count: int = 2
    spare_words: int = 0
    rows_lead: int = 0
    lead: int = 0
    padding: int = 0
    dtype: torch.dtype = torch.float32
    seed: int = 0

    def make_wide_logits(self) -> torch.Tensor:
        """Random bit patterns (NaNs of every payload among them), with special values in front."""
        integer = INTEGERS[self.dtype]
        limits = torch.iinfo(integer)
        shape = (len(self.row_ids), self.lead + self.columns + self.padding)
        generator = torch.Generator().manual_seed(self.seed)
        patterns = torch.randint(limits.min, limits.max + 1, shape, generator=generator, dtype=torch.int64)
        wide = patterns.to(integer).view(self.dtype)
        special = torch.tensor(SPECIAL_VALUES, dtype=self.dtype)[: self.columns]
        wide[:, self.lead : self.lead + len(special)] = special
        return wide

    def slice_logits(self, wide: torch.Tensor) -> torch.Tensor:
        return wide[:, self.lead : self.lead + self.columns]

    def make_rows(self) -> torch.Tensor:
        """Words of random bits, of all ones and of all zeros, garbage beyond the vocabulary included."""
        vocab_size = self.columns if self.vocab_size is None else self.vocab_size
        shape = (self.row_count, self.rows_lead + (vocab_size + 31) // 32 + self.spare_words)
        generator = torch.Generator().manual_seed(self.seed + 1)
        words = torch.randint(-(2**31), 2**31, shape, generator=generator, dtype=torch.int64)
        kinds = torch.randint(0, 4, shape, generator=generator)
        words[kinds == 0], words[kinds == 1] = 0, -1
        return words.to(torch.int32)[:, self.rows_lead :]

    def make_row_ids(self) -> torch.Tensor:
        return torch.tensor(self.row_ids, dtype=torch.int32)


def check_kernel_equals_reference(case: Case, device: str) -> None:
    """Assert equal bits over the whole wide tensor, so that a store beside the slice is seen as well."""
    rows, row_ids = case.make_rows().to(device), case.make_row_ids().to(device)
    got = case.make_wide_logits().to(device)
    expected = got.clone()
    mask_logits(case.slice_logits(got), rows, row_ids, vocab_size=case.vocab_size)
    mask_logits_reference(case.slice_logits(expected), rows, row_ids, vocab_size=case.vocab_size)
    assert_equal_bits(got, expected)


def assert_equal_bits(got: torch.Tensor, expected: torch.Tensor) -> None:
    integer = INTEGERS[got.dtype]
    differences = torch.nonzero(got.contiguous().view(integer) != expected.contiguous().view(integer))
    assert not len(differences), f"{len(differences)} logits differ, the first at [slot, column] {differences[:5].tolist()}"


def list_cases() -> list[Case]:
    """Vocabulary sizes around every boundary, then the layouts that leave the aligned path, then the odd batches."""
    sizes = [Case(columns, dtype=dtype) for columns in (1, 7, 31, 32, 33, 255, 2048, 4097) for dtype in DTYPES]
    large = [Case(70_001, row_ids=(1, 0), dtype=dtype) for dtype in DTYPES]
    large += [Case(70_001, row_ids=(1, 0), padding=7), Case(70_001, row_ids=(0,), lead=1, dtype=torch.bfloat16)]
    layouts = [
        Case(1003, lead=lead, padding=padding, dtype=dtype)
        for lead, padding in ((0, 5), (8, 13), (3, 0), (1, 20), (4, 1), (16, 5))
        for dtype in DTYPES
    ]
    vocabularies = [
        Case(4104, vocab_size=4099),
        Case(4224, vocab_size=4001, dtype=torch.bfloat16),
        Case(4200, vocab_size=65, padding=3, dtype=torch.float16),
        Case(300, vocab_size=200, spare_words=4),
        Case(300, vocab_size=256),
        Case(300, vocab_size=0, spare_words=1),
        Case(100, spare_words=3),
        Case(300, spare_words=-2),
    ]
    batches = [
        Case(40, row_ids=()),
        Case(0),
        Case(40, row_ids=(-1, -1, -1)),
        Case(40, row_ids=(-1,), row_count=0),
        Case(40, row_ids=(6, 0, 6, 6, -1, 3, 0), row_count=7),
        Case(40, row_ids=(6, 0, 6, 6, -1, 3, 0), row_count=7, rows_lead=3),
    ]
    return [*sizes, *large, *layouts, *vocabularies, *batches]
