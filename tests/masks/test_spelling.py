"""Canonical spelling: of the ways to write forced text, the one that the tokenizer would have chosen."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.arms import GuidanceArm
from benchmarks.vocabularies import Tokenization, demo_tokenization, largest_tokenization
from benchmarks.workload import make_cases
from routine_grammar import Vocabulary, compile_regex
from routine_grammar.automaton.automaton import Automaton
from routine_grammar.demo.model import demo_model_path
from routine_grammar.errors import VocabularyError
from routine_grammar.grammar.tree import Choice, Grammar, Leaf, Literal, Marker, Sequence
from routine_grammar.masks.leaf_rows import VocabularyRows
from routine_grammar.masks.matcher import Matcher
from routine_grammar.masks.rows import TokenRows
from tests.grammars import grammars, sample
from tests.scale import SCALE
from tests.vocabularies import byte_vocabulary


@pytest.fixture(scope="module")
def demo_tokens() -> Tokenization:
    return demo_tokenization()


def longest_first(words: tuple[str, ...], special: tuple[str, ...] = ()) -> Vocabulary:
    """A vocabulary whose tokenizer takes the longest token at each place."""
    vocabulary = byte_vocabulary(words, special)
    by_bytes = {data: token for token, data in enumerate(vocabulary.tokens) if data}

    def encode(text: str) -> list[int]:
        data, tokens = text.encode(), []
        for marker, token in vocabulary.special.items():
            if text.startswith(marker):
                return [token, *encode(text.removeprefix(marker))]
        while data:
            taken = next(data[:end] for end in range(len(data), 0, -1) if data[:end] in by_bytes)
            tokens.append(by_bytes[taken])
            data = data[len(taken) :]
        return tokens

    return Vocabulary(vocabulary.tokens, vocabulary.special, vocabulary.eos, encode)


def rows_of(tree: Grammar, vocabulary: Vocabulary) -> TokenRows:
    return TokenRows(Automaton(tree, vocabulary.special), VocabularyRows.shared(vocabulary))


def spelled(vocabulary: Vocabulary, tokens: list[int]) -> list[str]:
    return [vocabulary.marker(token) or vocabulary.tokens[token].decode(errors="replace") for token in tokens]


WORDS = ("get", "get_", "_user", "_users", "order", '": "', '"}', "na", "name")


@pytest.mark.parametrize(
    ("tree", "tokens"),
    [
        # `_` may be the beginning of `_user`, and is left out where a user may follow.
        (Sequence((Literal("name_"), Choice((Literal("user"), Literal("order"))))), ["name"]),
        (Sequence((Literal("name_"), Choice((Literal("x"), Literal("y"))))), ["name", "_"]),
        (Sequence((Literal('name": "'), Leaf("WORD", "[a-z]+"))), ["name", '": "']),
        # What is forced up to the end depends on nothing.
        (Literal("get_user"), ["get_", "u", "s", "e", "r", "<|end|>"]),
        (Sequence((Marker("<call>"), Literal("name"), Marker("</call>"))), ["<call>", "name", "</call>", "<|end|>"]),
        (Sequence((Marker("<call>"), Leaf("WORD", "[a-z]+"))), ["<call>"]),
        # A character under way: é and ê share their first byte.
        (Sequence((Literal("na"), Choice((Literal("é"), Literal("ê"))))), ["na"]),
        (Leaf("WORD", "[a-z]+"), []),
    ],
)
def test_the_forced_tokens(tree: Sequence, tokens: list[str]) -> None:
    vocabulary = longest_first(WORDS, ("<call>", "</call>"))
    matcher = Matcher(rows_of(Grammar(tree), vocabulary))
    assert spelled(vocabulary, matcher.forced_tokens()) == tokens
    assert spelled(vocabulary, matcher.forced_tokens(2)) == tokens[:2]
    assert matcher.tokens == 0


def test_a_canonical_matcher_allows_the_forced_token_alone() -> None:
    vocabulary = longest_first(WORDS)
    rows = rows_of(Grammar(Sequence((Literal('name": "'), Choice((Literal("get"), Literal("order"))))), {}), vocabulary)
    canonical, free = Matcher(rows, canonical=True), Matcher(rows)
    for expected in ("name", '": "'):
        assert spelled(vocabulary, canonical.allowed().tolist()) == [expected]
        row = np.full(vocabulary.words, -1, np.int32)
        canonical.fill(row)
        assert np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little")).tolist() == canonical.allowed().tolist()
        assert len(free.allowed()) > 1
        for matcher in (canonical, free):
            assert matcher.advance(vocabulary.tokens.index(expected.encode()))
    assert canonical.allowed().tolist() == free.allowed().tolist()


def test_other_spellings_advance_a_canonical_matcher_too() -> None:
    """An engine may have sampled before it asks; what is legal text is never refused."""
    vocabulary = longest_first(WORDS)
    matcher = Matcher(rows_of(Grammar(Literal("namename")), vocabulary), canonical=True)
    assert spelled(vocabulary, matcher.forced_tokens()) == ["name", "name", "<|end|>"]
    for byte in b"nam":
        assert matcher.advance(byte)
    assert spelled(vocabulary, matcher.forced_tokens()) == ["e", "name", "<|end|>"]
    matcher.rollback(2)
    assert spelled(vocabulary, matcher.forced_tokens()) == ["a", "m", "e", "name", "<|end|>"]
    matcher.rollback(1)
    assert spelled(vocabulary, matcher.forced_tokens()) == ["name", "name", "<|end|>"]


def test_a_tokenizer_that_changes_text_spells_nothing() -> None:
    vocabulary = byte_vocabulary()
    lowering = Vocabulary(vocabulary.tokens, {}, vocabulary.eos, lambda text: list(text.lower().encode()))
    matcher = Matcher(rows_of(Grammar(Literal("Name")), lowering), canonical=True)
    assert matcher.forced_tokens() == []
    assert matcher.allowed().tolist() == [ord("N")]


def test_a_prefix_that_a_tokenizer_adds_is_not_spelled() -> None:
    """SentencePiece puts a space before a text."""
    plain = longest_first((" name", "name"))
    adding = Vocabulary(plain.tokens, {}, plain.eos, lambda text: plain.encode(f" {text}"))  # type: ignore[misc]
    matcher = Matcher(rows_of(Grammar(Literal("name")), adding), canonical=True)
    assert spelled(plain, matcher.forced_tokens()) == ["name", "<|end|>"]


def test_a_tokenizer_that_truncates_for_others_does_not_for_us() -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(demo_model_path())
    tokenizer("some text", truncation=True, max_length=2)
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    tokenizer("some text", truncation=True, max_length=2)
    matcher = Matcher(rows_of(Grammar(Literal('{"name": "get_order"}')), vocabulary))
    assert len(matcher.forced_tokens()) > 4


def test_a_token_that_is_added_beyond_a_models_vocabulary_is_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM adds one for embeddings in prompts, behind the back of the vocabulary that it keeps."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(demo_model_path())
    plain, kept = Vocabulary.from_tokenizer(tokenizer), dict(tokenizer.get_vocab())
    tokenizer.add_tokens(["<prompt_embeds>"], special_tokens=True)
    monkeypatch.setattr(tokenizer, "get_vocab", lambda: kept)
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    assert (vocabulary.size, vocabulary.special) == (plain.size, plain.special)


@settings(max_examples=60 * SCALE, deadline=None)
@given(grammars, st.integers(0, 1 << 30))
def test_a_text_as_its_tokenizer_writes_it_is_always_allowed(grammar: Grammar, seed: int) -> None:
    rng, tokens = random.Random(seed), demo_tokenization()
    rows = rows_of(grammar, tokens.vocabulary)
    for _ in range(3):
        text = sample(grammar, rng)
        matcher = Matcher(rows, canonical=True)
        for token in tokens.encode(text):
            assert token in matcher.allowed(), (text, token)
            assert matcher.advance(token)
        assert matcher.may_end


@settings(max_examples=40 * SCALE, deadline=None)
@given(grammars, st.integers(0, 1 << 30))
def test_canonical_walks_within_any_budget_end_in_a_whole_text(grammar: Grammar, seed: int) -> None:
    rng, vocabulary = random.Random(seed), longest_first(tuple("".join(p) for p in ("ab", "abc", '"a', "01", "b,", "éa")))
    rows = rows_of(grammar, vocabulary)
    budget = Matcher(rows).fewest_tokens + rng.randint(0, 4)
    matcher, text = Matcher(rows, budget, canonical=True), b""
    while matcher.tokens < budget and not matcher.finished:
        forced, allowed = matcher.forced_tokens(), matcher.allowed()
        if forced:
            assert allowed.tolist() == forced[:1]
        token = int(rng.choice(allowed))
        assert matcher.advance(token)
        text += vocabulary.tokens[token]
    assert rows.automaton.accepts(text)


@settings(max_examples=40 * SCALE, deadline=None)
@given(grammars, st.integers(0, 1 << 30), st.none() | st.integers(0, 9))
def test_forced_tokens_are_what_a_canonical_matcher_allows_one_by_one(grammar: Grammar, seed: int, spare: int | None) -> None:
    """Within a budget too, whose spelling may need fewer tokens than the tokenizer's; and where several tokens end a text."""
    rng, tokens = random.Random(seed), demo_tokenization()
    rows = rows_of(grammar, tokens.vocabulary)
    budget = None if spare is None else Matcher(rows).fewest_tokens + spare
    matcher = Matcher(rows, budget, canonical=True, eos=[0, *tokens.vocabulary.eos])
    for _ in range(12):
        forced = matcher.forced_tokens()
        for taken, token in enumerate(forced):
            assert matcher.allowed().tolist() == [token]
            assert matcher.forced_tokens() == forced[taken:]
            assert matcher.advance(token)
        matcher.rollback(len(forced))
        assert matcher.forced_tokens() == forced
        allowed = matcher.allowed()
        if not len(allowed):
            break
        assert matcher.advance(int(rng.choice(allowed)))


def test_a_token_that_ends_a_text_spells_nothing_in_it() -> None:
    """As where a request has `stop_token_ids` of its own: the engine ends the text there, so it must be whole."""
    vocabulary = byte_vocabulary(("ab", "b]"))
    rows = rows_of(Grammar(Leaf("LIST", r"\[[ab]*\]")), vocabulary)
    stop = vocabulary.tokens.index(b"ab")
    for canonical in (False, True):
        matcher = Matcher(rows, eos=[stop, ord("]")], canonical=canonical)
        assert matcher.advance(ord("["))
        assert stop not in matcher.allowed()
        assert not matcher.advance(stop)
        assert {ord("a"), ord("b")} < set(matcher.allowed().tolist())
        assert matcher.advance_all([ord("a"), vocabulary.tokens.index(b"b]")])
        ends = [ord("]")] if canonical else [ord("]"), stop]
        assert matcher.allowed().tolist() == ends
        bits = np.zeros(vocabulary.words, np.int32)
        matcher.fill(bits)
        assert np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little")).tolist() == ends


def test_llguidance_forces_the_same_tokens(demo_tokens: Tokenization) -> None:
    """llguidance narrows its masks in the same way by default. Walked at random, over the workload's turns."""
    rng, met = random.Random(1), Counter[str]()
    for tokens, walks in ((demo_tokens, 12 * SCALE), (largest_tokenization(), 2)):
        peer = GuidanceArm(tokens, forcing=True)
        for case in make_cases(2):
            compiled = peer.compile(peer.text(case))
            for _ in range(walks):
                ours = Matcher(case.grammar._rows(tokens.vocabulary), canonical=True)
                theirs = compiled.start()
                for _ in range(60):
                    allowed = ours.allowed()
                    theirs.fill()
                    their = np.flatnonzero(np.unpackbits(theirs.row.view(np.uint8), bitorder="little"))
                    met["forced" if len(their) == 1 else "open"] += 1
                    assert allowed.tolist() == their.tolist()
                    token = int(rng.choice(allowed))
                    assert ours.advance(token)
                    if ours.finished:
                        break
                    assert theirs.accept(token)
    assert min(met["forced"], met["open"]) > 500, met


def test_a_budget_goes_before_canonical_spelling() -> None:
    """A tokenizer may take more tokens for a text than the fewest that spell it."""
    plain = byte_vocabulary(("name",))
    vocabulary = Vocabulary(plain.tokens, {}, plain.eos, lambda text: list(text.encode()))
    rows = rows_of(Grammar(Literal("name")), vocabulary)
    assert Matcher(rows, 5, canonical=True).allowed().tolist() == [ord("n")]
    tight = Matcher(rows, 3, canonical=True)
    assert tight.allowed().tolist() == [256]


def test_a_grammar_of_another_kind_has_no_runs() -> None:
    matcher = compile_regex("[a-z]+").matcher(longest_first(WORDS))
    assert matcher.forced_tokens() == []


def _is_text(data: bytes) -> bool:
    """Whether bytes end with a whole character."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@settings(max_examples=60 * SCALE, deadline=None)
@given(grammars, st.integers(0, 1 << 30))
def test_tokens_are_taken_at_once_as_they_are_one_by_one(grammar: Grammar, seed: int) -> None:
    """Or not at all; wherever forced tokens were asked for before.

    A run that was looked for before it goes on within a character; none begins there.
    """
    rng, tokens = random.Random(seed), demo_tokenization()
    rows = rows_of(grammar, tokens.vocabulary)
    at_once, singly = (Matcher(rows, canonical=rng.random() < 0.5) for _ in range(2))
    text, taken = [*tokens.encode(sample(grammar, rng)), tokens.vocabulary.eos[0]], b""
    while text:
        if rng.random() < 0.7:
            at_once.forced_tokens()
        count = rng.randrange(len(text) + 1)
        wrong = [*text[:count], rng.randrange(tokens.vocabulary.size)]
        if all(singly.advance(token) for token in wrong):
            assert at_once.advance_all(wrong)
            at_once.rollback(len(wrong))
            singly.rollback(len(wrong))
        else:
            assert not at_once.advance_all(wrong)
            singly.rollback(singly.tokens - at_once.tokens)
        part, text = text[:count], text[count:]
        assert at_once.advance_all(part)
        assert all(singly.advance(token) for token in part)
        assert at_once.tokens == singly.tokens
        assert at_once.finished == singly.finished
        taken += b"".join(tokens.vocabulary.tokens[token] for token in part)
        forced, of_single = at_once.forced_tokens(), singly.forced_tokens()
        assert forced == of_single or not (_is_text(taken) or (forced and of_single))
        assert at_once.fewest_tokens == singly.fewest_tokens
    with pytest.raises(VocabularyError):
        Matcher(rows).advance_all([*tokens.encode(sample(grammar, rng))[:1], tokens.vocabulary.size])
