"""Step ids, headers and memory keys are inverse to their parsers, and nothing else is read."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routine_grammar.errors import MemoryKeyError, RoutineError
from routine_grammar.routine import (
    UNKNOWN,
    MemoryKey,
    ParsedKey,
    branches_around,
    header_of,
    input_key,
    item_key,
    memory_key,
    parse_key,
    step_id_of,
)
from routine_grammar.routine.ids import branch_step_id, locate, path_of

NUMBERS = st.integers(1, 12)
STEP_IDS = st.builds(
    lambda first, branches: str(first) + "".join(f"-{n}_{i}" for n, i in branches),
    NUMBERS,
    st.lists(st.tuples(NUMBERS, NUMBERS), max_size=3),
)
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True).filter(
    lambda name: not name.endswith("_") and not (name.rpartition("_")[1] and name.rpartition("_")[2].isdigit())
)


@pytest.mark.parametrize(
    ("step_id", "header"),
    [
        ("2", "Step 2"),
        ("12-3_4", "Branch 12-3 Step 4"),
        ("2-1_1-1_2", "Branch 2-1_1-1 Step 2"),
    ],
)
def test_headers(step_id: str, header: str) -> None:
    assert header_of(step_id) == header
    assert step_id_of(header) == step_id


@given(STEP_IDS)
def test_headers_and_paths_lead_back_to_the_step(step_id: str) -> None:
    assert step_id_of(header_of(step_id)) == step_id
    assert locate((*path_of(step_id), "arguments", "x")) == (step_id, ("arguments", "x"))


def test_the_branches_around_a_step() -> None:
    assert branches_around("2") == ()
    assert branches_around("2-10_1-3_4") == (("2", 10), ("2-10_1", 3))
    assert branch_step_id("2-10_1", 3, 4) == "2-10_1-3_4"


@pytest.mark.parametrize("path", [(), ("inputs", "x"), ("steps",), ("steps", "x")])
def test_a_path_outside_every_step(path: tuple[str, ...]) -> None:
    assert locate(path) == (None, path)


@pytest.mark.parametrize("step_id", ["", "0", "02", "2-1", "2_1", "2-1_0", "x", "2-1_1\n", "٢"])
def test_what_is_no_step_id(step_id: str) -> None:
    with pytest.raises(RoutineError, match="no step id"):
        header_of(step_id)


@pytest.mark.parametrize("header", ["", "Step", "Step 0", "step 1", "Step 1.", "Branch 2 Step 1", "Branch 2-1"])
def test_what_is_no_header(header: str) -> None:
    with pytest.raises(RoutineError, match="no header"):
        step_id_of(header)


@settings(deadline=None)
@given(STEP_IDS | st.none(), NAMES, st.integers(0, 99) | st.none(), st.sampled_from(["memory_", "$", "k_input_"]))
def test_every_key_parses_back(step: str | None, name: str, item: int | None, sigil: str) -> None:
    key = input_key(name, sigil) if step is None else memory_key(step, name, sigil)
    if item is not None:
        key = item_key(key, item, sigil)
    assert parse_key(key, sigil) == ParsedKey(step, name, item)
    assert parse_key(key, sigil).text(sigil) == key


def test_keys_look_like_this() -> None:
    assert memory_key("2-1_1", "status") == "memory_2-1_1_status"
    assert input_key("repo_path") == "memory_input_repo_path"
    assert item_key("memory_2_files", 0) == "memory_2_files_0"


@pytest.mark.parametrize("name", ["", "x_1", "x_", "Status", "1x", "_x", "a b", "a-b", "x" * 65, "é", "x\n"])
def test_names_that_make_no_key(name: str) -> None:
    with pytest.raises(MemoryKeyError, match="no name of an input or output"):
        memory_key("1", name)
    with pytest.raises(MemoryKeyError, match="no name of an input or output"):
        input_key(name)


@pytest.mark.parametrize(
    "key",
    [
        *("", "memory_", "memory_2", "memory_2_", "memory_02_x", "memory_2_x_01", "memory_2-1_x", "status", "$2_x"),
        *("memory_input_A", "memory_2_x\n", "memory_2_x_1_2", "memory_2_" + "x" * 10_000),
    ],
)
def test_what_is_no_key(key: str) -> None:
    with pytest.raises(MemoryKeyError, match="expected memory_<step id>_<output>"):
        parse_key(key)


def test_only_a_whole_list_has_items() -> None:
    with pytest.raises(MemoryKeyError, match="whole list"):
        item_key("memory_2_files_0", 1)
    with pytest.raises(MemoryKeyError, match="number from 0"):
        item_key("memory_2_files", -1)


def test_none_is_a_value() -> None:
    assert MemoryKey("memory_1_x").value is UNKNOWN
    assert MemoryKey("memory_1_x", value=None).value is None
