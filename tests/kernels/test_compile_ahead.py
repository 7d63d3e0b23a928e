from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="Triton is not installed: kernels cannot be compiled")

from routine_grammar.kernels import compile_ahead
from routine_grammar.kernels.compile_ahead import Build, Usage

BUILDS = compile_ahead.list_builds()


@pytest.fixture(scope="module")
def usages() -> dict[tuple[int, str], Usage]:
    return {
        (capability, build.name): compile_ahead.measure_cubin(compile_ahead.compile_build(build, capability))
        for capability in compile_ahead.CAPABILITIES
        for build in BUILDS
    }


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.name)
@pytest.mark.parametrize("capability", compile_ahead.CAPABILITIES)
def test_build_stays_in_registers(usages: dict[tuple[int, str], Usage], capability: int, build: Build) -> None:
    usage = usages[capability, build.name]
    assert usage.registers <= 64
    assert usage.stack_bytes == 0
    assert usage.spills == 0


@pytest.mark.parametrize("width", ["16-bit", "32-bit"])
@pytest.mark.parametrize("name", ["mask_logits", "mask_states", "advance_and_mask"])
@pytest.mark.parametrize("capability", compile_ahead.CAPABILITIES)
def test_aligned_build_moves_16_bytes_at_a_time(
    usages: dict[tuple[int, str], Usage], capability: int, name: str, width: str
) -> None:
    """Each thread moves its logits in vectors; only the tail of a row, and what a state is kept in, go one by one."""
    usage = usages[capability, f"{name} {width} aligned"]
    vectors = 8 if (name, width) == ("mask_logits", "32-bit") else 4
    assert usage.loads[128] == usage.stores[128] == vectors
    assert sum(usage.stores.values()) == vectors + 1 + (name == "advance_and_mask")


def test_usage_that_spills_does_not_fit() -> None:
    assert Usage(registers=64, stack_bytes=0, spills=0, loads={}, stores={}).fits
    assert not Usage(registers=65, stack_bytes=0, spills=0, loads={}, stores={}).fits
    assert not Usage(registers=32, stack_bytes=8, spills=0, loads={}, stores={}).fits
    assert not Usage(registers=32, stack_bytes=0, spills=1, loads={}, stores={}).fits


def test_report_names_every_build(capsys: pytest.CaptureFixture[str]) -> None:
    assert compile_ahead.main(["--capability", "90"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(BUILDS)
    assert all(line.startswith("sm_90 ") and "registers=" in line for line in lines)
