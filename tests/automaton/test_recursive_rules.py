from __future__ import annotations

import random
import re
from functools import cache

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from routine_grammar.automaton.automaton import Automaton
from routine_grammar.errors import GrammarError, GrammarTooLargeError
from routine_grammar.grammar.tree import Call, Choice, Grammar, Leaf, Literal, Node, Optional, Repeat, Sequence
from tests.grammars import edited, trees

calls = st.sampled_from(("first", "second")).map(Call)
bodies = trees(calls, calls, st.sampled_from(("(", ")", ",")).map(Literal))
recursive = st.builds(lambda root, first, second: Grammar(root, {"first": first, "second": second}), bodies, bodies, bodies)


def recognised(grammar: Grammar, text: str) -> bool:
    """Whether a text is of a grammar without left recursion, by trying everything: all ends that a node can reach."""

    @cache
    def ends(node: Node, start: int) -> frozenset[int]:
        match node:
            case Literal(literal):
                return frozenset((start + len(literal),)) if text.startswith(literal, start) else frozenset()
            case Leaf(_, str(pattern)):
                leaf = re.compile(pattern)
                return frozenset(end for end in range(start, len(text) + 1) if leaf.fullmatch(text, start, end))
            case Call(rule):
                return ends(grammar.rules[rule], start)
            case Sequence(items):
                places = frozenset((start,))
                for item in items:
                    places = frozenset().union(*(ends(item, place) for place in places))
                return places
            case Choice(items):
                return frozenset().union(*(ends(item, start) for item in items))
            case Optional(item):
                return ends(item, start) | {start}
            case Repeat(item, low, high):
                return repeated(item, low, high, start)
            case _:
                raise AssertionError(node)

    def repeated(item: Node, low: int, high: int | None, start: int) -> frozenset[int]:
        places, count, found = frozenset((start,)), 0, frozenset[int]()
        while places and (high is None or count <= high) and count <= len(text) + low:
            found |= places if count >= low else frozenset()
            places, count = frozenset().union(*(ends(item, place) for place in places)), count + 1
        return found

    return len(text) in ends(grammar.root, 0)


@settings(max_examples=200, deadline=None)
@given(recursive, st.integers(0, 1 << 30))
def test_recursive_grammars_accept_what_trying_everything_finds(grammar: Grammar, seed: int) -> None:
    try:
        automaton = Automaton(grammar)
        texts = proposals(automaton, random.Random(seed))
        accepted = {text: automaton.accepts(text.encode()) for text in texts}
    except GrammarError:  # left recursion, an empty language, or beyond one symbol of lookahead
        assume(False)
    for text, was_accepted in accepted.items():
        assert was_accepted == recognised(grammar, text), text


def proposals(automaton: Automaton, rng: random.Random) -> set[str]:
    """Texts that random walks end in, edited ones too."""
    texts = set[str]()
    for _ in range(4):
        row, walked = automaton.start(), bytearray()
        for _ in range(rng.randint(0, 7)):
            options = [piece for piece in automaton.next_pieces(row) if isinstance(piece, int) and piece < 128]
            if not options:
                break
            walked.append(rng.choice(options))
            after = automaton.after(row, bytes(walked[-1:]))
            assert after is not None
            row = after
        rest = bytes(piece for piece in automaton.shortest_completion(row) if isinstance(piece, int))
        text = (walked + rest).decode()[:24]
        texts |= {text, edited(text, rng), edited(text, rng) + text[:2]}
    return texts


def test_objects_inside_themselves_are_told_from_what_follows_them() -> None:
    value = Choice((Leaf("INTEGER", "-?(?:0|[1-9][0-9]*)"), Call("object")))
    member = Sequence((Literal('"a": '), value))
    some = Choice((Sequence((Optional(Sequence((member, Literal(", ")))), Literal('"b": '), value)), member))
    grammar = Grammar(Call("object"), {"object": Sequence((Literal("{"), Optional(some), Literal("}")))})
    automaton = Automaton(grammar)
    assert automaton.accepts(b'{"a": {"a": {"b": 1}, "b": {}}, "b": 2}')
    assert not automaton.accepts(b'{"a": {"a": {"b": 1}, "b": {}, "b": 2}')
    before = automaton.skeleton.size
    assert automaton.accepts(b'{"a": ' * 30 + b"{}" + b"}" * 30)
    assert automaton.skeleton.size == before, "depth costs no states"


def test_rules_that_can_be_read_in_too_many_ways_are_refused_in_time() -> None:
    some, others = Leaf("A", "[a-m]+"), Leaf("B", "[g-z]+")
    rules: dict[str, Node] = {"r20": some}
    for n in range(20):
        following = Call(f"r{n + 1}")
        rules[f"r{n}"] = Choice((Sequence((Optional(some), following)), Sequence((others, following, Optional(following)))))
    with pytest.raises(GrammarTooLargeError, match="read in too many ways"):
        Automaton(Grammar(Sequence((Call("r0"), Optional(some))), rules)).accepts(b"abz")
