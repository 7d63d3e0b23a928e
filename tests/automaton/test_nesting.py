"""What brackets tell of the bytes that follow a word, against all words of random grammars."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routine_grammar import compile_schema
from routine_grammar.automaton.leaf import LeafLibrary
from routine_grammar.automaton.nesting import Nestings
from routine_grammar.grammar.json_text import EXACT
from routine_grammar.grammar.lark_reader import read_lark
from routine_grammar.grammar.tree import (
    Call,
    Choice,
    Leaf,
    Literal,
    Marker,
    Node,
    Optional,
    Repeat,
    Sequence,
)
from tests.scale import SCALE

MOST = 300  # words that are looked at of a node
LONGEST = 24
RULES = ("a", "b", "c")
BALANCED = ('"x"', '"]"', '"\\""', ", ", "1", "[]", "[1]", "{}", "", "\\", "][")
PIECES = ("[", "]", '"', '{"x": ', "]}", *BALANCED, *BALANCED)
WORDS = {"X": ("1", "12", "2"), "Y": ("", "[", "]")}

leaves = st.one_of(
    st.sampled_from(PIECES).map(Literal),
    st.sampled_from((Leaf("X", "12?|2"), Leaf("Y", r"[\[\]]?"), Marker("<m>"))),
    st.sampled_from(RULES).map(Call),
)
nodes = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map(lambda items: Sequence(tuple(items))),
        st.lists(inner, min_size=1, max_size=3).map(lambda items: Choice(tuple(items))),
        inner.map(Optional),
        st.builds(Repeat, inner, st.integers(0, 2), st.sampled_from((2, 3, None))),
    ),
    max_leaves=6,
)
# Most random pieces open what they do not close: these do.
closed = st.one_of(st.builds(lambda node: Sequence((Literal("["), node, Literal("]"))), nodes), nodes)


def words_of(node: Node, rules: dict[str, Node], depth: int) -> set[str]:
    """Some words of a node: calls are followed to a depth."""
    match node:
        case Literal(text) | Marker(text):
            return {text}
        case Leaf(name, _):
            return set(WORDS[name])
        case Call(rule):
            return words_of(rules[rule], rules, depth - 1) if depth else set()
        case Choice(items):
            return set().union(*(words_of(item, rules, depth) for item in items))
        case Optional(item):
            return words_of(item, rules, depth) | {""}
        case Sequence(items):
            found = {""}
            for item in items:
                found = joined(found, words_of(item, rules, depth))
            return found
        case Repeat(item, low, high):
            one, found, last = words_of(item, rules, depth), set[str](), {""}
            for count in range(low + 2 if high is None else high + 1):
                found |= last if count >= low else set()
                last = joined(last, one)
            return found
    raise AssertionError(node)


def joined(first: set[str], second: set[str]) -> set[str]:
    pairs = product(sorted(first, key=len), sorted(second, key=len))
    found = [one + other for one, other in pairs if len(one + other) <= LONGEST]
    return set(sorted(found, key=len)[:MOST])


@settings(max_examples=300 * SCALE, deadline=None)
@given(st.tuples(closed, closed, closed))
def test_no_other_byte_follows_a_word_in_a_longer_one(trees: tuple[Node, Node, Node]) -> None:
    """Of all words that begin with another one."""
    rules = dict(zip(RULES, trees, strict=True))
    nestings = Nestings(rules, LeafLibrary.shared(), {})
    for rule in RULES:
        follows = nestings.follows(rule)
        words = sorted(words_of(Call(rule), rules, 4))
        for place, word in enumerate(words if follows is not None else ()):
            for longer in words[place + 1 :]:
                if not longer.startswith(word):
                    break
                byte = longer.encode()[len(word.encode())]
                assert (follows or 0) >> byte & 1, (rules, word, longer)


def bytes_of(follows: int | None) -> bytes | None:
    return None if follows is None else bytes(byte for byte in range(256) if follows >> byte & 1)


@pytest.mark.parametrize(
    ("rule", "follows"),
    [
        ('"[" (a (", " a)*)? "]" | STRING', b""),
        ('"{" (STRING ": " a (", " STRING ": " a)*)? "}" | "{}"', b""),
        ('"\\"x\\"" | "\\"xy\\"" | STRING', b""),
        ('STRING (", " STRING)*', b' ",'),
        ("STRING? ", b'"'),
        ('"[" "]"?', None),
        ('"\\"x"', None),
        ('"1" | "12"', b"2"),
        ('"[" a "]" | "[" a | "1"', None),
        ('"[" a "]" | "]" a "[" | "1"', None),
        ('"[]"*', b"["),
    ],
)
def test_brackets_and_quotes_tell(rule: str, follows: bytes | None) -> None:
    grammar = read_lark(f'start: a\na: {rule}\nSTRING: /"[a-z]*"/')
    rules = {name: told(tree) for name, tree in grammar.rules.items()}
    found = bytes_of(Nestings(rules, LeafLibrary.shared(), {}).follows("a"))
    assert (found is None) == (follows is None)
    assert sorted(found or b"") == sorted(follows or b"")


def told(tree: Node) -> Node:
    """A tree with its strings known as such: an expression may be any."""
    match tree:
        case Leaf():
            return EXACT.string
        case Sequence(items):
            return Sequence(tuple(map(told, items)))
        case Choice(items):
            return Choice(tuple(map(told, items)))
        case Optional(item):
            return Optional(told(item))
        case Repeat(item, low, high):
            return Repeat(told(item), low, high)
    return tree


def test_symbols_follow_as_bytes_do() -> None:
    rules: dict[str, Node] = {"a": Sequence((Literal("[]"), Optional(Marker("<m>"))))}
    assert Nestings(rules, LeafLibrary.shared(), {"<m>": 2}).follows("a") == 1 << 258
    assert bytes_of(Nestings(rules, LeafLibrary.shared(), {}).follows("a")) == b"<>m"  # one of these


def test_objects_that_have_much_in_common_are_told_apart_state_by_state() -> None:
    """Each way through one of them with each way through the other would be thousands of states at once."""
    ways = [{"properties": {f"{name}{number}": {"type": "boolean"} for number in range(60)}} for name in "ab"]
    grammar = compile_schema({"type": "object", "properties": {"x": {"type": "array", "items": {"anyOf": ways}}}})
    assert grammar.accepts('{"x": [{"a7": true, "b7": 1}, {"b7": true, "a7": [[]]}]}')
    assert not grammar.accepts('{"x": [{"a7": 1, "b7": 1}]}')
