"""Runs a file of tests in a process of its own, in which Triton interprets kernels on the CPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_interpreted(name: str) -> None:
    """Fail where a test of the file fails. TRITON_INTERPRET must be set before Triton is imported, and changes every kernel."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed: its interpreter cannot run the kernel")
    module = Path(__file__).with_name(name)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--color=no", str(module)]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=3600)
    if run.returncode:
        pytest.fail(f"under TRITON_INTERPRET=1:\n{run.stdout}\n{run.stderr}", pytrace=False)
