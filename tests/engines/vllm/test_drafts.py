"""Drafts of forced text in a real engine: nothing but the number of passes changes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from routine_grammar.automaton.automaton import Automaton
from routine_grammar.engines.vllm import drafts
from routine_grammar.errors import EngineError
from routine_grammar.grammar.tree import Grammar as Tree
from routine_grammar.grammar.tree import Leaf
from routine_grammar.masks.leaf_rows import VocabularyRows
from routine_grammar.masks.rows import TokenRows
from tests.scale import SCALE
from tests.vocabularies import byte_vocabulary

pytestmark = pytest.mark.engine

EQUAL_LOGITS = 1e-4  # closer than this, either of the two likeliest tokens may come out the likelier
SURE = 1e-3


def went(way: str, count: int) -> Any:
    """What came out of an engine that drafts."""
    command = [sys.executable, "-m", "tests.engines.vllm.drafted_engine", way, str(count)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300 * SCALE, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout.splitlines()[-1])


def is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two samples are equal, log-probabilities too; if not, they part where two tokens are equally likely."""
    for place, (ours, theirs) in enumerate(zip(one["tokens"], other["tokens"], strict=False)):
        if ours != theirs:
            first, second = one["best"][place]
            assert first - second < EQUAL_LOGITS, (place, one["text"], other["text"])
            return False
        if other["taken"]:
            assert one["taken"][place] == pytest.approx(other["taken"][place], abs=1e-3)
    assert one["text"] == other["text"]
    assert one["reason"] == other["reason"]
    return True


def test_greedy_outputs_are_the_same_with_and_without_drafts() -> None:
    """Beside free requests with stop strings, under preemption, with prompts in chunks and from the cache, in tight budgets."""
    count = 24 * SCALE
    found = went("greedy", count)
    undrafted, drafted, certain, *few = found["runs"]
    assert found["preemptions"] > 0
    assert (undrafted["accepted"], undrafted["verified"]) == (0, 0)
    assert (drafted["accepted"] > 10 * count, drafted["verified"] > 10) == (True, True)
    assert (certain["accepted"] > 10 * count, certain["verified"]) == (True, 0)
    assert min(few[-1]["cached"]) > 0
    for run in found["runs"]:
        assert all(run["whole"])
        assert any(each["reason"] == "stop" for each in run["free"])
    apart = 0
    for run in (drafted, certain, *few):
        for kind in ("held", "free"):
            apart += sum(not is_same(*pair) for pair in zip(undrafted[kind], run[kind], strict=run in (drafted, certain)))
    print(f"{apart} samples parted where two tokens were equally likely")
    assert apart <= 0.05 * count


def test_requests_beside_aborted_ones_are_left_alone() -> None:
    found = went("aborted", 16)
    undisturbed, finished = found["undisturbed"], found["finished"]
    whole = {number: sample for number, sample in finished.items() if sample["reason"] != "abort"}
    assert 4 <= len(whole) < 16
    assert sum(not is_same(undisturbed[int(number)], sample) for number, sample in whole.items()) <= 1


def homogeneity(one: Mapping[str, int], other: Mapping[str, int]) -> float:
    """The probability that two counts of one distribution differ as much: a chi-square test, by Wilson and Hilferty."""
    both = Counter(one) + Counter(other)
    share = sum(one.values()) / both.total()
    statistic = sum(
        (counts.get(text, 0) - total * part) ** 2 / (total * part)
        for text, total in both.items()
        for counts, part in ((one, share), (other, 1 - share))
    )
    freedom = len(both) - 1
    z = ((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))
    return math.erfc(z / math.sqrt(2)) / 2


def test_the_test_of_distributions_tells_them_apart() -> None:
    assert homogeneity({"a": 500, "b": 520, "c": 980}, {"a": 480, "b": 540, "c": 980}) > 0.3
    assert homogeneity({"a": 500, "b": 520, "c": 980}, {"a": 400, "b": 620, "c": 980}) < SURE


def test_samples_are_of_one_distribution_with_and_without_drafts() -> None:
    """In both spellings; among all spellings drafts are often rejected, so that vLLM samples anew behind them."""
    found = went("sampled", 20_000 if SCALE > 1 else 1_000)
    for spelling in ("canonical", "any"):
        drafted, undrafted = (found[f"{spelling} {name}"] for name in ("drafted", "undrafted"))
        assert (undrafted["draft"], drafted["draft"] > 0) == (0, True)
        assert len(drafted["texts"]) == 8
        assert homogeneity(drafted["texts"], undrafted["texts"]) > SURE, (spelling, drafted["texts"], undrafted["texts"])
    rejected = {
        spelling: 1 - (run := found[f"{spelling} drafted"])["accepted"] / run["draft"] for spelling in ("canonical", "any")
    }
    assert rejected["canonical"] < 0.1 < rejected["any"], rejected


def test_drafts_take_no_blocks_of_the_cache_that_others_need() -> None:
    undrafted, drafted = went("put_off", 0)
    assert drafted["texts"] == undrafted["texts"]
    assert 0 < drafted["preemptions"] <= undrafted["preemptions"]


def test_drafts_leave_room_for_a_prompt_that_is_taken_as_a_whole() -> None:
    found = went("waiting", 7)
    assert found["drafted"] == found["undrafted"]


def test_a_seed_gives_one_text_drafted_or_not_whoever_is_beside_it() -> None:
    found = went("seeded", 12)
    for way in ("canonical", "any", "in 64 bits"):
        undrafted, *others = found[way]
        assert len(set(undrafted)) == len(undrafted)
        assert all(texts == undrafted for texts in others), way
    assert found["canonical drafted"] > 100
    assert found["any drafted"] > 0, "of those beside them"


def test_penalties_count_what_was_drafted() -> None:
    found = went("penalised", 4)
    assert found["certain"] == found["undrafted"]
    assert found["verified"] == found["greedy"]
    assert (found["certain passes verified"], found["passes verified"] > 2) == (0, True)
    assert found["accepted"] > len(found["certain"])


def test_nothing_is_drafted_beside_a_budget_for_thinking() -> None:
    found = went("thinking", 8)
    assert found["drafted"] == found["undrafted"]
    assert found["undrafted"]["ended"] == [number % 4 == 1 for number in range(8)]
    assert (found["drafted"]["accepted"], found["without budgets"]["accepted"] > 10) == (0, True)


def test_requests_beside_drafts_keep_all_that_vllm_offers() -> None:
    found = went("beside", 2)
    assert found["biased"] == "aaaaaa"
    assert found["narrow"] == found["likeliest"]
    assert found["accepted"] > 50
    certain, of_workers, verified = found["proposals asked for"]
    assert (certain, of_workers, verified > 0) == (0, 0, True), "of a proposer that knows nothing"
    assert (found["drafted by those that are not"], found["whole"]) == (0, [True] * 2)
    assert found["asked for"] == [True] * 6
    assert all(found["beside it"])


@pytest.mark.filterwarnings("ignore")
def test_the_end_of_thinking_is_forced_upon_its_own_request() -> None:
    """In an engine that speculates, in passes without drafts; vLLM alone forces it upon the first request."""
    from vllm.v1.sample.logits_processor.interface import BatchUpdate
    from vllm.v1.sample.thinking_budget_state import ThinkingBudgetStateHolder

    from routine_grammar.engines.vllm.plugin import register

    register()
    start, end, other = 5, 6, 7
    said = []
    for drafts_of_engine in (0, 16):
        config = SimpleNamespace(reasoning_start_token_ids=[start], reasoning_end_token_ids=[end])
        holder = ThinkingBudgetStateHolder(config, 4, drafts_of_engine, torch.device("cpu"), False)
        outputs: list[list[int]] = [[], [], []]
        budgets = [SimpleNamespace(thinking_token_budget=budget) for budget in (None, None, 3)]
        added = [(row, params, [1, start], outputs[row]) for row, params in enumerate(budgets)]
        holder.sync_batch(BatchUpdate(batch_size=3, removed=[], moved=[], added=added))
        for _ in range(8):
            logits = torch.zeros(3, 12)
            logits[:, other] = 1
            holder.update_state(outputs, [[], [], []], repeat_indices=None)
            for output, token in zip(outputs, holder.apply_to_logits(logits, False, [[], [], []]).argmax(-1), strict=True):
                output.append(int(token))
        said.append(outputs)
    assert said[0] == said[1]
    assert [end in output for output in said[1]] == [False, False, True]


@pytest.mark.filterwarnings("ignore")
def test_a_budget_is_counted_from_where_the_grammar_begins() -> None:
    """A pass may verify another's drafts over the end of reasoning: masks are asked for before the request counts them."""
    from routine_grammar.engines.vllm.request_grammar import RoutineGrammar

    vocabulary = byte_vocabulary()
    rows = TokenRows(Automaton(Tree(Leaf("LETTERS", "[a-z]*!"))), VocabularyRows.shared(vocabulary))
    for drafted in range(4):
        request = SimpleNamespace(output_token_ids=[1] * 5)
        grammar = RoutineGrammar(rows, vocabulary.eos)
        grammar.bind(20, request, ahead=3)
        masks = torch.zeros((1, vocabulary.words), dtype=torch.int32)
        grammar.fill_bitmask(masks, 0)  # behind `drafted` tokens that are not counted yet
        request.output_token_ids += [1] * drafted
        while len(request.output_token_ids) < 20 and not grammar.is_terminated():
            token = talkative(masks[0])
            assert grammar.accept_tokens("r", [token])
            request.output_token_ids.append(token)
            if not grammar.is_terminated():
                grammar.fill_bitmask(masks, 0)
        assert grammar.is_terminated() or ord("!") in request.output_token_ids, drafted


def talkative(mask: torch.Tensor) -> int:
    """An allowed letter, where there is one."""
    words = mask.tolist()
    allowed = [token for token in range(257) if words[token >> 5] >> (token & 31) & 1]
    return next((token for token in allowed if token in range(ord("a"), ord("z") + 1)), allowed[0])


def test_others_have_half_of_a_pass() -> None:
    assert [drafts.room_for_drafts(running, 2048) for running in (1, 32, 128)] == [1024, 32, 8]


def test_forced_text_is_drafted_beside_speculation_over_the_prompt() -> None:
    found = went("ngram", 3)
    assert all(found["whole"])
    assert found["accepted"] > 0.6 * found["tokens"]
    assert found["drafted for free requests"] > 0
    assert found["narrow"] == [True] * 2, "in passes without drafts"
    assert found["asked for"] == [True] * 6


def test_a_number_of_drafts_has_bounds() -> None:
    assert drafts.speculative_config(4)["num_speculative_tokens"] == 4
    for number in (0, 129):
        with pytest.raises(EngineError, match=f"{number} drafts a pass: expected 1 to 128"):
            drafts.speculative_config(number)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("is_sound", [True, False])
def test_an_expand_kernel_is_replaced_where_it_is_found_unsound(monkeypatch: pytest.MonkeyPatch, is_sound: bool) -> None:
    from vllm.platforms import current_platform
    from vllm.utils import cpu_triton_utils

    from routine_grammar.engines.vllm.draft_patches import expand, patch_expand

    calls = list[int]()

    def theirs(output: Any, input_val: Any, cu_num_tokens: Any, replace_from: Any, replace_to: Any, *_: Any) -> None:
        calls.append(len(output))
        if is_sound:
            expand(output, input_val, cu_num_tokens, replace_from, replace_to)

    monkeypatch.setattr(type(current_platform), "is_cpu", lambda _: True)
    monkeypatch.setattr(cpu_triton_utils, "_expand_kernel_impl", theirs)
    patch_expand()
    for _ in range(2):
        output = torch.full((5,), torch.nan)
        cpu_triton_utils._expand_kernel_impl(output, torch.tensor([0.5, 0.0]), torch.tensor([2, 5]), 0, 1, 16)
        assert output.tolist() == [0.5, 0.5, 1.0, 1.0, 1.0]
    assert calls == ([3, 5, 5] if is_sound else [3])


@pytest.mark.filterwarnings("ignore")
def test_what_an_expand_kernel_does_to_floats_is_probed() -> None:
    from routine_grammar.engines.vllm.draft_patches import expand, expands_floats

    assert expands_floats(expand)
    assert not expands_floats(lambda output, *_: output.to(torch.int64).zero_())
    numbers = torch.zeros(5, dtype=torch.int32)
    expand(numbers, torch.tensor([3, 7]), torch.tensor([2, 5]), 0, 0)
    assert numbers.tolist() == [3, 3, 7, 7, 7]
