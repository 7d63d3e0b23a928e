"""Our grammars in a real vLLM engine: what is decoded, what is refused, and who is left alone."""

from __future__ import annotations

import json
from functools import reduce
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from routine_grammar import Vocabulary
from routine_grammar.api import CompiledRoutine, Turn, compile_schema
from routine_grammar.routine.keys import MemoryKey, parse_key
from tests.scale import ENGINE_SCALE

if TYPE_CHECKING:
    from vllm import LLM

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore")]


def all_turns(compiled: CompiledRoutine) -> list[tuple[str, Turn, tuple[str, ...]]]:
    """Every turn of a Routine that calls a tool, each with all keys that may be live there."""
    turns = []
    for position in compiled.graph.positions:
        keys = tuple(sorted(compiled.graph.keys_before(position)[1]))
        turn = compiled.turn(position, keys)
        if turn.steps:
            turns.append((position, turn, keys))
    return turns


def value_of(schema: Any, root: Any) -> Any:
    """Some value of a schema, to stand in for what a key resolves to."""
    match schema:
        case {"$ref": str(reference)}:
            return value_of(reduce(lambda part, name: part[name], reference.removeprefix("#/").split("/"), root), root)
        case {"enum": [first, *_]}:
            return first
        case {"anyOf": [first, *_]}:
            return value_of(first, root)
        case {"type": "object"}:
            return {name: value_of(inner, root) for name, inner in schema.get("properties", {}).items()}
        case {"type": "array"}:
            return [value_of(schema.get("items", {}), root)] * schema.get("minItems", 0)
        case {"type": kind} if isinstance(kind, str):
            return {"string": "text", "integer": 1, "number": 1.5, "boolean": True, "null": None}[kind]
    return "text"


def resolved(value: Any, compiled: CompiledRoutine, live: tuple[str, ...]) -> Any:
    """Arguments with every key replaced by a value of its type; a key that is not live fails the test."""
    match value:
        case str() if value.startswith("memory_"):
            assert value in live
            assert parse_key(value).name
            return value_of(compiled.key_types[value], compiled.key_types[value])
        case dict():
            return {name: resolved(item, compiled, live) for name, item in value.items()}
        case list():
            return [resolved(item, compiled, live) for item in value]
    return value


def parsed_calls(engine: LLM, text: str) -> tuple[str | None, list[Any]]:
    """Content and calls of an output, by vLLM's own parser."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.tool_parsers import ToolParserManager

    parser = ToolParserManager.get_tool_parser("hermes")(engine.get_tokenizer())
    request = ChatCompletionRequest(messages=[], model="demo")
    found = parser.extract_tool_calls(text, request)
    return found.content, found.tool_calls


def test_two_hundred_turns_are_whole_legal_calls(engine: LLM, demo: dict[str, CompiledRoutine]) -> None:
    turns = [(compiled, *turn) for compiled in demo.values() for turn in all_turns(compiled)]
    jobs = [turns[number % len(turns)] for number in range(200 * ENGINE_SCALE)]
    params = [turn.sampling_params(temperature=1.0, seed=seed, max_tokens=600) for seed, (_, _, turn, _) in enumerate(jobs)]
    outputs = engine.generate(["Begin."] * len(jobs), params, use_tqdm=False)
    calls = 0
    for (compiled, position, turn, live), output in zip(jobs, outputs, strict=True):
        text = output.outputs[0].text
        assert output.outputs[0].finish_reason == "stop", text
        assert turn.accepts(text)
        content, found = parsed_calls(engine, text)
        if turn.may_end and not found:
            continue
        calls += 1
        assert [call.function.name for call in found] == [
            compiled.graph.call_taken(position, content, found[0].function.name).step.tool
        ]
        assert found[0].function.name in turn.tools
        arguments = resolved(json.loads(found[0].function.arguments), compiled, live)
        jsonschema.validate(arguments, dict(compiled.scope.tools[found[0].function.name].input_schema))
    assert calls > 150 * ENGINE_SCALE


def test_outputs_cut_by_max_tokens_are_whole(engine: LLM, demo: dict[str, CompiledRoutine], vocabulary: Vocabulary) -> None:
    for compiled in demo.values():
        for _, turn, _ in all_turns(compiled):
            fewest = turn.fewest_tokens(vocabulary)
            params = [turn.sampling_params(temperature=1.0, seed=extra, max_tokens=fewest + extra) for extra in range(8)]
            for output in engine.generate(["Begin."] * len(params), params, use_tqdm=False):
                assert turn.accepts(output.outputs[0].text), output.outputs[0].text


def test_a_budget_that_fits_no_call_is_refused_at_once(
    engine: LLM, demo: dict[str, CompiledRoutine], vocabulary: Vocabulary
) -> None:
    from vllm.exceptions import VLLMValidationError

    turn = all_turns(demo["repository_review"])[0][1]
    fewest = turn.fewest_tokens(vocabulary)
    with pytest.raises(VLLMValidationError, match=f"max_tokens is {fewest - 1}.*needs {fewest}"):
        engine.generate(["x"], [turn.sampling_params(max_tokens=fewest - 1)], use_tqdm=False)


def test_a_prompt_that_leaves_no_room_is_refused_at_once(
    engine: LLM, demo: dict[str, CompiledRoutine], vocabulary: Vocabulary
) -> None:
    from vllm.exceptions import VLLMValidationError

    turn = all_turns(demo["repository_review"])[0][1]
    fewest = turn.fewest_tokens(vocabulary)
    long = {"prompt_token_ids": [1] * (4096 - fewest + 1)}
    with pytest.raises(VLLMValidationError, match=f"leaves {fewest - 1} tokens.*needs {fewest}"):
        engine.generate([long], [turn.sampling_params()], use_tqdm=False)
    fitting = {"prompt_token_ids": [1] * (4096 - fewest)}
    (output,) = engine.generate([fitting], [turn.sampling_params()], use_tqdm=False)
    assert turn.accepts(output.outputs[0].text)


def test_the_end_fits_where_max_tokens_leaves_room_for_it(
    engine: LLM, demo: dict[str, CompiledRoutine], vocabulary: Vocabulary
) -> None:
    turn = all_turns(demo["expense_approval"])[0][1]
    most = turn.fewest_tokens(vocabulary) + 6
    params = [turn.sampling_params(temperature=1.0, seed=seed, max_tokens=most) for seed in range(16)]
    outputs = engine.generate(["x"] * 16, params, use_tqdm=False)
    assert {output.outputs[0].finish_reason for output in outputs} == {"stop"}


def test_neighbours_are_bit_unchanged(engine: LLM, demo: dict[str, CompiledRoutine]) -> None:
    """Unconstrained requests have the same tokens and the same log-probabilities, to the bit, beside constrained ones."""
    from vllm import SamplingParams

    free = [SamplingParams(temperature=1.0, seed=seed, max_tokens=24, logprobs=5) for seed in range(4)]
    prompts = [f"Request {number}" for number in range(4)]
    turn = all_turns(demo["repository_review"])[0][1]
    held = [turn.sampling_params(temperature=1.0, seed=seed, max_tokens=64) for seed in range(4)]

    def told(outputs: list[Any]) -> list[Any]:
        return [
            [
                (token, {key: entry.logprob for key, entry in step.items()})
                for token, step in zip(o.token_ids, o.logprobs, strict=True)
            ]
            for o in (output.outputs[0] for output in outputs)
        ]

    unconstrained = [SamplingParams(temperature=1.0, seed=seed, max_tokens=24) for seed in range(4)]
    alone = told(engine.generate([*prompts, *prompts], [*free, *unconstrained], use_tqdm=False)[:4])
    mixed = told(engine.generate([*prompts, *prompts], [*free, *held], use_tqdm=False)[:4])
    assert mixed == alone


def test_seeds_and_prompts_of_several_chunks_go_together(engine: LLM) -> None:
    from vllm import SamplingParams

    budget = engine.llm_engine.vllm_config.scheduler_config.max_num_batched_tokens
    prompts = [{"prompt_token_ids": [7 + n] * 3_900} for n in range(2 * budget // 3_900 + 1)]
    params = SamplingParams(seed=5, temperature=1.0, max_tokens=3, ignore_eos=True)
    assert [len(each.outputs[0].token_ids) for each in engine.generate(prompts, params, use_tqdm=False)] == [3] * len(prompts)


def test_other_structured_requests_stay_with_vllm(engine: LLM) -> None:
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    choice = SamplingParams(structured_outputs=StructuredOutputsParams(choice=["yes", "no"]), max_tokens=8)
    lark = SamplingParams(structured_outputs=StructuredOutputsParams(grammar='root ::= "a" | "b"'), max_tokens=8)
    outputs = engine.generate(["x", "x"], [choice, lark], use_tqdm=False)
    assert outputs[0].outputs[0].text in ("yes", "no")
    assert outputs[1].outputs[0].text in ("a", "b")


def test_schemas_and_samples_of_one_prompt(engine: LLM) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
    grammar = compile_schema(schema)
    (output,) = engine.generate(["x"], [grammar.sampling_params(temperature=1.0, n=4, seed=1, max_tokens=40)], use_tqdm=False)
    assert len(output.outputs) == 4
    for sample in output.outputs:
        jsonschema.validate(json.loads(sample.text), schema)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ignore_eos": True}, "ignore_eos"),
        ({"min_tokens": 5}, "min_tokens"),
        ({"allowed_token_ids": [1, 2]}, "allowed_token_ids"),
        ({"stop": ["}"]}, "stop"),
        ({"repetition_detection": {"max_pattern_size": 4, "min_pattern_size": 1, "min_count": 3}}, "repetition_detection"),
        ({"stop_token_ids": [1000]}, "stop_token_ids"),
        ({"extra_args": {"routine_drafts": "none"}}, "`routine_drafts` in `vllm_xargs` is 'none'"),
        ({"extra_args": {"routine_drafts": -1}}, "from 0 on"),
    ],
)
def test_what_would_break_the_promise_is_refused(
    engine: LLM, demo: dict[str, CompiledRoutine], changes: dict[str, Any], message: str
) -> None:
    from vllm.exceptions import VLLMValidationError
    from vllm.sampling_params import RepetitionDetectionParams

    turn = all_turns(demo["meeting_times"])[0][1]
    if "repetition_detection" in changes:
        changes = {"repetition_detection": RepetitionDetectionParams(**changes["repetition_detection"])}
    with pytest.raises(VLLMValidationError, match=message):
        engine.generate(["x"], [turn.sampling_params(**changes)], use_tqdm=False)


@pytest.mark.parametrize(
    "grammar",
    [
        "routine_grammar:",
        "routine_grammar:{",
        'routine_grammar:{"v":1,"leaves":{},"rules":{},"root":["or"]}',
        'routine_grammar:{"v":1,"leaves":{},"rules":{},"root":["marker","<|im_end|>"]}',
        'routine_grammar:{"v":1,"leaves":{"A":"(?:a|b)*a(?:a|b){40}"},"rules":{},"root":["leaf","A"]}',
    ],
)
def test_a_bad_grammar_ends_its_own_request_only(engine: LLM, grammar: str) -> None:
    from vllm import SamplingParams
    from vllm.exceptions import VLLMValidationError
    from vllm.sampling_params import StructuredOutputsParams

    params = SamplingParams(structured_outputs=StructuredOutputsParams(grammar=grammar), max_tokens=8)
    with pytest.raises(VLLMValidationError, match="routine_grammar grammar"):
        engine.generate(["x"], [params], use_tqdm=False)
    assert engine.generate(["x"], [SamplingParams(max_tokens=2)], use_tqdm=False)[0].outputs[0].token_ids


def test_keys_by_value_and_by_type(demo: dict[str, CompiledRoutine]) -> None:
    compiled = demo["meeting_times"]
    for position, turn, keys in all_turns(compiled):
        typed = compiled.turn(position, [MemoryKey(key, compiled.key_types[key]) for key in keys])
        assert typed.payload == turn.payload
