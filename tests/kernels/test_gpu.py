"""`python -m benchmarks gpu`: complete, small and without a GPU; nothing of ours but the kernels is needed for it."""

from __future__ import annotations

import csv
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.kernels import gpu, tables

ROOT = Path(__file__).resolve().parents[2]
# What a machine that only has torch and Triton does not have.
WITHOUT = """
import sys
for name in ("numba", "lark", "pydantic", "vllm", "outlines_core", "llguidance", "mcp", "rich"):
    sys.modules[name] = None
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_all_arms_run_and_are_exact_under_the_interpreter(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT)
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path}
    command = [sys.executable, "-m", "benchmarks", "gpu", "--dry", "--output", str(tmp_path)]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    (file,) = tmp_path.glob("*_gpu.csv")
    with file.open() as stream:
        rows = list(csv.DictReader(stream))
    arms = {row["arm"] for row in rows}
    ours = {"fused step", "two launches", "states alone", "mask alone", "mask_logits", "whole path", "ours"}
    assert arms >= ours | {"masked_fill_", "empty launch", "copy", "unconstrained"}, ran.stdout[-2000:]
    assert {row["rows"] for row in rows} >= set(gpu.KINDS)
    assert all(row["commit"] and row["torch"] and row["gpu"] for row in rows)


def test_it_says_that_there_is_no_device(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    assert "no CUDA device" in capsys.readouterr().err


@pytest.mark.parametrize("kind", gpu.KINDS)
def test_steps_lead_to_rows_of_their_kind(kind: str) -> None:
    work = gpu.Work.load(tables.FILE, "cpu", dry=False)
    allowed = gpu.check_step(work, *work.step(4, kind), torch.float32)
    shares = allowed.float().mean(dim=1)
    least, most = {"token list": (0.0, 0.001), "97% open": (0.9, 1.0), "half": (0.45, 0.55)}[kind]
    assert least <= shares.min()
    assert shares.max() <= most, shares


def test_a_wrong_arm_is_not_timed() -> None:
    with pytest.raises(SystemExit, match="broken is wrong"):
        gpu.check_arm("broken", lambda logits: logits, torch.zeros(1, 32, dtype=torch.bool), torch.float32)


def test_bytes_are_counted_by_groups_of_eight() -> None:
    allowed = torch.zeros(1, 32, dtype=torch.bool)
    allowed[0, 8:16], allowed[0, 16] = True, True
    assert gpu.count_bytes(allowed, torch.bfloat16) == (2 * 8 + 2 * 8) * 2
