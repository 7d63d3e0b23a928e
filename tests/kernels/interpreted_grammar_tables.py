"""The kernels that follow grammars, under Triton's interpreter; `test_grammar_tables.py` runs this file in another process.

The name keeps pytest from collecting it by itself (`interpreting.py`).
"""

from __future__ import annotations

import pytest

from tests.kernels.grammar_table_cases import run_simulation
from tests.scale import SCALE

interpreter = pytest.importorskip("triton.runtime.interpreter", reason="Triton is not installed")


def test_kernels_are_interpreted() -> None:
    from routine_grammar.kernels import advance_and_mask_kernel as kernels

    assert isinstance(kernels.mask_kernel, interpreter.InterpretedFunction)


@pytest.mark.parametrize("seed", range(2 * SCALE))
@pytest.mark.parametrize("canonical", [True, False])
def test_kernels_equal_their_references(seed: int, canonical: bool) -> None:
    counts = run_simulation("cpu", seed=seed, slots=5, drafts=4, steps=8, canonical=canonical)
    assert min(counts[name] for name in ("masked", "nowhere", "closed")) > 0, counts


def test_one_row_a_slot() -> None:
    counts = run_simulation("cpu", seed=100, slots=3, drafts=0, steps=12)
    assert counts["masked"], counts
