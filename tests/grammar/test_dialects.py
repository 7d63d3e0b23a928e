from __future__ import annotations

import json

import pytest

from routine_grammar import Routine, Tool, compile_routine
from routine_grammar.automaton.automaton import Automaton
from routine_grammar.errors import GrammarError, RoutineError
from routine_grammar.grammar.dialects import ALIASES, dialect_names, dialect_of_parser, load_dialect
from routine_grammar.grammar.tree import EMPTY, Call, Choice, Grammar, Literal, Marker, walk

ARGUMENTS = Choice((Literal("{}"), Literal('{"a": [1, "b"]}')))


def test_there_is_hermes_and_each_name_loads() -> None:
    assert "hermes" in dialect_names()
    for name in dialect_names():
        assert load_dialect(name).name == name
        assert load_dialect(name) is load_dialect(name)


@pytest.mark.parametrize("name", ["", "Hermes", "../keys", "hermes.lark", "x" * 200])
def test_unknown_dialects_are_refused_and_the_known_ones_named(name: str) -> None:
    with pytest.raises(GrammarError, match=r"there is no dialect .*; there are .*hermes"):
        load_dialect(name)


@pytest.mark.parametrize("name", dialect_names())
def test_a_call_has_its_name_and_arguments_and_no_holes_left(name: str) -> None:
    dialect = load_dialect(name)
    call = dialect.turn(EMPTY, dialect.call(Literal("git_status"), ARGUMENTS))
    assert not [node for node in walk(call) if isinstance(node, Call)]
    assert {node.text for node in walk(call) if isinstance(node, Marker)} == set(dialect.markers)
    shortest = Automaton(Grammar(call))
    text = bytes(piece for piece in shortest.shortest_completion(shortest.start()) if isinstance(piece, int)).decode()
    assert text.count("git_status") == 1
    assert text.count("{}") == 1


def test_hermes_is_written_as_its_models_write_it() -> None:
    dialect = load_dialect("hermes")
    assert dialect.leading_text
    assert dialect.markers == ("</tool_call>", "<tool_call>")
    automaton = Automaton(Grammar(dialect.turn(Literal("Step 1\n"), dialect.call(Literal("t"), ARGUMENTS))))
    for arguments in ({}, {"a": [1, "b"]}):
        body = json.dumps({"name": "t", "arguments": arguments})
        assert automaton.accepts(f"Step 1\n<tool_call>\n{body}\n</tool_call>".encode())
        assert not automaton.accepts(f"<tool_call>\n{body}\n</tool_call>".encode())
        assert not automaton.accepts(f"Step 1\n<tool_call>{body}</tool_call>".encode())


@pytest.mark.parametrize(("alias", "name"), sorted(ALIASES.items()))
def test_another_name_of_the_same_parser_is_the_same_dialect(alias: str, name: str) -> None:
    assert load_dialect(alias).name == name


def test_the_vocabulary_tells_mistrals_two_apart() -> None:
    assert dialect_of_parser("mistral", {"[TOOL_CALLS]", "[ARGS]"}) == "mistral"
    assert dialect_of_parser("mistral", {"[TOOL_CALLS]"}) == "mistral_v3"
    assert dialect_of_parser("qwen3_xml", ()) == "qwen3_coder"
    with pytest.raises(GrammarError, match="there is no dialect 'pythonic'"):
        dialect_of_parser("pythonic", ())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("llama3_json", '{"name": "t", "parameters": {}}'),
        ("mistral", "[TOOL_CALLS]t[ARGS]{}"),
        ("mistral_v3", '[TOOL_CALLS][{"name": "t", "arguments": {}}]'),
        ("qwen3_coder", "<tool_call>\n<function=t>\n{}</function>\n</tool_call>"),
    ],
)
def test_dialects_are_written_as_their_models_write_them(name: str, text: str) -> None:
    dialect = load_dialect(name)
    assert dialect.leading_text == (name != "llama3_json")
    assert dialect.short_ids == name.startswith("mistral")
    automaton = Automaton(Grammar(dialect.turn(Literal("Step 1\n"), dialect.call(Literal("t"), ARGUMENTS))))
    assert automaton.accepts((f"Step 1\n{text}" if dialect.leading_text else text).encode())


def test_without_leading_text_headers_and_thoughts_are_not_there() -> None:
    tools = [Tool("t", "", {"type": "object", "properties": {}})]
    steps = "name: x\nthought: {linear: 9, branch: 9}\nsteps:\n  - {name: A, tool: t}\n"
    compiled = compile_routine(Routine.parse(steps), tools, dialect="llama3_json")
    call = '{"name": "t", "parameters": {}}'
    assert compiled.turn().accepts(call)
    assert not compiled.turn().accepts(f"Thought: x\n{call}")
    end = compiled.turn("1")
    assert end.accepts("Done: 5 [x] (y).")
    for answer in ("{", "Done: {}", "<|python_tag|>", call):
        assert not end.accepts(answer)
    with pytest.raises(RoutineError, match="dialect 'llama3_json' lets no text stand there"):
        compile_routine(Routine.parse(steps + "header: always\n"), tools, dialect="llama3_json")
