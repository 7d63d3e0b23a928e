"""What turns of every dialect accept, judged by `re` and by llguidance, over bytes and with the markers as tokens."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from routine_grammar.api import CompiledRoutine, Turn, compile_routine
from routine_grammar.demo.catalogue import demo_routines, demo_tools
from routine_grammar.errors import RoutineError
from routine_grammar.grammar.dialects import dialect_names, load_dialect
from routine_grammar.masks.vocabulary import Vocabulary
from tests.grammar.dialect_calls import compiled
from tests.grammar.peer import PeerMatcher, peer_tokenizer
from tests.grammar.samples import Sampler
from tests.grammar.test_turn_judges import edited
from tests.scale import SCALE
from tests.vocabularies import byte_vocabulary

DIALECTS = sorted(set(dialect_names()) - {"hermes"})  # which test_turn_judges.py has


def routines(dialect: str) -> list[CompiledRoutine]:
    found = [compiled(dialect)]
    for routine in demo_routines():
        try:
            found.append(compile_routine(routine, demo_tools(), dialect=dialect))
        except RoutineError as error:
            assert "lets no text stand there" in str(error)  # noqa: PT017  (a header is needed)
            assert dialect == "llama3_json"
    return found


def encoded(text: str, vocabulary: Vocabulary) -> list[int]:
    """A text as bytes, and markers as tokens where they are some."""
    special = [name for name in vocabulary.special if name != "<|end|>"]
    parts = re.split(f"({'|'.join(map(re.escape, special))})", text) if special else [text]
    return [token for part in parts for token in ([vocabulary.special[part]] if part in special else part.encode())]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_re_and_llguidance_accept_what_a_turn_accepts(dialect: str) -> None:
    vocabularies = [byte_vocabulary(), byte_vocabulary(special=load_dialect(dialect).markers)]
    tokenizers = [peer_tokenizer(vocabulary) for vocabulary in vocabularies]
    turns: list[Turn] = [
        each.turn(position, each.graph.keys_before(position)[1])
        for each in routines(dialect)
        for position in each.graph.positions
    ]
    rng, counts = random.Random(1), Counter[bool]()
    for turn in turns:
        pattern = re.compile(turn.regex)
        flavours = [turn.lark_for("llguidance", vocabulary) for vocabulary in vocabularies]
        peers = [PeerMatcher(tokenizer, lark) for tokenizer, lark in zip(tokenizers, flavours, strict=True)]
        sampler = Sampler(turn.tree, 3)
        for _ in range(10 * SCALE):
            drawn = sampler.text()
            for data in (drawn.encode(), edited(drawn.encode(), rng)):
                accepted = turn._automaton.accepts(data)
                counts[accepted] += 1
                text = data.decode(errors="replace")
                assert data != text.encode() or (pattern.fullmatch(text) is not None) == accepted, text
                assert peers[0].accepts(list(data)) == accepted, text
                if data == text.encode():
                    assert peers[1].accepts(encoded(text, vocabularies[1])) == accepted, text
    assert min(counts[True], counts[False]) > 100
