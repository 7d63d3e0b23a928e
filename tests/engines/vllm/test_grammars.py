"""Grammars in a process: what is kept of them stays within bounds, and what was let go is made again."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from transformers import AutoTokenizer

from routine_grammar.api import Grammar, compile_schema
from routine_grammar.automaton import leaf
from routine_grammar.automaton.automaton import Automaton
from routine_grammar.automaton.leaf import LeafLibrary
from routine_grammar.demo.model import demo_model_path
from routine_grammar.engines.vllm import grammars
from routine_grammar.engines.vllm.grammars import CompiledGrammars
from routine_grammar.masks import leaf_rows
from routine_grammar.masks.distinct import rows_of
from routine_grammar.masks.leaf_rows import VocabularyRows
from routine_grammar.masks.matcher import Matcher
from routine_grammar.masks.vocabulary import Vocabulary
from tests.scale import SCALE

MEBIBYTE = 2**20


def new_vocabulary() -> Vocabulary:
    return Vocabulary.from_tokenizer(AutoTokenizer.from_pretrained(demo_model_path()))


@pytest.fixture
def compiled() -> CompiledGrammars:
    return CompiledGrammars(new_vocabulary())


def schemas(count: int) -> Iterator[Grammar]:
    """Grammars of which each has names and patterns of its own."""
    rng = random.Random(7)
    for number in range(count):
        letters = "".join(rng.sample("abcdefghij", 4))
        yield compile_schema(
            {
                "type": "object",
                "properties": {
                    f"name_{number}": {"type": "string", "pattern": f"^[{letters}]+{number}$"},
                    f"count_{number}": {"type": "integer", "minimum": number},
                    "text": {"type": "string", "maxLength": 20 + number},
                },
                "required": [f"name_{number}", "text"],
            }
        )


def follow(matcher: Matcher, seed: int) -> list[bytes]:
    """The rows of a random walk to the end within a budget."""
    rng = random.Random(seed)
    rows = []
    matcher.limit(matcher.fewest_tokens + 12)
    while not matcher.finished:
        row = np.zeros(matcher.words, np.int32)
        matcher.fill(row)
        rows.append(row.tobytes())
        assert matcher.advance(int(rng.choice(matcher.allowed().tolist())))
    return rows


def test_what_was_let_go_is_made_again(compiled: CompiledGrammars, monkeypatch: pytest.MonkeyPatch) -> None:
    """With bounds that hold next to nothing all rows are what they are in a library of their own."""
    monkeypatch.setattr(grammars, "MAX_COMPILED_BYTES", 400_000)
    monkeypatch.setattr(grammars, "COUNTED_EVERY", 2)
    monkeypatch.setattr(leaf, "MAX_BYTES", 200_000)
    monkeypatch.setattr(leaf_rows, "MAX_LEAF_BYTES", 20_000)
    monkeypatch.setattr(leaf_rows, "MAX_REACH_BYTES", 20_000)
    libraries, listed = set(), list(schemas(12))
    alone = []
    for number, grammar in enumerate(listed):
        vocabulary = new_vocabulary()
        rows = rows_of(Automaton(grammar.tree, vocabulary.special, LeafLibrary()), vocabulary)
        alone.append(follow(Matcher(rows), number))
    under_way = [Matcher(compiled.rows(grammar.payload)) for grammar in listed]
    for number, grammar in [*enumerate(listed), *enumerate(listed)]:
        found = compiled.rows(grammar.payload)
        libraries.add(found.automaton.library)
        assert follow(Matcher(found), number) == alone[number]
        assert len(compiled) < 12
        assert compiled.nbytes < 600_000
    assert [follow(matcher, number) for number, matcher in enumerate(under_way)] == alone
    assert len(libraries) > 2


def test_a_vocabulary_keeps_the_rows_of_the_library_in_use(compiled: CompiledGrammars) -> None:
    rows = VocabularyRows.shared(compiled.vocabulary)
    assert VocabularyRows.shared(compiled.vocabulary) is rows
    other = VocabularyRows.shared(compiled.vocabulary, LeafLibrary())
    assert VocabularyRows.shared(compiled.vocabulary, other.library) is other
    assert VocabularyRows.shared(compiled.vocabulary).library is LeafLibrary.shared()


def test_the_bytes_of_a_grammar_are_told_as_they_grow(compiled: CompiledGrammars) -> None:
    (grammar,) = schemas(1)
    rows = compiled.rows(grammar.payload)
    before = rows.nbytes
    follow(Matcher(rows), 1)
    assert 10_000 < before < rows.nbytes < 2 * MEBIBYTE


def test_grammars_in_turn_leave_memory_flat(compiled: CompiledGrammars, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is compiled and followed once, and none is asked for again."""
    bounds = SimpleNamespace(count=10_000, settled=4_000) if SCALE > 1 else SimpleNamespace(count=900, settled=500)
    monkeypatch.setattr(grammars, "MAX_COMPILED_BYTES", 32 * MEBIBYTE)
    monkeypatch.setattr(leaf, "MAX_BYTES", 8 * MEBIBYTE)
    process, settled = psutil.Process(), 0
    for number, grammar in enumerate(schemas(bounds.count)):
        follow(Matcher(compiled.rows(grammar.payload)), number)
        if number == bounds.settled:
            gc.collect()
            settled = process.memory_info().rss
    gc.collect()
    assert process.memory_info().rss - settled < 64 * MEBIBYTE
