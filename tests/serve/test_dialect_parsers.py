"""Calls of every dialect, read back by vLLM's own parser, whole and streamed, alone and as the server wraps it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from routine_grammar.grammar.dialects import dialect_names
from routine_grammar.serve.call_ids import LongIds, ShortIds
from routine_grammar.serve.parsing import TurnPlan, with_positions
from tests.grammar.dialect_calls import KEYS, TOOLS, compiled
from tests.grammar.samples import Sampler
from tests.scale import SCALE
from tests.serve.parsers import PARSERS, VOCABULARIES, WAYS, calls_written, parser_class, request, streamed, tokenizer, whole

pytestmark = pytest.mark.filterwarnings("ignore")

MARKED = 'a <tool_call> </tool_call> [TOOL_CALLS] [ARGS] <|python_tag|> {"name": "ping"} }]; { < / parameter > </parameter> '
SCHEMAS = {tool.name: tool.input_schema for tool in TOOLS}
OPENAI = [
    {"type": "function", "function": {"name": tool.name, "description": "", "parameters": dict(tool.input_schema)}}
    for tool in TOOLS
]
VARIANTS = [(dialect, markers) for dialect, found in VOCABULARIES.items() for markers in found]


def texts(dialect: str) -> list[tuple[str, str]]:
    """Positions, and texts drawn from their turns."""
    positions = compiled(dialect).graph.positions
    turns = [(position, compiled(dialect).turn(position, KEYS).tree) for position in positions]
    return [(position, Sampler(tree, seed).text()) for position, tree in turns for seed in range(6 * SCALE)]


def arguments(calls: list[tuple[str, str]]) -> list[tuple[str, Any]]:
    return [(name, json.loads(written)) for name, written in calls]


def same(one: Any, other: Any) -> bool:
    """Equal as JSON: `true` is not 1."""
    return bool(one == other) and json.dumps(one).count("true") == json.dumps(other).count("true")


def test_every_dialect_is_tried() -> None:
    assert set(VOCABULARIES) == set(dialect_names())


@pytest.mark.parametrize(("dialect", "markers"), VARIANTS)
def test_calls_drawn_are_the_calls_read(dialect: str, markers: tuple[str, ...]) -> None:
    made, tokens = parser_class(PARSERS[dialect], *markers), tokenizer(*markers)
    seen = {"parallel": 0, "empty": 0, "answer": 0, "call": 0}
    for _, text in texts(dialect):
        wanted = calls_written(dialect, text, SCHEMAS)
        asked = request(OPENAI)
        found = [whole(made(tokens, asked.tools), asked, text, tokens)]
        # Where vLLM's own streaming fails: test_what_vllms_streaming_of_….
        steady = dialect != "llama3_json" or all(given for _, given in wanted)
        ways = {"llama3_json": WAYS[:2], "mistral_v3": ("characters", "tokens", "at once")}.get(dialect, WAYS)
        found += [streamed(made(tokens, asked.tools), asked, text, tokens, how) for how in ways if steady]
        for content, calls, _ in found:
            assert same(arguments(calls), wanted), text
            assert wanted or content == text
        kind = "parallel" if len(wanted) > 1 else "answer" if not wanted else "call" if wanted[0][1] else "empty"
        seen[kind] += 1
    assert all(seen.values()), seen


@pytest.mark.parametrize(("dialect", "markers"), VARIANTS)
@pytest.mark.parametrize("how", ["whole", *WAYS])
def test_under_a_routine_ids_say_the_positions_and_nothing_is_lost(dialect: str, markers: tuple[str, ...], how: str) -> None:
    made, tokens = with_positions(parser_class(PARSERS[dialect], *markers)), tokenizer(*markers)
    graph, scope = compiled(dialect).graph, compiled(dialect).scope
    ids = ShortIds(graph) if scope.dialect.short_ids else LongIds(graph)
    for position, text in texts(dialect):
        asked = request(OPENAI)
        object.__setattr__(asked, "_plan", TurnPlan(graph, position, frozenset(KEYS), ids, dialect))
        parser = made(tokens, asked.tools)
        read = whole(parser, asked, text, tokens) if how == "whole" else streamed(parser, asked, text, tokens, how)
        content, calls, given = read
        wanted = calls_written(dialect, text, SCHEMAS)
        assert same(arguments(calls), wanted), text
        assert len(set(given)) == len(given) == len(wanted)
        if not wanted:
            assert content == text
            continue
        taken = graph.call_taken(position, content, wanted[0][0], frozenset(KEYS))
        for number, call_id in enumerate(given):
            taken = graph.next_call_taken(taken, wanted[number][0]) if number else taken
            known = ids.read(call_id)
            assert known is not None
            assert known.position == str(taken.position)
        lead = text[: text.find("\n") + 1] if text.startswith("Thought: ") else ""
        assert content.strip() == lead.strip()


@pytest.mark.parametrize(("dialect", "markers"), VARIANTS)
def test_markers_in_arguments_come_back(dialect: str, markers: tuple[str, ...]) -> None:
    """What JSON can escape may be said everywhere; raw text can't hold its own markup."""
    turn = compiled(dialect).turn("1-1_2", KEYS)
    values = {"words": MARKED, "count": 1, "tags": [MARKED, 'é\n"\\😀\u2028'], "more": {"key": MARKED}}
    text = written(dialect, values)
    if dialect == "qwen3_coder":
        assert not turn.accepts(text)
        values["words"] = "\n a < b, <div class='x'></div> <T> </p> }{ \"é😀\" \\u003c [TOOL_CALLS] '</param' <\n\n"
        text = written(dialect, values)
    assert turn.accepts(text), text
    made, tokens = with_positions(parser_class(PARSERS[dialect], *markers)), tokenizer(*markers)
    asked = request(OPENAI)
    graph = compiled(dialect).graph
    object.__setattr__(asked, "_plan", TurnPlan(graph, "1-1_2", frozenset(KEYS), LongIds(graph), dialect))
    for how in ("whole", *WAYS):
        parser = made(tokens, asked.tools)
        read = whole(parser, asked, text, tokens) if how == "whole" else streamed(parser, asked, text, tokens, how)
        assert arguments(read[1]) == [("search", values)], how


def written(dialect: str, values: dict[str, Any]) -> str:
    """A call of `search` as its dialect writes it, markers escaped where it is JSON."""

    def as_json(value: Any) -> str:
        text = json.dumps(value, ensure_ascii=False)
        for marker in ("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]"):
            text = text.replace(marker, f"\\u{ord(marker[0]):04x}{marker[1:]}")
        return text

    match dialect:
        case "hermes":
            return f'<tool_call>\n{{"name": "search", "arguments": {as_json(values)}}}\n</tool_call>'
        case "llama3_json":
            return f'{{"name": "search", "parameters": {as_json(values)}}}'
        case "mistral":
            return f"[TOOL_CALLS]search[ARGS]{as_json(values)}"
        case "mistral_v3":
            return f'[TOOL_CALLS][{{"name": "search", "arguments": {as_json(values)}}}]'
    blocks = [
        (name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False).replace("<", "\\u003c"))
        for name, value in values.items()
    ]
    body = "".join(f"<parameter={name}>\n{value}\n</parameter>\n" for name, value in blocks)
    return f"<tool_call>\n<function=search>\n{body}</function>\n</tool_call>"


def test_what_vllms_streaming_of_mistrals_older_form_gets_wrong() -> None:
    """A piece that begins with the colon before arguments: with vLLM's parser alone, not under a Routine."""
    markers = VOCABULARIES["mistral_v3"][0]
    parser, asked = parser_class("mistral", *markers)(tokenizer(*markers), request(OPENAI).tools), request(OPENAI)
    said = [("[TOOL_CALLS]", [tokenizer(*markers).convert_tokens_to_ids("[TOOL_CALLS]")])]
    said += [(piece, [0]) for piece in ('[{"name": "ping", "arguments"', ": {}", "}]")]
    deltas = [
        parser.parse_delta(piece, ids, asked, None if number else [], finished=number == 3)
        for number, (piece, ids) in enumerate(said)
    ]
    parts = [part.function.arguments or "" for delta in deltas if delta for part in delta.tool_calls]
    assert "".join(parts) == ": {}"


def test_what_vllms_streaming_of_llama_loses() -> None:
    """Empty arguments, and calls that come in few pieces: with vLLM's parser alone, not under a Routine."""
    markers = VOCABULARIES["llama3_json"][0]
    made, tokens, asked = parser_class("llama3_json", *markers), tokenizer(*markers), request(OPENAI)
    empty, call = '{"name": "ping", "parameters": {}}', '{"name": "search", "parameters": {"count": 5}}'
    assert streamed(made(tokens, asked.tools), asked, empty, tokens, "tokens")[1] == [("ping", "")]
    assert streamed(made(tokens, asked.tools), asked, call, tokens, "at once")[1] == []
    for number, read in (("250e-2", "255"), ("0.00001", "0e-05")):
        text = f'{{"name": "search", "parameters": {{"share": {number}}}}}'
        _, calls, _ = streamed(made(tokens, asked.tools), asked, text, tokens, "characters")
        assert calls[0][1] == f'{{"share": {read}}}'
        assert not compiled("llama3_json").turn("2", KEYS).accepts(text)


@pytest.mark.parametrize(("parser", "missing"), [("mistral", "tool call token"), ("llama3_json", "bot token")])
def test_vllm_refuses_vocabularies_without_the_token(parser: str, missing: str) -> None:
    with pytest.raises(TypeError, match=missing):
        parser_class(parser)
