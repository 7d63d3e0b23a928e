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


def test_requests_are_put_off_chunked_and_cached(tmp_path: Path) -> None:
    found = went("crowded", tmp_path)
    assert found["preemptions"] > 0
    assert min(sample["cached"] for sample in found["again"]) > 90
    assert [sample["text"] for sample in found["again"]] == [sample["text"] for sample in found["first"]]


def test_the_constraint_begins_where_reasoning_ends(tmp_path: Path) -> None:
    found = went("reasoned", tmp_path)
    assert all("</think>" in sample["text"] for sample in found["thinking"])
    assert any(not sample["text"].startswith("</think>") for sample in found["thinking"])
    assert (found["undrafted"], found["accepted"] > 60) == (0, True)


def test_samples_with_log_probabilities_without_and_under_a_lora_adapter(tmp_path: Path) -> None:
    found = went("adapted", tmp_path)
    assert len(found["samples"]) == 18
    assert all(len(each["logprobs"]) == each["tokens"] and min(each["logprobs"]) >= 2 for each in found["samples"])
    # But for turns that are forced as a whole, the adapter changes how likely they are.
    first, adapted = ({each["likely"] for each in found[run] if each["likely"] < 0} for run in ("first", "adapted"))
    assert len(first) > 1
    assert len(adapted) > 1
    assert not first & adapted
