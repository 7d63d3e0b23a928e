"""What a chat request says beside `routine` and of its memory keys, and how what breaks it is refused."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from typing import Any

import pytest
from pydantic import ValidationError

from routine_grammar import Vocabulary
from routine_grammar.demo.catalogue import demo_routines, demo_tools
from routine_grammar.errors import MemoryKeyError, RoutineError, RoutineGrammarError
from routine_grammar.serve.catalogue import Catalogue, load_catalogue

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what vLLM imports warns of itself
    from vllm.exceptions import VLLMValidationError

    from routine_grammar.engines.vllm.grammars import CompiledGrammars
    from routine_grammar.serve.requests import RoutineChatRequest, RoutineField, apply_routine, live_keys, prepare_turn

pytestmark = pytest.mark.filterwarnings("ignore")

REVIEW = "repository_review"
KEY = "memory_input_repo_path"
INPUTS: dict[str, Any] = {KEY: {}, "memory_input_narrow_view": {}, "memory_input_wide_view": {}}


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    loaded = load_catalogue(demo_routines(), demo_tools(), "hermes")
    tokens = [*(bytes((byte,)) for byte in range(256)), b"", b""]
    loaded.grammars = CompiledGrammars(Vocabulary(tokens, {"<|served|>": 256}, [257]))
    return loaded


def field(memory: dict[str, Any], position: str | None = None) -> RoutineField:
    return RoutineField.model_validate({"name": REVIEW, "memory": {**INPUTS, **memory}, "position": position})


def apply(catalogue: Catalogue, **body: Any) -> RoutineChatRequest:
    body = {"messages": [{"role": "user", "content": "x"}], "routine": {"name": REVIEW, "memory": INPUTS}, **body}
    request: RoutineChatRequest = RoutineChatRequest.model_validate(body)
    asyncio.run(apply_routine(request, body, catalogue))
    return request


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"type": "nonsense"}, "expected one or more of array, boolean"),
        ({"type": "<|im_end|>"}, "expected one or more of"),
        ({"type": ["string", "string"]}, "expected one or more of"),
        ({"type": []}, "expected one or more of"),
        ({"type": "string", "schema": {}}, "not both"),
        ({"schema": {"$ref": 5}}, "invalid JSON Schema"),
        ({"schema": {"type": 5}}, "invalid JSON Schema"),
        ({"schema": {"type": "nonsense"}}, "invalid JSON Schema"),
        ({"schema": {"$schema": []}}, "invalid JSON Schema"),
        ({"schema": {"$id": 5}}, "invalid JSON Schema"),
        ({"schema": {"properties": {"a": 5}}}, "invalid JSON Schema"),
    ],
)
def test_a_type_that_is_none_is_refused_by_its_key(catalogue: Catalogue, entry: dict[str, Any], told: str) -> None:
    with pytest.raises(MemoryKeyError, match=told) as refused:
        live_keys(catalogue, field({KEY: entry}))
    assert KEY in str(refused.value)


def test_a_type_of_another_form_is_refused() -> None:
    with pytest.raises(ValidationError):
        field({KEY: {"type": 5}})


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/nope"},
        {"$ref": "#"},
        {"$ref": "https://example.org/x"},
        {"pattern": "("},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/x"}}},
    ],
)
def test_a_schema_that_names_nothing_never_fails_otherwise(catalogue: Catalogue, schema: dict[str, Any]) -> None:
    with contextlib.suppress(RoutineGrammarError):
        prepare_turn(catalogue, field({KEY: {"schema": schema}}), [{"role": "user", "content": "x"}])


@pytest.mark.parametrize("depth", [100, 400, 900])
def test_a_deeply_nested_schema_never_fails_otherwise(catalogue: Catalogue, depth: int) -> None:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"items": schema}
    with contextlib.suppress(RoutineGrammarError):
        prepare_turn(catalogue, field({KEY: {"schema": schema}}), [{"role": "user", "content": "x"}])


@pytest.mark.parametrize("entry", [{}, {"type": "string"}, {"type": ["string", "null"]}, {"schema": {"type": "string"}}])
def test_types_and_schemas_are_taken(catalogue: Catalogue, entry: dict[str, Any]) -> None:
    assert len(live_keys(catalogue, field({KEY: entry}))) == 3


@pytest.mark.parametrize(
    "name", ["repo_path", "memory_", "memory_input_a<|im_end|>", "memory_input_a\nb", "memory_input_x" * 99]
)
def test_a_name_that_is_no_keys_is_refused(catalogue: Catalogue, name: str) -> None:
    with pytest.raises(MemoryKeyError, match="is no memory key") as refused:
        live_keys(catalogue, field({name: {}}))
    assert repr(name[:80]) in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("repetition_detection", {"max_pattern_size": 3, "min_pattern_size": 1, "min_count": 2}),
        ("thinking_token_budget", 0),
        ("thinking_token_budget", 8),
        ("include_stop_str_in_output", True),
        ("stop", "x"),
        ("allowed_token_ids", [1]),
    ],
)
def test_what_cuts_or_forces_an_output_is_refused_beside_routine(catalogue: Catalogue, name: str, value: Any) -> None:
    with pytest.raises(VLLMValidationError, match=f"`{name}` can't stand beside `routine`"):
        apply(catalogue, **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("thinking_token_budget", None), ("thinking_token_budget", -1), ("min_tokens", 0), ("stop", []), ("top_p", 0.5)],
)
def test_what_says_nothing_or_only_samples_stands_beside_routine(catalogue: Catalogue, name: str, value: Any) -> None:
    assert apply(catalogue, **{name: value}).structured_outputs is not None


def test_tokens_of_the_served_model_are_neutralised(catalogue: Catalogue) -> None:
    messages = [
        {"role": "user", "content": "<|served|>"},
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "<|served|>"}]},
    ]
    request = apply(catalogue, messages=messages)
    assert request.messages[1]["content"] == "<|served|>"
    assert request.messages[2]["content"][0]["text"] == "\\u003c|served|>"


@pytest.mark.parametrize("calls", ["abc", {"a": 1}, [5], [{"id": "a"}], [{"id": "a", "function": "x"}]])
def test_what_is_no_call_is_refused(catalogue: Catalogue, calls: Any) -> None:
    with pytest.raises(RoutineError, match=r"messages\[0\].tool_calls: expected"):
        prepare_turn(catalogue, field({}), [{"role": "assistant", "tool_calls": calls}])


def test_an_empty_position_is_refused_whatever_was_taken_before(catalogue: Catalogue) -> None:
    messages = [{"role": "user", "content": "x"}]
    for _ in range(2):
        prepare_turn(catalogue, field({}), messages)
        with pytest.raises(RoutineError, match="position"):
            prepare_turn(catalogue, field({}, ""), messages)


PART = {"type": "text", "text": "x"}
MESSAGES: list[Any] = [
    [],
    [{"role": "user", "content": [5]}],
    [{"role": "user", "content": [None]}],
    [{"role": "tool", "tool_call_id": "a", "content": [[]]}],
    [{"role": "user", "content": {"a": 1}}],
    [{"role": "user", "content": [{"type": "text", "text": 5}]}],
    [{"role": "user", "content": [{"type": "text"}]}],
    [{"role": "assistant", "content": "x", "tool_calls": [{"id": "a", "type": "function", "function": 5}]}],
]


@pytest.mark.parametrize("messages", MESSAGES)
def test_messages_that_vllm_would_refuse_are_refused(catalogue: Catalogue, messages: list[Any]) -> None:
    with pytest.raises((RoutineError, ValidationError)):
        prepare_turn(catalogue, field({}), messages)
    with pytest.raises((VLLMValidationError, ValidationError)):
        apply(catalogue, messages=messages)


def test_messages_of_parts_are_taken(catalogue: Catalogue) -> None:
    messages = [{"role": "user", "content": [PART, PART]}]
    assert prepare_turn(catalogue, field({}), messages).messages[-1]["content"][:2] == [PART, PART]


def test_too_many_keys_and_too_large_types_are_refused_at_once(catalogue: Catalogue) -> None:
    many: dict[str, Any] = {f"memory_1_y{number}": {} for number in range(10_001)}
    with pytest.raises(MemoryKeyError, match="memory keys; the bound is 10000"):
        live_keys(catalogue, field(many))
    large = {"schema": {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(5_000)}}}
    with pytest.raises(MemoryKeyError, match=r"memory_1_y.* may have 10000 values in all"):
        live_keys(catalogue, field({KEY: large, "memory_1_y": large}))


def test_one_call_a_turn_where_parallel_calls_are_not_wanted(catalogue: Catalogue) -> None:
    assert apply(catalogue, parallel_tool_calls=False)._plan is not None


def test_half_of_a_surrogate_pair_is_told_with_its_place(catalogue: Catalogue) -> None:
    with pytest.raises(VLLMValidationError, match=r"messages\[1\]: a text holds half of a surrogate pair"):
        apply(catalogue, messages=[{"role": "user", "content": "x"}, {"role": "user", "content": "\ud800"}])
    with pytest.raises(RoutineError, match=f"preview of {KEY}: a text holds half"):
        live_keys(catalogue, field({KEY: {"preview": "\ud800"}}))
