from __future__ import annotations

import json

import pytest

from routine_grammar.automaton.automaton import Automaton
from routine_grammar.errors import GrammarError
from routine_grammar.grammar.dialects import dialect_names, load_dialect
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
