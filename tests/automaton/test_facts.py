from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from routine_grammar.automaton import pools
from routine_grammar.automaton.leaf import LeafLibrary
from routine_grammar.automaton.memory import Ints
from routine_grammar.automaton.skeleton import Skeleton
from routine_grammar.errors import GrammarError
from routine_grammar.grammar.program import Program
from routine_grammar.grammar.tree import Call, Grammar
from tests.automaton.reference_facts import Analysis, Facts
from tests.automaton.test_recursive_rules import recursive
from tests.grammars import grammars


def bits(words: Ints) -> int:
    return int.from_bytes(np.ascontiguousarray(words).tobytes(), "little")


def compiled(grammar: Grammar) -> dict[str, Facts]:
    """The facts of all rules, as compiled code finds them."""
    memory = Skeleton(Program.of(grammar), LeafLibrary.shared(), {})._memory
    found = {}
    for name, rule, sets in zip((*grammar.rules, "start"), memory.rules, memory.rule_bytes, strict=True):
        extends = bits(sets[pools.EXTENDS]) if rule[pools.DECIDED] else None
        shortest, farthest = int(rule[pools.SHORTEST]), int(rule[pools.FARTHEST])
        found[name] = Facts(bits(sets[pools.FIRST]), bool(rule[pools.NULLABLE]), extends, shortest, farthest)
    return found


@settings(max_examples=300, deadline=None)
@given(grammars | recursive)
def test_facts_are_those_of_the_reference(grammar: Grammar) -> None:
    rules = {**grammar.rules, "start": grammar.root}
    try:
        reference = Analysis(rules, LeafLibrary.shared(), {})
        found = compiled(grammar)
    except GrammarError:
        return
    for name, facts in found.items():
        assert facts == reference.rule(name), name


@pytest.mark.parametrize("name", ["r", "s"])
def test_a_rule_that_begins_with_itself_is_refused(name: str) -> None:
    other = "s" if name == "r" else "r"
    with pytest.raises(GrammarError, match="begins with itself"):
        compiled(Grammar(Call(name), {name: Call(other), other: Call(name)}))
