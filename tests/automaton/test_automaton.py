from __future__ import annotations

import random
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routine_grammar.automaton.automaton import Automaton
from routine_grammar.automaton.compiling import compile_leaf
from routine_grammar.automaton.step import RETURN
from routine_grammar.errors import GrammarError, GrammarTooLargeError
from routine_grammar.grammar.regex import grammar_to_regex
from routine_grammar.grammar.tree import Call, Choice, Grammar, Leaf, Literal, Marker, Optional, Repeat, Sequence
from tests.grammars import edited, grammars, nested_repeats, sample
from tests.scale import SCALE

STRING = Leaf("STRING", r'"(?:[^"\\\x00-\x1f\x7f]|\\["\\/bfnrt])*"')
INTEGER = Leaf("INTEGER", "-?(?:0|[1-9][0-9]*)")
LIST = Sequence(
    (Literal("["), Optional(Sequence((Call("value"), Repeat(Sequence((Literal(", "), Call("value"))))))), Literal("]"))
)
JSON_LIKE = Grammar(Call("value"), {"value": Choice((Literal("null"), INTEGER, STRING, LIST))})


@contextmanager
def second_of_cpu() -> Iterator[None]:
    """Raise `TimeoutError` in what takes longer; `re` looks for signals while it matches."""

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def judge(grammar: Grammar) -> Callable[[str], bool]:
    """`re.fullmatch`, or the leaf automaton of the whole pattern where `re` might need exponential time, or does."""
    pattern = grammar_to_regex(grammar)
    if nested_repeats(grammar) >= 2:
        return leaf_judge(pattern)
    compiled = re.compile(pattern)

    def matches(text: str) -> bool:
        try:
            with second_of_cpu():
                return compiled.fullmatch(text) is not None
        except TimeoutError:
            return leaf_judge(pattern)(text)

    return matches


def leaf_judge(pattern: str) -> Callable[[str], bool]:
    leaf = compile_leaf(pattern)

    def matches(text: str) -> bool:
        state = 0
        data = text.encode()
        for place, byte in enumerate(data, 1):
            state = int(leaf.table[state, byte])
            if state < 0:
                return state == RETURN and place == len(data)
        return bool(leaf.accepting[state])

    return matches


@settings(max_examples=300 * SCALE, deadline=None)
@given(grammars, st.integers(0, 1 << 30))
def test_accepts_what_re_matches(grammar: Grammar, seed: int) -> None:
    rng = random.Random(seed)
    matches = judge(grammar)
    automaton = Automaton(grammar)
    for _ in range(12):
        text = sample(grammar, rng)
        for candidate in (text, edited(text, rng), edited(edited(text, rng), rng)):
            assert automaton.accepts(candidate.encode()) == matches(candidate), candidate


@settings(max_examples=100 * SCALE, deadline=None)
@given(grammars, st.integers(0, 1 << 30))
def test_shortest_completion_ends_and_is_as_long_as_the_distance(grammar: Grammar, seed: int) -> None:
    rng = random.Random(seed)
    automaton = Automaton(grammar)
    row = automaton.start()
    for _ in range(20):
        pieces = automaton.shortest_completion(row)
        assert len(pieces) == automaton.distance(row)
        end = automaton.after(row, bytes(piece for piece in pieces if isinstance(piece, int)))
        assert end is not None
        assert automaton.may_end(end)
        options = automaton.next_pieces(row)
        if not options:
            break
        after = automaton.after_piece(row, rng.choice(options))
        assert after is not None
        assert automaton.distance(after) <= automaton.farthest
        row = after


def test_recursive_rules_run_on_the_return_stack() -> None:
    automaton = Automaton(JSON_LIKE)
    assert automaton.accepts(b'[[], [null, -10, ["x"]], 0]')
    assert not automaton.accepts(b"[[], [null]")
    assert not automaton.accepts(b"[[], [null]]]")
    assert automaton.accepts(b"[" * 30 + b"]" * 30)
    with pytest.raises(GrammarError, match="nests deeper than 32"):
        automaton.accepts(b"[" * 40 + b"]" * 40)


def test_leaves_are_shared_and_not_copied() -> None:
    wide = Grammar(Sequence(tuple(Sequence((Literal(f"{n}: "), STRING, Literal("\n"))) for n in range(50))))
    automaton = Automaton(wide)
    before = automaton.library.size
    assert automaton.accepts("".join(f'{n}: "x"\n' for n in range(50)).encode())
    assert automaton.library.size == before
    assert automaton.skeleton.size < 50 * 8


def test_markers_are_symbols_or_bytes_as_the_vocabulary_says() -> None:
    grammar = Grammar(Sequence((Optional(Literal("x")), Marker("<call>"), STRING, Marker("</call>"))))
    assert Automaton(grammar).accepts(b'x<call>"a"</call>')
    automaton = Automaton(grammar, {"<call>"})
    assert automaton.symbols == ("<call>",)
    assert not automaton.accepts(b'x<call>"a"</call>')
    row = automaton.after_symbol(automaton.start(), "<call>")
    assert row is not None
    row = automaton.after(row, b'"a"</call>')
    assert row is not None
    assert automaton.may_end(row)


def test_forced_pieces_stop_where_there_is_a_choice() -> None:
    automaton = Automaton(Grammar(Sequence((Literal('{"a": '), Choice((Literal("true"), Literal("trust"))), Literal("}")))))
    start = automaton.start()
    assert bytes(map(int, automaton.forced_pieces(start))) == b'{"a": tru'
    row = automaton.after(start, b'{"a": trus')
    assert row is not None
    assert bytes(map(int, automaton.forced_pieces(row))) == b"t}"


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        (Grammar(Call("a"), {"a": Sequence((Call("a"), Literal("x")))}), "allows no text|begins with itself"),
        (Grammar(Call("a"), {"a": Choice((Sequence((Call("a"), Literal("x"))), Literal("y")))}), "begins with itself"),
        (Grammar(Choice(())), "allows no text"),
        (Grammar(Call("a"), {"a": Sequence((Literal("x"), Call("a")))}), "allows no text"),
    ],
)
def test_senseless_grammars_are_refused(grammar: Grammar, message: str) -> None:
    with pytest.raises(GrammarError, match=message):
        Automaton(grammar)


def test_unrolled_repetitions_are_bounded() -> None:
    thousand = Repeat(Literal("ab"), 1000, 1000)
    with pytest.raises(GrammarTooLargeError, match="the bound"):
        Automaton(Grammar(Repeat(Repeat(thousand, 100, 100), 100, 100)))
