"""Grammars on the device: vLLM's second model runner on the CPU, with Triton's interpreter; and what an engine core decides."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import random
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from routine_grammar.engines.vllm.device.memory import DeviceMemory
from routine_grammar.engines.vllm.device.placement import Placement, Thinking
from routine_grammar.masks.flat.packed import PackedTable
from tests.engines.vllm.test_drafts import SURE, is_same
from tests.scale import SCALE

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed: there is no such runner"),
]


def went(way: str, count: int) -> Any:
    """What came out of an engine of the second model runner."""
    command = [sys.executable, "-m", "tests.engines.vllm.device_engine", way, str(count)]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "VLLM_USE_V2_MODEL_RUNNER": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=900 * SCALE, check=False, env=environment)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout.splitlines()[-1])


def test_what_the_device_allows_is_what_the_host_does() -> None:
    """Beside requests that the host follows and free ones, preempted, from the cache, in tight budgets, of several samples."""
    count = 12 if SCALE == 1 else 100
    found = went("mixed", count)
    host, device, asynchronous = found["host"], found["device"], found["asynchronous"]
    assert "on device" not in host["counts"]
    for run in (device, asynchronous):
        counts = run["counts"]
        assert min(counts["on device"], counts["on host"]) >= count // 6, counts
        assert min(counts[name] for name in ("advance_and_mask", "close_rows", "replay_states")) > 0, counts
        assert run["preemptions"] > 0
    assert [run["asynchronous"] for run in (host, device, asynchronous)] == [False, False, True]
    for run in found.values():
        assert all(sample["whole"] for sample in run["samples"])
    apart = 0
    for run in (device, asynchronous):
        apart += sum(not is_same(*pair) for pair in zip(host["samples"], run["samples"], strict=True))
    print(f"{apart} of {2 * len(host['samples'])} samples parted where two tokens were equally likely")
    assert apart <= 0.05 * count


def test_the_end_of_thoughts_is_found_on_the_device() -> None:
    count = 4 * SCALE
    found = went("thinking", count)
    assert all(found["whole"]), found["texts"]
    assert sum(found["thought"]) >= count // 2, found["texts"]
    assert found["counts"]["on device"] == count


def test_what_a_device_says_against_its_grammar_is_not_sent() -> None:
    found = went("erring", 3)
    assert found["reasons"][1] == "error"
    assert found["rejected"] == 1
    assert "<tool_call>".startswith(found["erring"][:11]) or found["erring"].startswith("<tool_call>")
    assert all(whole for number, whole in enumerate(found["whole"]) if number != 1)
    assert found["after"]


def test_drafts_of_the_device_change_nothing_but_the_number_of_passes() -> None:
    count = 2 * SCALE
    found = went("drafted", count)
    undrafted, drafted = found["undrafted"], found["drafted"]
    assert found["asynchronous"]
    assert drafted["accepted"] > 15 * count
    assert undrafted["accepted"] < 6 * count, (
        "what stands behind forced text may be right by chance, where a text repeats itself"
    )
    assert all(undrafted["whole"])
    assert all(drafted["whole"])
    apart = sum(not is_same(*pair) for pair in zip(undrafted["samples"], drafted["samples"], strict=True))
    print(f"{apart} of {count} samples parted where two tokens were equally likely")
    assert apart <= 0.1 * count


@pytest.mark.skipif(SCALE == 1, reason="a distribution takes hundreds of samples under the interpreter: a drill")
def test_samples_are_of_one_distribution_with_drafts_of_the_device() -> None:
    count = 300
    found = went("sampled", count)
    assert found["accepted"] > count // 2
    assert sum(found["drafted"].values()) == count
    one, other = found["undrafted"], found["drafted"]
    statistic = sum(
        (one.get(text, 0) - other.get(text, 0)) ** 2 / (one.get(text, 0) + other.get(text, 0)) for text in {*one, *other}
    )
    freedom = len({*one, *other}) - 1
    assert freedom >= 3
    # Wilson and Hilferty's approximation of the tail of chi squared.
    deviation = ((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))
    assert 0.5 * math.erfc(deviation / math.sqrt(2)) > SURE, (statistic, freedom)


def test_a_full_device_leaves_grammars_to_the_host() -> None:
    found = went("short", 2)
    assert all(found["whole"])
    counts = found["counts"]
    assert counts["on device"] > 0, counts
    assert counts["on host"] > 0, counts
    assert counts["put"] > 4, counts  # some were put there again, after others had their place


# What lies where


def table(rng: random.Random, size: int, bases: int, base_size: int = 64) -> PackedTable:
    words = np.array([rng.randrange(1 << 62) for _ in range(40 + size)], np.int64)
    rows = words[32:36].view(np.int32)
    rows[0] = bases - 1
    shared = tuple(np.full(base_size, number, np.int64) for number in range(bases))
    return PackedTable(words, shared, 36, 38, 1, 1, 1, 1)


class Device:
    """What workers do with what they are sent."""

    def __init__(self, words: int) -> None:
        self.words = np.zeros(words, np.int64)

    def write(self, placement: Placement) -> None:
        for begin, words in placement.parts:
            self.words[begin : begin + len(words)] = words

    def holds(self, packed: PackedTable, begin: int) -> bool:
        found = self.words[begin : begin + len(packed.words)]
        rows, expected = found[32:36].view(np.int32), packed.words[32:36].view(np.int32)
        if expected[0] >= 0:
            base = packed.bases[expected[0]]
            if not np.array_equal(self.words[rows[0] : rows[0] + len(base)], base):
                return False
        return bool(np.array_equal(found[:32], packed.words[:32]) and np.array_equal(found[36:], packed.words[36:]))


def test_a_table_in_use_stays_where_it_is_and_others_make_room() -> None:
    """Many tables come and go in memory for a few; what is held is at all times what was put there."""
    rng = random.Random(1)
    tables = [table(rng, rng.randrange(10, 200), rng.randrange(4)) for _ in range(40)]
    words, begin = 1000, 100
    memory, device = DeviceMemory(words, begin), Device(words)
    held: list[tuple[PackedTable, Any]] = []
    refused = placed = 0
    for _ in range(2000 * SCALE):
        if held and rng.random() < 0.5:
            memory.let_go(held.pop(rng.randrange(len(held)))[1])
            continue
        packed = rng.choice(tables)
        block = memory.hold(packed)
        if block is None:
            refused += 1
            continue
        placed += 1
        assert begin <= block.begin
        assert block.end <= words
        made = Placement.of(packed, block, most_tokens=9, thinks=False, thinking=Thinking(), drafts=0)
        device.write(made._replace(parts=memory.parts(block)))
        held.append((packed, block))
        assert all(device.holds(each, where.begin) for each, where in held)
    assert min(refused, placed) > 50
    for _, block in held:
        memory.let_go(block)
    largest = table(rng, words - begin - 40, 0)
    assert memory.hold(largest) is not None
    assert len(memory) == 1


def test_tables_of_one_content_lie_there_once() -> None:
    rng = random.Random(2)
    one = table(rng, 20, 2)
    memory = DeviceMemory(2000, 0)
    first, second = memory.hold(one), memory.hold(one._replace(words=one.words.copy()))
    assert first is second
    assert first is not None
    assert len(memory.parts(first)) == 3
    assert memory.parts(first) == ()
    other = memory.hold(table(rng, 30, 2))
    assert other is not None
    assert [begin for begin, _ in memory.parts(other)] == [other.begin], "its bitmaps are there already"


@pytest.mark.parametrize(
    ("most", "thinks", "budget"),
    [(10, False, 9), (4, False, 4), (5, False, 4), (10, True, 9), (4, True, 3)],
)
def test_the_token_that_ends_a_text_is_left_room_for(most: int, thinks: bool, budget: int) -> None:
    packed = table(random.Random(3), 10, 0)._replace(shortest=4)
    block = SimpleNamespace(begin=0)
    made = Placement.of(packed, block, most_tokens=most, thinks=thinks, thinking=Thinking(), drafts=0)  # type: ignore[arg-type]
    assert made.budget == budget
