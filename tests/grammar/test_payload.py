from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routine_grammar.automaton.automaton import Automaton
from routine_grammar.errors import GrammarError, GrammarTooLargeError, SchemaError
from routine_grammar.grammar import payload
from routine_grammar.grammar.payload import PREFIX, dump_grammar, load_grammar
from routine_grammar.grammar.tree import Call, Choice, Grammar, Leaf, Literal, Marker, Repeat, Sequence
from tests.grammars import grammars, trees

with_markers = trees(st.sampled_from(("<a>", "é<")).map(Marker)).map(Grammar)
WHOLE = Grammar(
    Sequence((Marker("<c>"), Call("r"), Leaf("X", 'x"\\\\|y'), Repeat(Literal("\x00\n"), 2, None), Choice(()), Sequence(()))),
    {"r": Repeat(Call("r"), 0, 3), "é r": Literal("")},
)


@settings(max_examples=200, deadline=None)
@given(grammars | with_markers)
def test_what_is_written_is_read_back(grammar: Grammar) -> None:
    text = dump_grammar(grammar)
    assert load_grammar(text) == grammar
    assert dump_grammar(load_grammar(text)) == text
    assert text.startswith(PREFIX)
    assert "\n" not in text


def test_all_kinds_of_nodes_are_read_back() -> None:
    assert load_grammar(dump_grammar(WHOLE)) == WHOLE


@settings(max_examples=300, deadline=None)
@given(grammars, st.integers(0, 1 << 30))
def test_edited_text_is_a_grammar_or_an_error(grammar: Grammar, seed: int) -> None:
    rng = random.Random(seed)
    text = dump_grammar(grammar)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(PREFIX), len(text) + 1)
        text = (
            text[:place]
            + rng.choice(("", '"', "[", "]", "{", "}", ",", "1", "null", "-", "é", "\x00", "\ud800"))
            + text[place + rng.randint(0, 3) :]
        )
    read_or_refused(text)


VALUES: tuple[Any, ...] = (
    *(None, True, -1, -2, 1.5, 10**30, 2**31, "", "x", "\ud800", [], ["x"], {"a": 1}, ["X", "a"], ["X", 1]),
    *range(12),
)


def places(document: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON document."""
    found, todo = [], [document]
    while todo:
        container = todo.pop()
        entries = container.items() if isinstance(container, dict) else enumerate(container)
        for key, value in entries:
            found.append((container, key))
            if isinstance(value, dict | list):
                todo.append(value)
    return found


@settings(max_examples=400, deadline=None)
@given(grammars, st.data())
def test_replaced_parts_are_a_grammar_or_an_error(grammar: Grammar, data: st.DataObject) -> None:
    document = json.loads(dump_grammar(grammar).removeprefix(PREFIX))
    found = places(document)
    container, key = found[data.draw(st.integers(0, len(found) - 1))]
    container[key] = data.draw(st.sampled_from(VALUES))
    read_or_refused(PREFIX + json.dumps(document))


def read_or_refused(text: str) -> None:
    try:
        grammar = load_grammar(text)
    except GrammarError:
        return
    assert load_grammar(dump_grammar(grammar)) == grammar
    try:
        Automaton(grammar)
    except (GrammarError, SchemaError):  # the latter of lists of distinct elements that can't be told from what else there is
        return


def parts(**changed: Any) -> str:
    """A grammar's text of one literal, changed in part."""
    return json.dumps({"v": 3, "rules": [], "texts": ["a"], "leaves": [], "nodes": [0, 0, 0]} | changed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "malformed grammar text"),
        ("null", "malformed grammar text"),
        ("[]", "malformed grammar text"),
        ("{}", "malformed grammar text"),
        ('{"v": 1}', "version 1; expected 3"),
        ('{"v": 3, "leaves": [], "texts": [], "nodes": [0, 0, 0]}', "'rules'"),
        (parts(nodes=[]), "no list of integers"),
        (parts(nodes=[0, 0]), "malformed"),
        (parts(nodes=[0.5, 0, 0]), "no list of integers"),
        (parts(nodes=["0", 0, 0]), "no list of integers"),
        (parts(nodes=[0, 2**40, 0]), "no list of integers"),
        (parts(nodes=[[0, 0, 0]]), "no list of integers"),
        (parts(nodes=[10, 0, 0]), "node 0 is none"),
        (parts(nodes=[1, 0, 0]), "node 0 is none"),
        (parts(nodes=[3, 0, 0]), "node 0 is none"),
        (parts(nodes=[4, 2, 0, 0, 0, 0]), "not all of them are there"),
        (parts(nodes=[0, 0, 0, 0, 0, 0]), "node 1 is none"),
        (parts(nodes=[4, 1, 0, 9, 0, 0, 0, 0, 0]), "an element, that is not the whole of it"),
        (parts(nodes=[7, 2, 1, 0, 0, 0]), "repeats an item 2 to 1 times"),
        (parts(nodes=[7, 0, 20000, 0, 0, 0]), "the bound is 10000"),
        (parts(nodes=[2, 0, 0], texts=[""]), "empty marker"),
        (parts(texts=["\ud800"]), "lone surrogate"),
        (parts(texts="a"), "no list of texts"),
        (parts(rules=["r", "r"], nodes=[0, 0, 0] * 3), "two rules have one name"),
        (parts(leaves=[["X", 1]]), "malformed leaf"),
        ('{"v": 3, "rules": [], "leaves": [], "texts": [], "nodes": NaN}', "no list of integers"),
        ("[" * 100_000, "malformed grammar text"),
        ("1" * 5_000, "malformed grammar text"),
    ],
)
def test_malformed_texts(text: str, message: str) -> None:
    with pytest.raises(GrammarError, match=message):
        load_grammar(PREFIX + text)


def test_texts_past_the_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GrammarTooLargeError, match="more than 200 deep"):
        load_grammar(PREFIX + parts(nodes=[6, 0, 0] * 250 + [0, 0, 0]))
    monkeypatch.setattr(payload, "MAX_PAYLOAD_CHARS", 10)
    with pytest.raises(GrammarTooLargeError, match="characters; the bound is 10"):
        load_grammar(dump_grammar(WHOLE))


def test_grammars_whose_leaves_disagree_are_not_written() -> None:
    with pytest.raises(GrammarError, match="leaf X has two patterns"):
        dump_grammar(Grammar(Sequence((Leaf("X", "a"), Leaf("X", "b")))))
