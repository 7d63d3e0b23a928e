"""outlines-core as a judge of leaf automata: the same bytes are allowed at every place."""

from __future__ import annotations

import random
from functools import cache

import numpy as np
import outlines_core
from hypothesis import given, settings
from hypothesis import strategies as st

from routine_grammar.automaton.automaton import Automaton
from routine_grammar.errors import GrammarError
from routine_grammar.grammar.tree import Grammar, Leaf, Literal, Sequence
from tests.grammar.expressions import expressions
from tests.scale import SCALE

END = "\U0010ffff"  # behind every text: outlines-core stops at the first match in the order of alternatives


@cache
def single_bytes() -> outlines_core.Vocabulary:
    return outlines_core.Vocabulary(256, {bytes([byte]): [byte] for byte in range(256)})


@settings(max_examples=150 * SCALE, deadline=None)
@given(expressions(), st.integers(0, 1 << 30))
def test_the_same_bytes_are_allowed(expression: str, seed: int) -> None:
    rng = random.Random(seed)
    try:
        automaton = Automaton(Grammar(Sequence((Leaf("X", expression), Literal(END)))))
    except GrammarError:
        return
    index = outlines_core.Index(f"(?:{expression}){END}", single_bytes())
    transitions = index.get_transitions()
    for _ in range(5):
        row, state = automaton.start(), index.get_initial_state()
        while state not in index.get_final_states():
            allowed = np.flatnonzero(automaton.next_bytes(row)).tolist()
            # A byte that leads nowhere is no way for us; what outlines-core has for it must be none either.
            assert allowed == sorted(byte for byte in transitions[state] if byte < 256)
            byte = rng.choice([byte for byte in allowed if byte != 0xF4] or allowed)
            after = automaton.after(row, bytes((byte,)))
            assert after is not None
            row, state = after, transitions[state][byte]
            if rng.random() < 0.1:
                break
