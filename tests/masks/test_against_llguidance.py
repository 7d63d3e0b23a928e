"""Masks beside llguidance's, bit for bit: at each step of a random walk both allow the same tokens and ends.

Three differences are no errors of ours. Each has a test of its own below, and the walks keep to grammars without them:
overlapping terminals (llguidance's lexer follows the longest one, ours reads every way), rules that allow no text
(llguidance goes on into them and is stuck), and nesting (our return stack is bounded).
"""

from __future__ import annotations

import json
import lzma
import random
import re
import warnings
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import llguidance
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from routine_grammar import Grammar, MemoryKey, Routine, Tool, Vocabulary, compile_lark, compile_routine, compile_schema
from routine_grammar.api import CompiledRoutine, Turn
from routine_grammar.automaton.automaton import Automaton
from routine_grammar.demo.model import demo_model_path
from routine_grammar.errors import GrammarError, GrammarTooLargeError, SchemaError, UnsupportedSchemaError
from routine_grammar.grammar.json_text import EXACT, JsonForm, turn_form
from routine_grammar.grammar.schema.compiler import schema_to_grammar
from routine_grammar.grammar.tree import Call, Literal, Sequence
from routine_grammar.grammar.tree import Grammar as Tree
from routine_grammar.masks.matcher import Matcher
from tests.grammar.json_instances import schemas
from tests.grammar.peer import PeerMatcher, peer_tokenizer
from tests.grammar.test_lark import CALCULATOR
from tests.scale import SCALE
from tests.vocabularies import byte_vocabulary, tekken_vocabulary

DATA = Path(__file__).parents[1] / "data" / "tool_schemas.jsonl.xz"
TURN = turn_form(("<tool_call>", "</tool_call>"), "memory_")
DEEPEST = 7  # brackets that are open: far from the 32 calls of rules that our return stack holds
MARKERS = ("<tool_call>", "</tool_call>")


@dataclass(frozen=True)
class Pair:
    """A vocabulary, as we and as llguidance hold it."""

    vocabulary: Vocabulary
    tokenizer: llguidance.LLTokenizer

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> Pair:
        return cls(vocabulary, peer_tokenizer(vocabulary))

    @cached_property
    def telling(self) -> npt.NDArray[np.bool_]:
        """Tokens that may end a string or begin something."""
        return np.array([any(byte in b'"\\<>{}[],:\n' for byte in token) for token in self.vocabulary.tokens])

    @cached_property
    def marks(self) -> npt.NDArray[np.bool_]:
        """Tokens that no text spells, ends among them."""
        return np.array([not token for token in self.vocabulary.tokens])

    def drawn(self, allowed: npt.NDArray[np.int32], rng: random.Random) -> int:
        """One of the allowed tokens; drawn evenly, a walk would hardly ever leave its first string."""
        for rare in (self.marks, self.telling):
            some = allowed[rare[allowed]]
            if len(some) and rng.random() < 0.4:
                return int(rng.choice(some))
        return int(rng.choice(allowed))

    def start(self, grammar: Grammar) -> tuple[Matcher, PeerMatcher]:
        """Both matchers at the beginning."""
        lark = grammar.lark_for("llguidance", self.vocabulary)
        return grammar.matcher(self.vocabulary), PeerMatcher(self.tokenizer, lark)


@pytest.fixture(scope="module")
def demo_pair() -> Pair:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoTokenizer

        return Pair.of(Vocabulary.from_tokenizer(AutoTokenizer.from_pretrained(str(demo_model_path()))))


@pytest.fixture(scope="module")
def tekken_pair() -> Pair:
    return Pair.of(tekken_vocabulary(MARKERS))


def walked(pair: Pair, grammar: Grammar, rng: random.Random, steps: int) -> Counter[str]:
    """Compare along one random walk, up to its end, `steps` tokens or brackets that are open; returns what was met."""
    ours, theirs = pair.start(grammar)
    row = np.full(pair.vocabulary.words, -1, np.int32)
    text, met = b"", Counter[str]()
    while ours.tokens < steps and open_brackets(text) <= DEEPEST:
        ours.fill(row)
        their_row = theirs.row()
        assert np.array_equal(row, their_row), difference(pair.vocabulary, text, row, their_row)
        met["masks"] += 1
        met["that may end"] += ours.may_end
        token = pair.drawn(ours.allowed(), rng)
        met["markers"] += token in pair.vocabulary.special.values() and token not in pair.vocabulary.eos
        assert ours.advance(token)
        if ours.finished:
            met["finished"] += 1
            break
        assert theirs.advance(token)
        text += pair.vocabulary.tokens[token]
    return met


def open_brackets(text: bytes) -> int:
    bare = re.sub(rb'"(?:[^"\\]|\\.)*"?', b"", text, flags=re.DOTALL)
    return sum(map(bare.count, (b"[", b"{"))) - sum(map(bare.count, (b"]", b"}")))


def difference(
    vocabulary: Vocabulary, text: bytes, ours: npt.NDArray[np.int32], theirs: npt.NDArray[np.int32]
) -> tuple[str, bytes, dict[str, list[bytes | int]]]:
    """What a failed comparison shows: the text so far, and some tokens that only one allows."""

    def only(row: npt.NDArray[np.int32]) -> list[bytes | int]:
        ids = np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little"))
        return [vocabulary.tokens[token] or int(token) for token in ids[:20]]

    return "behind", text, {"only we allow": only(ours & ~theirs), "only llguidance allows": only(theirs & ~ours)}


# Turns


@pytest.mark.parametrize("name", ["expense_approval", "meeting_times", "repository_review"])
def test_turns_of_the_demo(name: str, demo: dict[str, CompiledRoutine], demo_pair: Pair) -> None:
    graph, rng, met = demo[name].graph, random.Random(1), Counter[str]()
    for position in graph.positions:
        for keys in graph.keys_before(position):
            turn = demo[name].turn(position, keys)
            for _ in range(2 * SCALE):
                met += walked(demo_pair, turn, rng, 150)
    assert met["masks"] > 1_000 * SCALE
    assert min(met["finished"], met["markers"], met["that may end"]) > 15 * SCALE, met


TOOLS = (
    Tool("look", "", {"type": "object"}, {"type": "string"}),
    Tool("correct", "", {"type": "object", "properties": {"b": {"type": ["string", "null"]}, "é": {"type": "string"}}}),
    Tool("ask", "", {"type": "object", "properties": {"whom": {"enum": ["a", "ab"]}, "x": {"type": "object"}}}),
)
STEPS = """
  - name: Look
    tool: look
    branches:
      - {if: there is a mistake, steps: [{name: Correct it, tool: correct}]}
      - {if: there is a question, steps: [{name: Ask, tool: ask}]}
"""


def open_ended_turn(thought_chars: int) -> Turn:
    """Two calls with free arguments, or a final answer."""
    text = f"name: open_ended\nthought: {{linear: 0, branch: {thought_chars}}}\nsteps:{STEPS}"
    return compile_routine(Routine.parse(text), TOOLS).turn("1", [MemoryKey("memory_1_result", {"type": "string"})])


def test_a_turn_that_may_end_beside_calls(demo_pair: Pair) -> None:
    rng, met = random.Random(2), Counter[str]()
    for turn in (open_ended_turn(0), open_ended_turn(60)):
        assert turn.may_end
        for _ in range(40 * SCALE):
            met += walked(demo_pair, turn, rng, 60)
        call = '<tool_call>\n{"name": "ask", "arguments": {}}\n</tool_call>'
        assert texts_taken(CROSSING, turn, call) == (True, True)
    assert texts_taken(CROSSING, turn, f"Thought: who?\n{call}") == (True, True)
    assert min(met["finished"], met["markers"], met["that may end"]) > 30 * SCALE, met


# JSON Schemas


def test_schemas_of_real_tools(demo_pair: Pair) -> None:
    rng, met = random.Random(3), Counter[str]()
    with lzma.open(DATA, "rt", encoding="utf-8") as lines:
        schemas_of_tools = [json.loads(line)["schema"] for line in lines]
    for schema in rng.sample(schemas_of_tools, min(120 * SCALE, len(schemas_of_tools))):
        try:
            grammar = compile_schema(schema)
        except UnsupportedSchemaError:
            continue
        met += walked(demo_pair, grammar, rng, 100)
    assert met["masks"] > 4_000, met
    assert met["finished"] > 80, met


def closed(required: int = 0, **properties: Any) -> dict[str, Any]:
    names = list(properties)
    return {"type": "object", "properties": properties, "required": names[:required], "additionalProperties": False}


INTEGER, STRING = {"type": "integer"}, {"type": "string"}
BEGIN_ALIKE = [
    {"anyOf": [closed(2, kind={"const": "x"}, n=INTEGER), closed(2, kind={"enum": ["x", "y"]}, m=STRING)]},
    {"anyOf": [closed(1, a=INTEGER), closed(0, b=INTEGER)]},
    {"anyOf": [closed(1, a=INTEGER), {"type": "object"}]},
    {"anyOf": [{"type": "array", "items": INTEGER}, {"const": [1]}, {"const": [1, "x"]}]},
    {"anyOf": [INTEGER, {"const": 1.5}, {"enum": [12, "1", "12"]}, STRING]},
    closed(1, a=INTEGER, b=STRING, **{"é": STRING, "éa": STRING, ", ": {"const": ", "}}),
]


@pytest.mark.parametrize("schema", BEGIN_ALIKE, ids=range(len(BEGIN_ALIKE)))
def test_values_that_begin_alike(schema: Any, demo_pair: Pair) -> None:
    rng = random.Random(4)
    grammar = compile_schema(schema)
    met = sum((walked(demo_pair, grammar, rng, 60) for _ in range(20 * SCALE)), Counter[str]())
    assert met["finished"], met


CROSSING = Pair.of(
    byte_vocabulary(
        (
            *(
                '", "',
                '": "',
                '{"',
                '"}',
                '"}]',
                "]]",
                "[[",
                '[{"a": ',
                '", ',
                "memory_",
                "mem",
                "ory_",
                "1e",
                "-0.",
                ".5",
                "E+",
            ),
            *(
                "tool_call>",
                "</",
                "</tool_call",
                "\\u",
                "006d",
                "\\u00",
                "\\ud83d",
                "😀",
                'é"',
                '"a',
                '"b": ',
                'ab": ',
                "0, ",
                "true}",
            ),
        ),
        MARKERS,
    )
)


@settings(max_examples=120 * SCALE, deadline=None)
@given(schemas(closed=False), st.sampled_from((EXACT, TURN)), st.integers(0, 1 << 30))
def test_generated_schemas(schema: Any, form: JsonForm, seed: int) -> None:
    try:
        tree = schema_to_grammar(schema, form)
        automaton = Automaton(tree)
        assume(all(allows_a_text(tree, rule) for rule in tree.rules))
        automaton.start()
    except (SchemaError, GrammarError):  # nothing is allowed, or the recursion is not decided by bytes
        assume(False)
    try:
        walked(CROSSING, Grammar(tree), random.Random(seed), 50)
    except GrammarTooLargeError:
        assume(False)


def allows_a_text(tree: Tree, rule: str) -> bool:
    try:
        Automaton(Tree(Call(rule), tree.rules))
    except GrammarError:
        return False
    return True


# Grammars that users write

LARK = {
    "sums of products": CALCULATOR,
    "brackets": 'start: "(" start? ")"',
    "lists of words": 'start: many\nmany: word | word "*" many\nword: /[a-zé]+/ | "(" many ")"',
    "another JSON": r"""
        start: value
        value: STRING | NUMBER | "{" [pair ("," pair)*] "}" | "[" [value ("," value)~0..2] "]" | "true"
        pair: STRING ":" value
        STRING: /"[^"\\]*"/
        NUMBER: /-?[0-9]+(\.[0-9]+)?/
    """,
}


@pytest.mark.parametrize("name", LARK)
def test_grammars_in_lark(name: str, demo_pair: Pair) -> None:
    rng, grammar = random.Random(5), compile_lark(LARK[name])
    assert compile_lark(grammar.lark).lark == grammar.lark
    met = Counter[str]()
    for pair in (demo_pair, CROSSING):
        for _ in range(10 * SCALE):
            met += walked(pair, grammar, rng, 40)
    assert min(met["finished"], met["that may end"]) > 3 * SCALE, met


def test_a_rule_named_start_beside_the_root() -> None:
    grammar = Grammar(Tree(Sequence((Literal("a"), Call("start"))), {"start": Literal("b"), "start_2": Call("start")}))
    assert texts_taken(CROSSING, grammar, "ab") == (True, True)
    assert compile_lark(grammar.lark).accepts("ab")


# A large vocabulary


def test_a_vocabulary_of_131072_tokens(tekken_pair: Pair, demo: dict[str, CompiledRoutine]) -> None:
    rng, met = random.Random(6), Counter[str]()
    positions = {"expense_approval": ("2", "2-2_1-1_1"), "meeting_times": ("1",), "repository_review": ("1",)}
    grammars: list[Grammar] = [
        demo[name].turn(position, demo[name].graph.keys_before(position)[1])
        for name, some in positions.items()
        for position in some
    ]
    grammars += [open_ended_turn(0), compile_schema({}), compile_schema(BEGIN_ALIKE[-1])]
    for grammar in grammars:
        for _ in range(3 * SCALE):
            met += walked(tekken_pair, grammar, rng, 80)
    assert met["masks"] > 500 * SCALE, met
    assert min(met["finished"], met["markers"]) > 6 * SCALE, met


# Where the two differ


def texts_taken(pair: Pair, grammar: Grammar, text: str) -> tuple[bool, bool]:
    """Whether we, and whether llguidance, go along with a text, byte by byte and its markers as the tokens they are."""
    special = pair.vocabulary.special
    tokens = [
        token for part in re.split("(</?tool_call>)", text) for token in ([special[part]] if part in special else part.encode())
    ]
    ours, theirs = pair.start(grammar)
    return all(map(ours.advance, tokens)), all(map(theirs.advance, tokens))


def test_llguidance_takes_the_longest_terminal() -> None:
    """A terminal that goes on hides one that ended: a word beside its own beginning."""
    grammar = compile_lark('start: WORD "b" | "a"\nWORD: /[ab]+/')
    assert texts_taken(CROSSING, grammar, "ab") == (True, True)
    overlapping = compile_lark('start: WORD "b."\nWORD: /[ab]+/')
    assert texts_taken(CROSSING, overlapping, "aab.") == (True, False)


def test_llguidance_goes_into_rules_that_allow_no_text() -> None:
    grammar = compile_lark('start: "a" (endless | "b")\nendless: "c" endless')
    assert texts_taken(CROSSING, grammar, "ab") == (True, True)
    assert texts_taken(CROSSING, grammar, "ac") == (False, True)


def test_our_nesting_is_bounded() -> None:
    grammar = compile_schema({})
    assert texts_taken(CROSSING, grammar, "[" * 16) == (True, True)
    assert texts_taken(CROSSING, grammar, "[" * 40) == (False, True)
