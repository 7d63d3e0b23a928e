"""A real engine under vLLM's second model runner, on the CPU: Triton's interpreter runs vLLM's kernels, and ours.

In a process of its own: `python -m tests.engines.vllm.device_engine WAY COUNT`, with TRITON_INTERPRET=1 and
VLLM_USE_V2_MODEL_RUNNER=1 in the environment. Prints what came out as one line of JSON.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from routine_grammar import Vocabulary
from routine_grammar.api import Grammar, compile_lark, compile_regex
from routine_grammar.engines.vllm.drafts import REQUEST_OPTION, device_speculative_config
from routine_grammar.engines.vllm.settings import EngineSettings
from tests.engines.vllm.drafted_engine import FREE_BETWEEN, SMALL, prompts, told
from tests.engines.vllm.small_engine import THINK_END, counted, engine, turns

if TYPE_CHECKING:
    from vllm import LLM

MEMORY = 4 << 20
# What only hosts follow: characters that are counted, and a rule that calls itself.
COUNTED = compile_regex('"[a-z]{2,40}"')
NESTED = compile_lark('start: "[" (start | "x") "]"')
CROWDED: dict[str, Any] = {"num_gpu_blocks_override": 10, "block_size": 32, "max_model_len": 256, "max_num_batched_tokens": 128}


def device_engine(*, memory: int = MEMORY, asynchronous: bool = False, drafts: int = 0, **options: Any) -> LLM:
    """An engine of the second model runner, as vLLM has it on GPUs, in fp32. It has no Triton for CPUs but the interpreter."""
    import triton.backends

    class Driver:
        @staticmethod
        def is_active() -> bool:
            return True

    class Backend:
        driver = Driver
        compiler = None

    triton.backends.backends.setdefault("cpu", Backend)
    if asynchronous:
        schedule_asynchronously()
    settings = EngineSettings(device_memory=memory, device_drafts=bool(drafts)).entry()
    given = {"dtype": "float32", "disable_log_stats": False, "additional_config": settings, **options}
    if drafts:
        given["speculative_config"] = device_speculative_config(drafts)
    return engine(**given)


def schedule_asynchronously() -> None:
    """Leave asynchronous scheduling on, which vLLM turns off on CPUs."""
    from vllm.platforms.cpu import CpuPlatform

    original = CpuPlatform.check_and_update_config.__func__

    def check_and_update_config(cls: Any, vllm_config: Any) -> None:
        original(cls, vllm_config)
        vllm_config.scheduler_config.async_scheduling = True

    CpuPlatform.check_and_update_config = classmethod(check_and_update_config)


def count_launches() -> Counter[str]:
    """Counts what our kernels are asked for from now on, and how many requests are moved to the device."""
    from routine_grammar.engines.vllm.device import processor, requests

    counts = Counter[str]()
    for name in ("advance_and_mask", "advance_states", "close_rows", "replay_states", "draft_forced"):
        setattr(processor, name, counting(counts, name, getattr(processor, name)))
    begin = requests.DeviceGrammars.begin

    def beginning(*args: Any) -> Any:
        held = begin(*args)
        counts["on device" if held else "on host"] += 1
        return held

    setattr(requests.DeviceGrammars, "begin", beginning)  # noqa: B010 -- a method is not assigned to
    return counts


def counting(counts: Counter[str], name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        counts[name] += 1
        return original(*args, **kwargs)

    return call


def jobs(count: int, vocabulary: Vocabulary) -> tuple[list[Any], list[Any]]:
    """Turns of the demo, a third of them with budgets that run out; grammars that only hosts follow; and free requests."""
    from vllm import SamplingParams

    rng, listed = random.Random(5), [FREE_BETWEEN, *turns(), FREE_BETWEEN]
    grammars: list[Any] = []
    params: list[Any] = []
    for number in range(count):
        options = {"seed": number, "temperature": 1.0, "logprobs": 2, "n": 1 + (number % 10 == 4)}
        kind: Grammar | None = (COUNTED, NESTED, None)[number % 6 // 2] if number % 6 in (1, 3, 5) else None
        turn = listed[number % len(listed)] if number % 2 == 0 else kind
        grammars.append(turn)
        if turn is None:
            params.append(SamplingParams(max_tokens=20, **options))
            continue
        fewest = turn.fewest_tokens(vocabulary)
        most = fewest + rng.randrange(8) if number % 3 == 0 or turn is NESTED else 80
        params.append(turn.sampling_params(max_tokens=most, **options))
    return grammars, params


def outputs_of(llm: LLM, count: int) -> list[Any]:
    """Tell of every sample: whether it is whole, and all that `told` does."""
    grammars, params = jobs(count, Vocabulary.from_tokenizer(llm.get_tokenizer()))
    outputs = llm.generate(prompts(count), params, use_tqdm=False)
    return [
        {**told_of(sample), "whole": grammar is None or grammar.accepts(sample.text)}
        for grammar, output in zip(grammars, outputs, strict=True)
        for sample in output.outputs
    ]


def told_of(sample: Any) -> dict[str, Any]:
    class One:
        outputs = (sample,)

    return told(One)


def mixed(count: int) -> Any:
    """The same seeded requests by the host and by the device, with room for half of what runs, and prompts from the cache."""
    counts = count_launches()
    found: dict[str, Any] = {}
    for name, memory, asynchronous in (("host", 0, False), ("device", MEMORY, False), ("asynchronous", MEMORY, True)):
        counts.clear()
        llm = device_engine(memory=memory, asynchronous=asynchronous, enable_prefix_caching=True, **CROWDED)
        asks = llm.llm_engine.vllm_config.scheduler_config.async_scheduling
        samples = outputs_of(llm, count)
        found[name] = {
            "samples": samples,
            "counts": dict(counts),
            "preemptions": counted(llm, "vllm:num_preemptions"),
            "asynchronous": asks,
        }
        shut(llm)
    return found


def shut(llm: LLM) -> None:
    """End an engine, so that another can begin in its process."""
    llm.llm_engine.engine_core.shutdown()


def thinking(count: int) -> Any:
    """Requests that think first, and others that have thought; the first token of a text may end thoughts too."""
    counts = count_launches()
    llm = device_engine(asynchronous=True, structured_outputs_config={"reasoning_parser": "qwen3"})
    (end,) = llm.get_tokenizer().encode(THINK_END, add_special_tokens=False)
    listed = turns()
    asked = [{"prompt_token_ids": [30, 31, 32 + n % 50, end if n % 3 == 0 else 40]} for n in range(count)]
    params = [
        listed[n % len(listed)].sampling_params(temperature=1.0, seed=n, max_tokens=120, logit_bias={end: 6.0})
        for n in range(count)
    ]
    samples = [output.outputs[0] for output in llm.generate(asked, params, use_tqdm=False)]
    texts = [sample.text.rpartition(THINK_END)[2].lstrip("\n") for sample in samples]
    whole = [listed[n % len(listed)].accepts(text) for n, text in enumerate(texts)]
    thought = [end in sample.token_ids for sample in samples]
    return {"whole": whole, "thought": thought, "texts": [sample.text for sample in samples], "counts": dict(counts)}


def erring(count: int) -> Any:
    """A device that does not mask one slot: its request ends with an error, and what its grammar does not allow is not sent."""
    from routine_grammar.engines.vllm.device import processor

    llm = device_engine(asynchronous=True)
    put = processor.GrammarProcessor._put

    def putting(self: Any, slot: int, placement: Any) -> None:
        put(self, slot, placement)
        if placement.budget == 77:
            self._slots[slot] = -1  # as if it had no grammar

    processor.GrammarProcessor._put = putting  # type: ignore[method-assign]
    listed = turns()
    params = [
        listed[n % len(listed)].sampling_params(temperature=1.0, seed=n, max_tokens=78 if n == 1 else 120) for n in range(count)
    ]
    samples = [output.outputs[0] for output in llm.generate(prompts(count), params, use_tqdm=False)]
    manager = llm.llm_engine.engine_core.engine_core.scheduler.structured_output_manager
    after = llm.generate(prompts(1), [params[0]], use_tqdm=False)[0].outputs[0]
    return {
        "reasons": [sample.finish_reason for sample in samples],
        "whole": [listed[n % len(listed)].accepts(sample.text) for n, sample in enumerate(samples)],
        "erring": samples[1].text,
        "rejected": manager.routine_device.rejected,
        "after": listed[0].accepts(after.text),
    }


def drafted(count: int) -> Any:
    """Greedy requests with forced text drafted by the device, and not; then many samples of few texts."""
    counts = count_launches()
    llm = device_engine(asynchronous=True, drafts=8, enable_prefix_caching=True, **CROWDED)
    listed = [*turns(), FREE_BETWEEN]
    found: dict[str, Any] = {"asynchronous": llm.llm_engine.vllm_config.scheduler_config.async_scheduling}
    for name, drafts in (("undrafted", 0), ("drafted", 8)):
        params = [
            listed[n % len(listed)].sampling_params(
                temperature=0.0, max_tokens=90, logprobs=2, extra_args={REQUEST_OPTION: drafts}
            )
            for n in range(count)
        ]
        before = counted(llm, "vllm:spec_decode_num_accepted_tokens")
        outputs = llm.generate(prompts(count), params, use_tqdm=False)
        found[name] = {
            "samples": [told(output) for output in outputs],
            "whole": [listed[n % len(listed)].accepts(output.outputs[0].text) for n, output in enumerate(outputs)],
            "accepted": counted(llm, "vllm:spec_decode_num_accepted_tokens") - before,
        }
    found["counts"] = dict(counts)
    return found


def sampled(count: int) -> Any:
    """Texts of few ways, drawn with forced text drafted by the device and without: how often each came."""
    llm = device_engine(asynchronous=True, drafts=4)
    found: dict[str, Any] = {}
    for name, drafts in (("undrafted", 0), ("drafted", 4)):
        params = [
            SMALL.sampling_params(
                temperature=1.0, seed=drafts * 100_003 + n, max_tokens=20, extra_args={REQUEST_OPTION: drafts}
            )
            for n in range(count)
        ]
        outputs = llm.generate([{"prompt_token_ids": [30, 31, 32]}] * count, params, use_tqdm=False)
        found[name] = Counter(output.outputs[0].text for output in outputs)
    found["accepted"] = counted(llm, "vllm:spec_decode_num_accepted_tokens")
    return found


def short(count: int) -> Any:
    """Room on the device for one table of several: the others are followed by the host, and leave when they are not used."""
    from routine_grammar.engines.vllm.device.memory import DeviceMemory

    counts = count_launches()
    grammars = [
        compile_regex(f'\\{{"{name}": (?:true|false), "n": [0-9]+\\}}') for name in ("first", "second", "third", "fourth")
    ]
    llm = device_engine(memory=3000)
    setattr(DeviceMemory, "_put", counting(counts, "put", DeviceMemory._put))  # noqa: B010 -- a method is not assigned to
    whole = []
    for _ in range(2):
        params = [grammars[n % 4].sampling_params(temperature=1.0, seed=n, max_tokens=40) for n in range(count)]
        outputs = llm.generate(prompts(count), params, use_tqdm=False)
        whole += [grammars[n % 4].accepts(output.outputs[0].text) for n, output in enumerate(outputs)]
        for grammar in grammars:
            text = llm.generate(prompts(1), [grammar.sampling_params(temperature=1.0, max_tokens=40)], use_tqdm=False)
            whole.append(grammar.accepts(text[0].outputs[0].text))
    return {"whole": whole, "counts": dict(counts)}


WAYS = {way.__name__: way for way in (mixed, thinking, erring, drafted, sampled, short)}

if __name__ == "__main__":
    print("\n" + json.dumps(WAYS[sys.argv[1]](int(sys.argv[2]))), flush=True)
