"""Every way a request can go in a real engine: what is decoded is a whole call of its grammar all the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.engine


def went(way: str, folder: Path) -> dict[str, Any]:
    """What came out of an engine made for a way, all of it whole."""
    command = [sys.executable, "-m", "tests.engines.vllm.small_engine", way, str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    for sample in found["samples"]:
        assert sample["whole"], sample
        assert sample["reason"] == "stop"
    return found


def test_requests_that_are_put_off_go_on_where_they_were(tmp_path: Path) -> None:
    assert went("preempted", tmp_path)["preemptions"] > 0


def test_prompts_of_several_chunks(tmp_path: Path) -> None:
    assert len(went("chunked", tmp_path)["samples"]) == 4


def test_prompts_from_the_prefix_cache(tmp_path: Path) -> None:
    found = went("cached", tmp_path)
    assert min(sample["cached"] for sample in found["samples"]) > 100
    assert [sample["text"] for sample in found["samples"]] == [sample["text"] for sample in found["first"]]


def test_several_samples_with_log_probabilities(tmp_path: Path) -> None:
    samples = went("sampled", tmp_path)["samples"]
    assert len(samples) == 9
    assert all(len(sample["logprobs"]) == sample["tokens"] and min(sample["logprobs"]) >= 2 for sample in samples)


def test_the_constraint_begins_where_reasoning_ends(tmp_path: Path) -> None:
    samples = went("reasoned", tmp_path)["samples"]
    assert all("</think>" in sample["text"] for sample in samples)
    assert any(not sample["text"].startswith("</think>") for sample in samples)


def test_a_lora_adapter_changes_what_is_likely_only(tmp_path: Path) -> None:
    found = went("adapted", tmp_path)
    assert not {sample["likely"] for sample in found["samples"]} & {sample["likely"] for sample in found["first"]}
