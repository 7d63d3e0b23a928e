"""A grammar that fails as the rows of a batch are asked for ends its own request alone, whether requests may think or not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from routine_grammar.api import compile_regex
from routine_grammar.automaton.automaton import Automaton
from routine_grammar.engines.vllm.mask_patches import _rows_of
from routine_grammar.masks.distinct import rows_of
from tests.vocabularies import byte_vocabulary

VOCABULARY = byte_vocabulary(("ab",))
pytestmark = pytest.mark.filterwarnings("ignore")  # vLLM's own, as it is imported


def request() -> Any:
    pytest.importorskip("vllm")
    from routine_grammar.engines.vllm.request_grammar import RoutineGrammar

    grammar = RoutineGrammar(rows_of(Automaton(compile_regex("[ab]{3}").tree), VOCABULARY), VOCABULARY.eos)
    grammar.bind(64)
    return SimpleNamespace(structured_output_request=SimpleNamespace(_grammar=grammar))


@pytest.mark.parametrize("may_think", [False, True])
def test_a_grammar_that_fails_ends_its_request_alone(may_think: bool) -> None:
    bounds = SimpleNamespace(constraint_start=0)
    manager = SimpleNamespace(
        reasoner_cls=object if may_think else None,
        enable_in_reasoning=False,
        _get_constraint_bounds=lambda request, tokens: bounds,
    )
    requests = {name: request() for name in "xyz"}
    failing = requests["y"].structured_output_request._grammar
    failing._history.clear()
    rows = _rows_of(manager, requests, list(requests))
    assert rows is not None
    allowed = [row.allowed.tolist() for row in rows if row is not None]
    assert allowed[0] == allowed[2] != allowed[1] == [VOCABULARY.eos[0]]
    assert failing.accept_tokens("y", [VOCABULARY.eos[0]]) is False
    assert requests["x"].structured_output_request._grammar.accept_tokens("x", [ord("a")])
