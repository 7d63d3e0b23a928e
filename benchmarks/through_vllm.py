"""Masks and accepted tokens through vLLM's own interface: one request's, and a batch of 64 by vLLM's manager.

In: a vocabulary and the cases. Out: measurements a token of a sequence. Every arm's matchers stand behind vLLM's own grammar
classes, and every batch goes through vLLM's `StructuredOutputManager.grammar_bitmask`, with our patches in place, as in a
server.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from benchmarks.arms import LLGUIDANCE, OURS, XGRAMMAR, Arm, GuidanceArm, OurArm, XgrammarArm, make_arms
from benchmarks.results import Measurement, quantiles
from benchmarks.vocabularies import Tokenization
from benchmarks.workload import Case

BATCH = 64
ONE_MASK, ONE_MASK_P99, ONE_TAKEN = "one mask", "one mask p99", "one token taken"
MASK_OF_BATCH, TAKEN_OF_BATCH = f"a mask of {BATCH}", f"a token taken of {BATCH}"


def measure(
    tokenization: Tokenization, cases: Sequence[Case], rounds: int, advance: Callable[[str], None]
) -> list[Measurement]:
    """Follow samples of every case, one at a time and 64 at once, every place visited before: what a busy server sees.

    `advance` is told what was done, `count_steps` times.
    """
    from routine_grammar.engines.vllm.plugin import register

    register()
    arms = {arm.name: arm for arm in make_arms(tokenization) if arm.name in (OURS, LLGUIDANCE, XGRAMMAR)}
    found: dict[tuple[str, str, str], list[float]] = {}
    rng, words = random.Random(0), tokenization.vocabulary.words
    manager = make_manager(words)
    for case in cases:
        tokens = [tokenization.encode(text) for text in case.samples]
        compiled = {name: arm.compile(arm.text(case)) for name, arm in arms.items()}
        grammars = {name: grammar_of(arm, compiled[name], tokenization) for name, arm in arms.items()}
        for number in range(-1, rounds):  # the first round visits every place
            for name in rng.sample(list(arms), len(arms)):
                times = {**one_by_one(grammars[name], tokens, words), **at_once(manager, grammars[name], tokens)}
                for metric, value in times.items() if number >= 0 else ():
                    found.setdefault((case.name, name, metric), []).append(value)
            advance(f"{case.name}, {'warm-up' if number < 0 else f'round {number + 1}'}")
    return [quantiles(case, arm, metric, "µs", values) for (case, arm, metric), values in found.items()]


def count_steps(cases: Sequence[Case], rounds: int) -> int:
    """How often `measure` reports."""
    return len(cases) * (rounds + 1)


def grammar_of(arm: Arm, compiled: Any, tokenization: Tokenization) -> Callable[[], Any]:
    """What makes a sequence's grammar, as vLLM's manager holds it."""
    size = tokenization.vocabulary.size
    if isinstance(arm, OurArm):
        from routine_grammar.engines.vllm.request_grammar import RoutineGrammar

        def ours() -> Any:
            grammar = RoutineGrammar(compiled.rows, tokenization.vocabulary.eos)
            grammar.bind(4096)
            return grammar

        return ours
    if isinstance(arm, GuidanceArm):
        from vllm.v1.structured_output.backend_guidance import GuidanceGrammar

        return lambda: GuidanceGrammar(compiled.matcher.deep_copy(), arm.tokenizer, size)
    assert isinstance(arm, XgrammarArm)
    import xgrammar
    from vllm.v1.structured_output.backend_xgrammar import XgrammarGrammar

    return lambda: XgrammarGrammar(size, xgrammar.GrammarMatcher(compiled.compiled), compiled.compiled)


def one_by_one(make: Callable[[], Any], tokens: Sequence[Sequence[int]], words: int) -> Mapping[str, float]:
    """Microseconds of `fill_bitmask` and `accept_tokens`, a call each."""
    masks, taken = list[float](), list[float]()
    bitmask = torch.zeros((1, words), dtype=torch.int32)
    for sample in tokens:
        grammar = make()
        for token in sample:
            begin = perf_counter()
            grammar.fill_bitmask(bitmask, 0)
            filled = perf_counter()
            accepted = grammar.accept_tokens("0", [token])
            taken.append(1e6 * (perf_counter() - filled))
            masks.append(1e6 * (filled - begin))
            assert accepted
    return {ONE_MASK: fmean(masks), ONE_MASK_P99: float(np.percentile(masks, 99)), ONE_TAKEN: fmean(taken)}


def at_once(manager: Any, make: Callable[[], Any], tokens: Sequence[Sequence[int]]) -> Mapping[str, float]:
    """Microseconds a sequence of `grammar_bitmask` and of 64 times `accept_tokens`, until the shortest sample ends."""
    requests = {str(number): request_of(make()) for number in range(BATCH)}
    names, grammars = list(requests), [request.structured_output_request.grammar for request in requests.values()]
    samples = [tokens[number % len(tokens)] for number in range(BATCH)]
    masks, taken = list[float](), list[float]()
    for place in range(min(map(len, samples))):
        nexts = [[sample[place]] for sample in samples]
        begin = perf_counter()
        manager.grammar_bitmask(requests, names, {})
        filled = perf_counter()
        for name, grammar, token in zip(names, grammars, nexts, strict=True):
            grammar.accept_tokens(name, token)
        taken.append(1e6 * (perf_counter() - filled) / BATCH)
        masks.append(1e6 * (filled - begin) / BATCH)
    return {MASK_OF_BATCH: fmean(masks), TAKEN_OF_BATCH: fmean(taken)}


def request_of(grammar: Any) -> Any:
    """A request with a grammar, as far as vLLM's manager looks at it."""
    from vllm.v1.structured_output.request import StructuredOutputRequest

    return SimpleNamespace(structured_output_request=StructuredOutputRequest(None, grammar))


def make_manager(words: int) -> Any:
    """vLLM's manager, as far as it makes masks: for so many sequences, none of which thinks first."""
    from vllm.v1.structured_output import StructuredOutputManager

    manager: Any = object.__new__(StructuredOutputManager)
    manager.vllm_config = SimpleNamespace(num_speculative_tokens=0, model_config=SimpleNamespace(is_diffusion=False))
    manager.reasoner_cls, manager.enable_in_reasoning = None, True
    manager.fill_bitmask_parallel_threshold = 2 * BATCH
    manager._grammar_bitmask = torch.zeros((BATCH, words), dtype=torch.int32)
    manager._full_mask = torch.tensor(-1, dtype=torch.int32)
    return manager
