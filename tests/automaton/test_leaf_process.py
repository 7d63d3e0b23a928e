from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from routine_grammar.api import compile_regex
from routine_grammar.automaton.leaf import compile_leaf
from routine_grammar.automaton.leaf_process import _LeafProcess, compile_leaf_apart
from routine_grammar.errors import GrammarError, GrammarTooLargeError


def test_a_leaf_is_the_same_wherever_it_is_compiled() -> None:
    for pattern in ("a|ab", r"[^\"]{2,7}é*"):
        here, apart = compile_leaf(pattern), compile_leaf_apart(pattern)
        assert np.array_equal(here.table, apart.table)
        assert np.array_equal(here.accepting, apart.accepting)


@pytest.mark.parametrize("pattern", [r"(?:a|b)*a(?:a|b){40}", r"\p{L}{1,3000}", "(?:(?:a{100}){100}){100}"])
def test_patterns_that_need_too_much_are_refused_and_the_next_one_is_compiled(pattern: str) -> None:
    with pytest.raises(GrammarTooLargeError, match="the bound"):
        compile_regex(pattern)
    assert compile_regex("[0-9]{1,3}").accepts("42")


def test_errors_are_told_as_they_are() -> None:
    with pytest.raises(GrammarError, match="not a regular expression"):
        compile_leaf_apart("(")


def test_a_process_that_was_killed_is_started_again() -> None:
    compile_leaf_apart("x")
    process = _LeafProcess.of(os.getpid())._process
    assert process is not None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(compile_leaf_apart("xy").table) == 2
