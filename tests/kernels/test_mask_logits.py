from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from routine_grammar.kernels.mask_logits import mask_logits
from routine_grammar.kernels.mask_logits_reference import mask_logits_reference
from tests.kernels.interpreting import run_interpreted
from tests.kernels.mask_logits_cases import INTEGERS, Case, check_kernel_equals_reference, list_cases

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None
import torch
from routine_grammar.kernels.mask_logits import mask_logits
logits = torch.zeros(1, 3)
mask_logits(logits, torch.tensor([[0b101]], dtype=torch.int32), torch.tensor([0], dtype=torch.int32))
assert logits.tolist() == [[0.0, float("-inf"), 0.0]], logits
"""


def row(*words: int) -> torch.Tensor:
    return torch.tensor([words], dtype=torch.int32)


def ids(*row_ids: int) -> torch.Tensor:
    return torch.tensor(row_ids, dtype=torch.int32)


@pytest.mark.parametrize("case", list_cases(), ids=repr)
def test_the_loop_for_cpus_equals_the_reference(case: Case) -> None:
    check_kernel_equals_reference(case, "cpu")


@pytest.mark.parametrize("case", [case for case in list_cases() if case.columns <= 300], ids=repr)
def test_the_reference_follows_the_bits(case: Case) -> None:
    wide, rows = case.make_wide_logits(), case.make_rows()
    before = wide.clone()
    mask_logits_reference(case.slice_logits(wide), rows, case.make_row_ids(), vocab_size=case.vocab_size)
    vocab_size = min(rows.shape[1] * 32, case.columns) if case.vocab_size is None else case.vocab_size
    for slot, row_id in enumerate(case.row_ids):
        for column in range(case.columns) if row_id >= 0 else ():
            allowed = column < vocab_size and int(rows[row_id, column // 32]) >> column % 32 & 1
            if not allowed:
                before[slot, case.lead + column] = float("-inf")
    integer = INTEGERS[case.dtype]
    assert wide.view(integer).tolist() == before.view(integer).tolist()


def test_kernel_equals_reference_under_the_interpreter() -> None:
    run_interpreted("interpreted_mask_logits.py")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("case", list_cases(), ids=repr)
def test_compiled_kernel_equals_reference(case: Case) -> None:
    check_kernel_equals_reference(case, "cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_compiled_kernel_addresses_beyond_32_bits() -> None:
    logits = torch.zeros(2**31 // 151_936 + 2, 151_936, dtype=torch.bfloat16, device="cuda")
    row_ids = torch.full((len(logits),), -1, dtype=torch.int32, device="cuda")
    row_ids[-1] = 0
    mask_logits(logits, torch.zeros(1, 151_936 // 32, dtype=torch.int32, device="cuda"), row_ids)
    assert logits[-1].isneginf().all()
    assert logits[:-1].eq(0).all()


def test_works_without_triton_from_another_folder(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-c", WITHOUT_TRITON]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr


def test_top_level_folder_is_no_package() -> None:
    """Hugging Face ships a package named `kernels`: an `__init__.py` here would hide it from code run at the root."""
    assert not (ROOT / "kernels" / "__init__.py").exists()


@pytest.mark.parametrize("mask", [mask_logits, mask_logits_reference])
@pytest.mark.parametrize("row_id", [-2, 1, 5])
def test_row_ids_out_of_range_are_refused(mask: Callable[..., None], row_id: int) -> None:
    logits = torch.zeros(2, 32)
    with pytest.raises(ValueError, match=rf"row_ids\[1\] is {row_id}, expected -1 \(untouched\) or a row below 1"):
        mask(logits, row(0), ids(0, row_id))
    assert logits.eq(0).all(), "nothing is masked before the ids are checked"


@pytest.mark.parametrize(
    ("logits", "rows", "row_ids", "message"),
    [
        (torch.zeros(40), row(0, 0), ids(0), r"got shapes \[40\], \[1, 2\] and \[1\]"),
        (torch.zeros(1, 40), row(0, 0)[0], ids(0), r"expected logits \[slots, columns\], rows \[n, words\]"),
        (torch.zeros(2, 40), row(0, 0), ids(0), r"and row_ids \[slots\]"),
        (torch.zeros(1, 40, dtype=torch.float64), row(0, 0), ids(0), r"got logits of torch.float64"),
        (torch.zeros(1, 40), row(0, 0).long(), ids(0), r"got rows of torch.int64"),
        (torch.zeros(1, 40), row(0, 0), ids(0).long(), r"row_ids of torch.int64"),
        (torch.zeros(1, 40), row(0, 0), ids(0).to("meta"), r"on cpu, cpu and meta, expected one device"),
        (torch.zeros(1, 80)[:, ::2], row(0, 0), ids(0), r"column stride 2, expected 1"),
        (torch.zeros(1, 40).expand(2, 40), row(0, 0), ids(0, 0), r"row stride 0, expected 40 or more: rows overlap"),
        (torch.zeros(1, 40), row(0, 0, 0, 0)[:, ::2], ids(0), r"word stride 2, expected 1"),
        (torch.zeros(2, 40), row(0, 0), ids(0, 0, 0, 0)[::2], r"row_ids with stride 2, expected 1"),
    ],
)
def test_refuses_other_arguments(logits: torch.Tensor, rows: torch.Tensor, row_ids: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mask_logits(logits, rows, row_ids)


@pytest.mark.parametrize(("words", "vocab_size", "limit"), [(2, -1, 40), (2, 41, 40), (1, 33, 32)])
def test_refuses_vocab_size_without_bits_or_columns(words: int, vocab_size: int, limit: int) -> None:
    with pytest.raises(ValueError, match=rf"got vocab_size {vocab_size}, expected 0 to {limit} for rows of {words} words"):
        mask_logits(torch.zeros(1, 40), torch.zeros(1, words, dtype=torch.int32), ids(0), vocab_size=vocab_size)
