from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest

from benchmarks.arms import make_arms
from benchmarks.compile_and_mask import DisagreementError, check_case
from benchmarks.vocabularies import Tokenization
from benchmarks.workload import COMPILED, PLAIN, Case, make_case, make_cases
from routine_grammar.api import compile_regex
from tests.vocabularies import byte_vocabulary

BYTES = Tokenization("bytes", byte_vocabulary(('": "', "}}", "memory_")), lambda text: list(text.encode()))


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return make_cases(5)


def test_the_same_seed_draws_the_same_cases(cases: list[Case]) -> None:
    for case, again in zip(cases, make_cases(5), strict=True):
        assert (case.name, case.samples, case.invalid) == (again.name, again.samples, again.invalid)
        assert case.grammar.payload == again.grammar.payload
    assert make_case("small", 5, seed=1).grammar.payload != make_case("small", 5, seed=2).grammar.payload


def test_cases_have_the_sizes_they_claim(cases: list[Case]) -> None:
    assert [case.name for case in cases] == [*COMPILED, *map(PLAIN.format, COMPILED)]
    for case in cases[: len(COMPILED)]:
        lark = case.grammar.lark
        size = COMPILED[case.name]
        assert lark.count('TOOL_CALL_MARKER "\\n') == size.tools
        assert lark.count('"\\"memory_input_') == size.keys


@pytest.mark.parametrize(("size", "seed"), list(product(COMPILED, range(3))))
def test_samples_are_on_their_side_of_the_turn(size: str, seed: int) -> None:
    case = make_case(size, 10, seed)  # raises where one is not
    assert len(set(case.samples)) > 5
    assert len(set(case.invalid)) == 10


def test_a_plain_string_may_spell_a_marker(cases: list[Case]) -> None:
    medium, plain = cases[1], cases[1 + len(COMPILED)]
    sample = next(text for text in make_case("medium", 20).samples if '."' in text)
    spoiled = sample.replace('."', '.</tool_call>"')
    assert [case.grammar.accepts(sample) for case in (medium, plain)] == [True, True]
    assert [case.grammar.accepts(spoiled) for case in (medium, plain)] == [False, True]


@pytest.mark.filterwarnings("ignore")
def test_all_arms_agree_over_single_bytes(cases: list[Case]) -> None:
    arms = make_arms(BYTES)
    for case in cases:
        check_case(case, arms, BYTES)


def _allow_less(case: Case) -> Case:
    return Case(case.name, case.grammar, (*case.samples, "no call"), ())


def _allow_more(case: Case) -> Case:
    return Case(case.name, case.grammar, (), case.samples[:1])


def _mean_something_else(case: Case) -> Case:
    return Case(case.name, compile_regex("[a-z]+"), case.samples, ())


@pytest.mark.parametrize(
    ("change", "message"), [(_allow_less, "refuses 'no call'"), (_allow_more, "allows"), (_mean_something_else, "refuses")]
)
def test_arms_that_differ_are_not_timed(cases: list[Case], change: Callable[[Case], Case], message: str) -> None:
    with pytest.raises(DisagreementError, match=message):
        check_case(change(cases[0]), make_arms(BYTES)[:1], BYTES)
