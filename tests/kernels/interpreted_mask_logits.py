"""The kernel of `mask_logits` under Triton's interpreter; `test_mask_logits.py` runs this file in a process of its own.

TRITON_INTERPRET must be set before Triton is imported and changes every kernel of the process, so the name keeps pytest
from collecting this file by itself.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from routine_grammar.kernels.mask_logits import mask_logits
from tests.kernels.mask_logits_cases import DTYPES, Case, assert_equal_bits, check_kernel_equals_reference, list_cases

interpreter = pytest.importorskip("triton.runtime.interpreter", reason="Triton is not installed")
kernel_module = pytest.importorskip("routine_grammar.kernels.mask_logits_kernel", reason="Triton is not installed")


def test_kernel_is_interpreted() -> None:
    assert isinstance(kernel_module.mask_logits_kernel, interpreter.InterpretedFunction)


@pytest.mark.parametrize("case", list_cases(), ids=repr)
def test_kernel_equals_reference(case: Case) -> None:
    check_kernel_equals_reference(case, "cpu")


@st.composite
def draw_case(draw: st.DrawFn) -> Case:
    columns = draw(st.integers(1, 300))
    row_count = draw(st.integers(1, 3))
    return Case(
        columns=columns,
        vocab_size=draw(st.none() | st.integers(0, columns)),
        row_ids=tuple(draw(st.lists(st.integers(-1, row_count - 1), max_size=4))),
        row_count=row_count,
        spare_words=draw(st.integers(0, 2)),
        rows_lead=draw(st.integers(0, 2)),
        lead=draw(st.integers(0, 17)),
        padding=draw(st.integers(0, 17)),
        dtype=draw(st.sampled_from(DTYPES)),
        seed=draw(st.integers(0, 1000)),
    )


@settings(max_examples=40, deadline=None)
@given(draw_case())
def test_kernel_equals_reference_on_any_batch(case: Case) -> None:
    check_kernel_equals_reference(case, "cpu")


@pytest.mark.parametrize("dtype", DTYPES)
def test_cases_reach_both_builds(dtype: torch.dtype) -> None:
    batches = [case.slice_logits(case.make_wide_logits()) for case in list_cases() if case.dtype == dtype]
    assert {kernel_module.rows_are_aligned(logits) for logits in batches} == {True, False}


@pytest.mark.parametrize("dtype", DTYPES)
def test_unaligned_build_takes_aligned_rows(dtype: torch.dtype) -> None:
    case = Case(columns=4099, padding=5, dtype=dtype)
    aligned, unaligned = case.make_wide_logits(), case.make_wide_logits()
    for wide, build in ((aligned, True), (unaligned, False)):
        logits = case.slice_logits(wide)
        launch = kernel_module.launch_mask_logits
        launch(logits, case.make_rows(), case.make_row_ids(), vocab_size=4000, aligned=build)
    assert_equal_bits(unaligned, aligned)


def test_addresses_beyond_32_bits() -> None:
    """The third slot begins 2**31 logits in; pages that nobody touches take no memory."""
    try:
        memory = torch.empty(2**31 + 40, dtype=torch.bfloat16)
    except RuntimeError as error:
        pytest.skip(f"no address space for {2**32} bytes: {error}")
    logits = memory.as_strided((3, 40), (2**30, 1))
    logits.zero_()
    mask_logits(logits, torch.zeros(1, 2, dtype=torch.int32), torch.tensor([-1, -1, 0], dtype=torch.int32))
    assert logits[:2].eq(0).all()
    assert logits[2].isneginf().all()


def test_any_negative_row_id_leaves_its_slot_alone() -> None:
    logits = torch.zeros(2, 40)
    mask_logits(logits, torch.zeros(1, 2, dtype=torch.int32), torch.tensor([-7, 0], dtype=torch.int32))
    assert logits[0].eq(0).all()
    assert logits[1].isneginf().all()
