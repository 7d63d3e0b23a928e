from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from routine_grammar.api import Grammar as Compiled
from routine_grammar.errors import GrammarError
from routine_grammar.grammar.ebnf import grammar_to_ebnf
from routine_grammar.grammar.json_text import EXACT, turn_form
from routine_grammar.grammar.terminals import JsonNumber, JsonString
from routine_grammar.grammar.tree import Call, Choice, Grammar, Leaf, Literal, Marker, Optional, Repeat, Sequence
from tests.grammars import edited, grammars, nested_repeats, sample

pytestmark = pytest.mark.filterwarnings("ignore")

FORM = turn_form(["<tool_call>", "</tool_call>"], "memory_")
# Pieces that strings and numbers fall apart into, chosen to meet every edge of the patterns.
PIECES = (
    *('"', "\\", "memory_", "m", "\\u006d", "\\u006D", "<", "<tool_cal", "<tool_call>", "</tool_call>", "é", "🙂", "\x01", "a"),
    *("\\n", "\\ud83d", "\\ude42", "-", "0", "19", ".", "e", "+", "E"),
)


@pytest.fixture(scope="module")
def xgrammar() -> Any:
    return pytest.importorskip("xgrammar")


def accepts(xgrammar: Any, ebnf: str, text: str) -> bool:
    return bool(xgrammar.testing._is_grammar_accept_string(xgrammar.Grammar.from_ebnf(ebnf), text))


@settings(max_examples=60, deadline=None)
@given(grammars, st.integers(0, 1 << 30))
def test_xgrammar_reads_what_the_tree_means(xgrammar: Any, grammar: Grammar, seed: int) -> None:
    assume(nested_repeats(grammar) < 2)
    rng = random.Random(seed)
    ebnf = grammar_to_ebnf(grammar)
    for _ in range(3):
        text = sample(grammar, rng)
        assert accepts(xgrammar, ebnf, text)
        other = edited(text, rng)
        assert accepts(xgrammar, ebnf, other) == Compiled(grammar).accepts(other), (ebnf, other)


def test_every_kind_of_node_is_written(xgrammar: Any) -> None:
    grammar = Grammar(
        Sequence((Marker("<c>"), Repeat(Call("item"), 2, None), Optional(Literal('"\\\n')), Repeat(Literal("z"), 1, 3))),
        {"item": Choice((Literal("é"), Sequence((Literal("-"), Leaf("DIGITS", "[0-9]+"))), Sequence(())))},
    )
    ebnf = grammar_to_ebnf(grammar)
    for text, expected in {'<c>é-12"\\\nz': True, "<c>zzz": True, "<c>zzzz": False, "<c>-z": False, "éz": False}.items():
        assert accepts(xgrammar, ebnf, text) is expected, text


def test_a_rule_named_root_is_renamed(xgrammar: Any) -> None:
    ebnf = grammar_to_ebnf(Grammar(Sequence((Literal("x"), Call("root"))), {"root": Literal("a")}))
    assert accepts(xgrammar, ebnf, "xa")


def test_a_choice_of_nothing_is_refused() -> None:
    with pytest.raises(GrammarError, match="allows nothing"):
        grammar_to_ebnf(Grammar(Choice(())))


TERMINALS = (
    FORM.string,
    EXACT.string,
    Leaf("SHORT", JsonString(found=("^[a-zé🙂<]*$",), low=2, high=4, markers=("<a>",))),
    Leaf("NOT", JsonString(never=("a", "^$"), high=3)),
    Leaf("BOUNDED", JsonNumber(low="-3.5", high="120", multiple="0.5")),
    Leaf("WHOLE", JsonNumber(low="7", low_is_open=True, is_integer=True, form="-?(?:0|[1-9][0-9]{0,18})")),
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(TERMINALS), st.lists(st.sampled_from(PIECES), max_size=6))
def test_xgrammar_reads_terminals_as_we_do(xgrammar: Any, leaf: Leaf, pieces: list[str]) -> None:
    grammar = Grammar(Sequence((leaf, Literal("!"))))
    ebnf = grammar_to_ebnf(grammar)
    compiled = Compiled(grammar)
    for text in ("".join(pieces), f'"{"".join(pieces)}"'):
        assert accepts(xgrammar, ebnf, text + "!") == compiled.accepts(text + "!"), text
