"""A real engine that drafts forced text, in fp32, and the same requests with and without drafts.

In a process of its own: `python -m tests.engines.vllm.drafted_engine WAY COUNT`. Prints what came out as one line of JSON.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from routine_grammar import Vocabulary
from routine_grammar.api import Grammar, compile_regex
from routine_grammar.engines.vllm.drafts import REQUEST_OPTION, speculative_config
from routine_grammar.engines.vllm.settings import EngineSettings, Spelling
from tests.engines.vllm.small_engine import THINK_END, counted, engine, turns

if TYPE_CHECKING:
    from vllm import LLM, SamplingParams

# Few ways to go, so that the share of each is known well, and forced text of one and several tokens between them.
SMALL = compile_regex("(?:re(?:turned|funded)|sent|lost); (?:true|false)")
# Forced text between texts that are free.
FREE_BETWEEN = compile_regex(
    '\\{"order_id": "[a-z]{6,10}", "urgent_delivery": (?:true|false), "customer_note": "[a-z]{4,12}", "answer": "[a-z]{4,8}"\\}'
)
# What was forced before is chosen between later: a penalty has to count it.
CHOSEN_AGAIN = [
    compile_regex(text)
    for text in (
        "note answer order: (?:note|answer|order| note| answer| order) (?:a|b)",
        "customer_note customer_note: (?:customer|note|order|_note)(?:customer|note|order|_note)x",
        "abc abc abc (?:abc|a|b|c) (?:abc|ab|c|d) end",
        "true false (?:true|false) true (?:true|false) false (?:true|false)\\.",
    )
]
PENALTIES = [
    {name: value}
    for name, values in (("presence_penalty", (2, -2)), ("frequency_penalty", (2, -2)), ("repetition_penalty", (5, 0.2)))
    for value in values
]
LONG = compile_regex("[ab] " + 3 * "and more of what the customer wrote to us about the parcel is said here, " + "[cd]")
UNDRAFTED = {REQUEST_OPTION: 0}
DRAFTED: dict[str, Any] = {}
CROWDED: dict[str, Any] = {"num_gpu_blocks_override": 16, "block_size": 32, "max_model_len": 384, "max_num_batched_tokens": 128}


def drafting_engine(spelling: Spelling = Spelling.CANONICAL, drafts: int = 16, **options: Any) -> LLM:
    """A small engine in fp32."""
    config = EngineSettings(spelling=spelling).entry()
    given = {"dtype": "float32", "disable_log_stats": False, "speculative_config": speculative_config(drafts), **options}
    return engine(additional_config=config, **given)


def prompts(count: int) -> list[dict[str, list[int]]]:
    """Prompts that begin alike, for as long as a block of the cache is; every third is that block and one token."""
    block = [30 + place for place in range(32)]
    return [{"prompt_token_ids": [*block, 30 + (n * 7) % 60, 40 + n % 40][: 33 + (n % 3 > 0)]} for n in range(count)]


def told(output: Any) -> dict[str, Any]:
    """Tokens of the first sample with the log-probabilities of each, and those of the two likeliest."""
    (sample, *_) = output.outputs
    steps = [] if sample.logprobs is None else sample.logprobs
    taken = [step[token].logprob for token, step in zip(sample.token_ids, steps, strict=False)]
    best = [sorted((entry.logprob for entry in step.values()), reverse=True)[:2] for step in steps]
    return {"tokens": list(sample.token_ids), "text": sample.text, "taken": taken, "best": best, "reason": sample.finish_reason}


def jobs(
    count: int, arguments: dict[str, Any], vocabulary: Vocabulary, logprobs: int | None = 2
) -> list[tuple[Grammar, SamplingParams]]:
    """Turns of the demo, a third of them with a budget that has them end soon, a fourth with a penalty."""
    rng, listed = random.Random(5), turns()
    found: list[tuple[Grammar, SamplingParams]] = []
    for number in range(count):
        turn = listed[number % len(listed)]
        most = turn.fewest_tokens(vocabulary) + rng.randrange(12) if number % 3 == 0 else 200
        options = {"presence_penalty": 1.5} if number % 4 == 1 else {}
        params = turn.sampling_params(max_tokens=most, extra_args=arguments, temperature=0.0, logprobs=logprobs, **options)
        found.append((turn, params))
    return found


def count_verified() -> Counter[str]:
    """Counts the passes whose drafts vLLM verifies from now on."""
    from vllm.v1.sample.rejection_sampler import RejectionSampler

    counts, original = Counter[str](), RejectionSampler.forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        counts["passes"] += 1
        return original(self, *args, **kwargs)

    RejectionSampler.forward = forward
    return counts


def count_asked() -> Counter[str]:
    """Counts how often a worker is asked for proposals, or our proposer for one, from now on."""
    from vllm.v1.executor.abstract import Executor
    from vllm.v1.executor.uniproc_executor import UniProcExecutor

    from routine_grammar.engines.vllm.drafts import NoProposals

    counts = Counter[str]()
    for owner, name in (
        (Executor, "take_draft_token_ids"),
        (UniProcExecutor, "take_draft_token_ids"),
        (NoProposals, "propose"),
    ):
        original = getattr(owner, name)

        def counting(*args: Any, original: Any = original, name: str = name, **kwargs: Any) -> Any:
            counts[name] += 1
            return original(*args, **kwargs)

        setattr(owner, name, counting)
    return counts


def greedy(count: int) -> Any:
    """Drafted and not, with room for half of what runs, beside free requests with stop strings; then from the cache.

    Drafts are verified where log-probabilities are asked for, and certain where they are not.
    """
    from vllm import SamplingParams

    verified = count_verified()
    llm = drafting_engine(enable_prefix_caching=True, enable_chunked_prefill=True, **CROWDED)
    vocabulary = Vocabulary.from_tokenizer(llm.get_tokenizer())
    runs = []
    for arguments, held, likely in (
        (UNDRAFTED, count, 2),
        (DRAFTED, count, 2),
        (DRAFTED, count, None),
        (DRAFTED, 6, 2),
        (DRAFTED, 6, None),
    ):
        stops = [[chr(97 + n % 26), chr(65 + n % 26)] for n in range(count // 4)]
        free = [SamplingParams(temperature=0.0, max_tokens=30, logprobs=likely, stop=stop) for stop in stops]
        listed = jobs(count, arguments, vocabulary, likely)[:held]
        verified.clear()
        params = [*(params for _, params in listed), *free]
        before = counted(llm, "vllm:spec_decode_num_accepted_tokens")
        outputs = llm.generate([*prompts(count)[:held], *prompts(count + len(free))[count:]], params, use_tqdm=False)
        runs.append(
            {
                "held": [told(output) for output in outputs[:held]],
                "free": [told(output) for output in outputs[held:]],
                "whole": [turn.accepts(out.outputs[0].text) for (turn, _), out in zip(listed, outputs, strict=False)],
                "accepted": counted(llm, "vllm:spec_decode_num_accepted_tokens") - before,
                "verified": verified["passes"],
                "cached": [output.num_cached_tokens for output in outputs[:held]],
            }
        )
    return {"runs": runs, "preemptions": counted(llm, "vllm:num_preemptions")}


def aborted(count: int) -> Any:
    """Half of the requests are aborted on their way: the others say what they say undisturbed."""
    llm = drafting_engine(drafts=4)
    vocabulary = Vocabulary.from_tokenizer(llm.get_tokenizer())
    listed = jobs(count, DRAFTED, vocabulary)
    undisturbed = [told(o) for o in llm.generate(prompts(count), [params for _, params in listed], use_tqdm=False)]
    core, finished = llm.llm_engine, dict[str, Any]()
    again = jobs(count, DRAFTED, vocabulary, logprobs=None)
    for number, ((_, params), prompt) in enumerate(zip(again, prompts(count), strict=True)):
        core.add_request(str(number), prompt, params)
    for passes in range(1_000):
        if passes in (2, 3, 4):
            core.abort_request([str(number) for number in range(passes % 2, count, 4)], internal=False)
        finished |= {output.request_id: told(output) for output in core.step() if output.finished}
        if not core.has_unfinished_requests():
            break
    return {"undisturbed": undisturbed, "finished": finished}


def sampled(count: int) -> Any:
    """How often each text of a small grammar comes, by spelling, drafted and not; several samples a request.

    By random numbers that the engine's requests share, as those with a seed of their own are not drafted in every spelling.
    """
    found = {}
    for spelling in Spelling:
        llm = drafting_engine(spelling, 8, max_num_seqs=200)
        for name, arguments in {"drafted": DRAFTED, "undrafted": UNDRAFTED}.items():
            each = 50  # samples of a request
            options: dict[str, Any] = {"n": each, "max_tokens": 60, "extra_args": arguments}
            kinds = ({"temperature": 0.7, "top_p": 0.98}, {"temperature": 1.3, "top_k": 40}, {"temperature": 1.0})
            params = [SMALL.sampling_params(**options, **kinds[number % len(kinds)]) for number in range(count // each)]
            before = {what: counted(llm, f"vllm:spec_decode_num_{what}_tokens") for what in ("draft", "accepted")}
            outputs = llm.generate(prompts(1) * len(params), params, use_tqdm=False)
            texts = Counter(sample.text for output in outputs for sample in output.outputs)
            assert all(map(SMALL.accepts, texts)), texts
            gained = {what: counted(llm, f"vllm:spec_decode_num_{what}_tokens") - was for what, was in before.items()}
            found[f"{spelling} {name}"] = {"texts": texts, **gained}
        del llm
    return found


def put_off(_: int) -> Any:
    """How often requests are put off where the cache has little room, drafted and not."""
    from vllm import SamplingParams

    sizes: dict[str, Any] = {"num_gpu_blocks_override": 27, "block_size": 32, "max_model_len": 832}
    llm = drafting_engine(
        enable_prefix_caching=False, enable_chunked_prefill=True, max_num_batched_tokens=1024, max_num_seqs=4, **sizes
    )
    asked = [{"prompt_token_ids": [30 + place * 7 % 60 for place in range(length)]} for length in (290, 497)]
    found: list[dict[str, Any]] = []
    before = 0.0
    for arguments in (UNDRAFTED, DRAFTED):
        params = [
            SamplingParams(temperature=0.0, max_tokens=30, ignore_eos=True),
            LONG.sampling_params(temperature=0.0, max_tokens=300, extra_args=arguments),
        ]
        texts = [output.outputs[0].text for output in llm.generate(asked, params, use_tqdm=False)]
        found.append({"texts": texts, "preemptions": counted(llm, "vllm:num_preemptions") - before})
        before += found[-1]["preemptions"]
    return found


def waiting(count: int) -> Any:
    """After how many passes a prompt begins that has to be taken as a whole, so many calls beside it, drafted and not."""
    from vllm import SamplingParams

    llm = drafting_engine(
        enable_prefix_caching=False, enable_chunked_prefill=False, max_model_len=512, max_num_batched_tokens=512
    )
    core, found = llm.llm_engine, dict[str, int]()
    for name, arguments in (("undrafted", UNDRAFTED), ("drafted", DRAFTED)):
        for number in range(count):
            params = LONG.sampling_params(temperature=0.0, max_tokens=300, extra_args=arguments)
            core.add_request(f"{name} {number}", {"prompt_token_ids": [30 + number] * 8}, params)
        begun, passes = set[str](), -1  # since it was asked for
        while core.has_unfinished_requests():
            if passes < 0 and len(begun) == count:  # grammars are made beside the passes: which pass they begin in is left open
                params = SamplingParams(temperature=0.0, max_tokens=3, ignore_eos=True)
                core.add_request(name, {"prompt_token_ids": [40] * 500}, params)
                assert core.get_num_unfinished_requests() == count + 1
                passes = 0
            passes += passes >= 0
            begun |= {output.request_id for output in core.step()}
            if name in begun:
                found.setdefault(name, passes)
    return found


def seeded(count: int) -> Any:
    """Texts of seeded requests: undrafted, drafted, beside many others, and beside some who ask for log-probabilities."""
    found: dict[str, Any] = {}
    ways: tuple[tuple[dict[str, Any], int, dict[str, Any]], ...]
    ways = ((UNDRAFTED, 0, {}), (DRAFTED, 0, {}), (DRAFTED, 8, {}), (DRAFTED, 3, {"logprobs": 2}))
    for spelling in Spelling:
        llm = drafting_engine(spelling, enable_chunked_prefill=True, max_num_batched_tokens=128)
        found[spelling] = [seeded_texts(llm, count, *way) for way in ways]
        found[f"{spelling} drafted"] = counted(llm, "vllm:spec_decode_num_draft_tokens")
        del llm
    llm = drafting_engine(use_fp64_gumbel=True)
    found["in 64 bits"] = [seeded_texts(llm, count, *way) for way in ways[:3]]
    return found


def seeded_texts(llm: LLM, count: int, arguments: dict[str, Any], beside: int, options: dict[str, Any]) -> list[str]:
    """Texts of so many seeded requests, that many without a seed beside them."""
    kinds = ({"temperature": 1.0}, {"temperature": 0.7, "top_p": 0.9}, {"temperature": 1.0, "top_k": 30})
    asked = [
        FREE_BETWEEN.sampling_params(seed=seed, max_tokens=200, extra_args=arguments, **kinds[seed % 3])
        for seed in range(count)
    ]
    others = [turn.sampling_params(max_tokens=200, **options) for turn in (turns() * beside)[:beside]]
    outputs = llm.generate(prompts(count + beside), [*asked, *others], use_tqdm=False)
    return [output.outputs[0].text for output in outputs[:count]]


def penalised(count: int) -> Any:
    """Texts under penalties, greedy and seeded: without drafts, with certain ones, and with ones that are verified."""
    verified = count_verified()
    llm = drafting_engine(max_num_seqs=64)
    kinds = [{"temperature": 0.0}, *({"temperature": 1.0, "seed": seed} for seed in range(count))]
    asked = [(grammar, {**penalty, **kind}) for grammar in CHOSEN_AGAIN for penalty in PENALTIES for kind in kinds]
    found: dict[str, Any] = {}
    for name, arguments in {"undrafted": UNDRAFTED, "certain": DRAFTED}.items():
        params = [grammar.sampling_params(max_tokens=60, extra_args=arguments, **options) for grammar, options in asked]
        outputs = llm.generate(prompts(1) * len(params), params, use_tqdm=False)
        found[name] = [output.outputs[0].text for output in outputs]
    found["accepted"] = counted(llm, "vllm:spec_decode_num_accepted_tokens")
    found["certain passes verified"] = verified["passes"]
    greedy = [grammar.sampling_params(max_tokens=60, logprobs=1, **kind) for grammar, kind in asked if "seed" not in kind]
    outputs = llm.generate(prompts(1) * len(greedy), greedy, use_tqdm=False)
    found["verified"] = [output.outputs[0].text for output in outputs]
    found["greedy"] = [text for text, (_, kind) in zip(found["undrafted"], asked, strict=True) if "seed" not in kind]
    found["passes verified"] = verified["passes"]
    return found


def thinking(count: int) -> Any:
    """Requests that think, some of them with a budget for it, beside others: with drafts, without, and without budgets."""
    llm = drafting_engine(
        structured_outputs_config={"reasoning_parser": "qwen3"},
        reasoning_config={"reasoning_start_str": "<think>", "reasoning_end_str": THINK_END},
    )
    tokenizer = llm.get_tokenizer()
    (begin,), (end,) = (tokenizer.encode(text, add_special_tokens=False) for text in ("<think>", THINK_END))
    asked = [{"prompt_token_ids": [30, 31, 32 + n, begin if n % 2 else end]} for n in range(count)]
    found = {}
    for name, arguments, budget in (("undrafted", UNDRAFTED, 6), ("drafted", DRAFTED, 6), ("without budgets", DRAFTED, None)):
        params = [
            FREE_BETWEEN.sampling_params(
                max_tokens=200, seed=n, extra_args=arguments, thinking_token_budget=budget if n % 4 == 1 else None
            )
            for n in range(count)
        ]
        before = counted(llm, "vllm:spec_decode_num_accepted_tokens")
        outputs = llm.generate(asked, params, use_tqdm=False)
        found[name] = {
            "texts": [output.outputs[0].text for output in outputs],
            "ended": [end in output.outputs[0].token_ids[:8] for output in outputs],
            "accepted": counted(llm, "vllm:spec_decode_num_accepted_tokens") - before,
        }
    return found


def beside(count: int) -> Any:
    """What vLLM does not apply to drafts: free requests keep it, and held ones that use it are not drafted."""
    from vllm import SamplingParams

    asked_for, drafting = count_asked(), drafting_engine()
    tokenizer = drafting.get_tokenizer()
    (wanted,) = tokenizer.encode("a", add_special_tokens=False)
    biased = SamplingParams(temperature=0.0, max_tokens=6, logit_bias={wanted: 100.0}, ignore_eos=True)
    narrow = SamplingParams(temperature=1.0, max_tokens=12, min_p=1.0, ignore_eos=True, seed=3)
    likeliest = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
    held = [turn.sampling_params(temperature=1.0, seed=n, max_tokens=200) for n, turn in enumerate(turns() * count)]
    outputs = drafting.generate(prompts(1) * (3 + len(held)), [biased, narrow, likeliest, *held], use_tqdm=False)
    proposals = asked_for.total()
    asking = SamplingParams(temperature=0.0, max_tokens=6, logprobs=1, logprob_token_ids=[wanted], ignore_eos=True)
    likely = [turn.sampling_params(temperature=1.0, seed=n, max_tokens=200, logprobs=2) for n, turn in enumerate(turns())]
    asked, *rest = drafting.generate(prompts(1) * (1 + len(likely)), [asking, *likely], use_tqdm=False)
    accepted = counted(drafting, "vllm:spec_decode_num_accepted_tokens")
    before = counted(drafting, "vllm:spec_decode_num_draft_tokens")
    few = turns()[0]
    ways: list[dict[str, Any]] = [{"min_p": 0.1}, {"logit_bias": {wanted: 1.0}}]
    undrafted = [few.sampling_params(max_tokens=200, **way) for way in ways]
    calls = drafting.generate(prompts(1) * len(ways), undrafted, use_tqdm=False)
    not_drafted = counted(drafting, "vllm:spec_decode_num_draft_tokens") - before
    drafting.generate(prompts(1), [few.sampling_params(max_tokens=200, logprobs=1)], use_tqdm=False)  # which is verified
    return {
        "biased": outputs[0].outputs[0].text,
        "narrow": list(outputs[1].outputs[0].token_ids),
        "likeliest": list(outputs[2].outputs[0].token_ids),
        "accepted": accepted,
        "proposals asked for": (proposals, asked_for["take_draft_token_ids"], asked_for["propose"]),
        "drafted by those that are not": not_drafted,
        "whole": [few.accepts(call.outputs[0].text) for call in calls],
        "asked for": [wanted in step for step in asked.outputs[0].logprobs],
        "beside it": [turn.accepts(output.outputs[0].text) for turn, output in zip(turns(), rest, strict=True)],
    }


def ngram(count: int) -> Any:
    """vLLM's own speculation over the prompt's words: forced text is ours, the rest theirs."""
    from vllm import SamplingParams

    config = {"method": "ngram", "num_speculative_tokens": 6, "prompt_lookup_min": 2, "prompt_lookup_max": 4}
    llm = drafting_engine(speculative_config=config)
    held = [turn.sampling_params(temperature=1.0, max_tokens=200) for turn in turns() * count]
    outputs = llm.generate(prompts(1) * len(held), held, use_tqdm=False)
    drafted = counted(llm, "vllm:spec_decode_num_draft_tokens")
    accepted = counted(llm, "vllm:spec_decode_num_accepted_tokens")
    free = [SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True)] * 4
    llm.generate(prompts(4), free, use_tqdm=False)
    proposed = counted(llm, "vllm:spec_decode_num_draft_tokens") - drafted
    asking = SamplingParams(temperature=0.0, max_tokens=6, logprobs=1, logprob_token_ids=[30], ignore_eos=True)
    narrow = FREE_BETWEEN.sampling_params(max_tokens=200, top_k=20)
    alone = llm.generate(prompts(1), [narrow], use_tqdm=False)
    together = llm.generate(prompts(3), [narrow, asking, *free[:1]], use_tqdm=False)
    return {
        "whole": [turn.accepts(out.outputs[0].text) for turn, out in zip(turns() * count, outputs, strict=True)],
        "tokens": sum(len(output.outputs[0].token_ids) for output in outputs),
        "drafted": drafted,
        "accepted": accepted,
        "drafted for free requests": proposed,
        "narrow": [FREE_BETWEEN.accepts(output.outputs[0].text) for output in (*alone, together[0])],
        "asked for": [30 in step for step in together[1].outputs[0].logprobs],
    }


WAYS = {way.__name__: way for way in (greedy, aborted, sampled, put_off, waiting, seeded, penalised, thinking, beside, ngram)}

if __name__ == "__main__":
    print("\n" + json.dumps(WAYS[sys.argv[1]](int(sys.argv[2]))), flush=True)
