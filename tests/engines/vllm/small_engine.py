"""A real engine made for one way of a request, in a process of its own: `python -m tests.engines.vllm.small_engine WAY FOLDER`.

Prints what came out as one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routine_grammar import compile_routine
from routine_grammar.api import Turn
from routine_grammar.demo.catalogue import demo_routines, demo_tools
from routine_grammar.demo.model import demo_model_path
from routine_grammar.engines.vllm.drafts import speculative_config
from routine_grammar.engines.vllm.environment import prepare

if TYPE_CHECKING:
    from vllm import LLM

THINK_END = "</think>"


def turns() -> list[Turn]:
    """First turns of the demo Routines."""
    return [
        (compiled := compile_routine(routine, demo_tools())).turn(None, compiled.graph.names_before("start"))
        for routine in demo_routines()
    ]


def engine(**options: Any) -> LLM:
    """A small engine with the demo model."""
    model = str(demo_model_path())
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    prepare(model, demo=True)
    from vllm import LLM

    given = {"enforce_eager": True, "max_model_len": 1024, "max_num_seqs": 16, "dtype": "bfloat16", "seed": 0, **options}
    return LLM(model, **given)


def run(llm: LLM, count: int, length: int = 8, last: int = 30, **options: Any) -> list[dict[str, Any]]:
    """Decode that many turns at once behind a prompt of that length and its last token; tell of each whether it is whole."""
    prompt = [*(30 + number % 60 for number in range(length - 1)), last]  # tokens of ASCII characters
    listed = turns()
    jobs = [listed[number % len(listed)] for number in range(count)]
    lora = options.pop("lora_request", None)
    params = [turn.sampling_params(temperature=1.0, seed=seed, **options) for seed, turn in enumerate(jobs)]
    outputs = llm.generate([{"prompt_token_ids": prompt}] * count, params, use_tqdm=False, lora_request=lora)
    return [
        {
            "whole": turn.accepts(sample.text.rpartition(THINK_END)[2].lstrip("\n")),
            "text": sample.text,
            "reason": sample.finish_reason,
            "cached": output.num_cached_tokens,
            "logprobs": None if sample.logprobs is None else [len(step) for step in sample.logprobs],
            "likely": sample.cumulative_logprob,
            "tokens": len(sample.token_ids),
        }
        for turn, output in zip(jobs, outputs, strict=True)
        for sample in output.outputs
    ]


def counted(llm: LLM, name: str) -> float:
    """The value of one of vLLM's counters."""
    return float(sum(getattr(metric, "value", 0) for metric in llm.get_metrics() if metric.name == name))


def crowded(_: Path) -> Any:
    """Room for about half of what runs, prompts of several chunks, and the same prompt again, from the cache."""
    options: dict[str, Any] = {
        "num_gpu_blocks_override": 20,
        "block_size": 32,
        "max_model_len": 256,
        "max_num_batched_tokens": 32,
    }
    llm = engine(enable_chunked_prefill=True, enable_prefix_caching=True, disable_log_stats=False, **options)
    many = run(llm, 16, 40, max_tokens=200)
    preemptions = counted(llm, "vllm:num_preemptions")
    first, again = run(llm, 3, 140, max_tokens=100), run(llm, 3, 140, max_tokens=100)
    return {"samples": [*many, *first, *again], "preemptions": preemptions, "first": first, "again": again}


def reasoned(_: Path) -> Any:
    """The constraint begins where reasoning ends, and not before; drafts too, which requests with a bias don't have."""
    llm = engine(
        structured_outputs_config={"reasoning_parser": "qwen3"},
        speculative_config=speculative_config(8),
        disable_log_stats=False,
    )
    tokenizer = llm.get_tokenizer()
    (end,) = tokenizer.encode(THINK_END, add_special_tokens=False)
    samples = run(llm, 6, max_tokens=400, logit_bias={end: 4.0})
    undrafted = counted(llm, "vllm:spec_decode_num_draft_tokens")
    thought = run(llm, 6, last=end, max_tokens=400)
    accepted = counted(llm, "vllm:spec_decode_num_accepted_tokens")
    return {"samples": [*samples, *thought], "thinking": samples, "undrafted": undrafted, "accepted": accepted}


def adapted(folder: Path) -> Any:
    """Several samples of a prompt with log-probabilities; then under a LoRA adapter, which changes only what is likely."""
    from vllm.lora.request import LoRARequest

    llm = engine(enable_lora=True, max_lora_rank=8)
    lora = LoRARequest("a", 1, str(adapter(folder)))
    options: dict[str, Any] = {"max_tokens": 200, "n": 3, "logprobs": 2}
    first, adapted = run(llm, 3, **options), run(llm, 3, **options, lora_request=lora)
    return {"samples": [*first, *adapted], "first": first, "adapted": adapted}


def adapter(folder: Path) -> Path:
    """Write a LoRA adapter of random weights for the demo model."""
    import torch
    from safetensors.torch import save_file

    model = json.loads((Path(demo_model_path()) / "config.json").read_text())
    width, heads = model["hidden_size"], model["num_attention_heads"] * model["head_dim"]
    torch.manual_seed(0)
    weights = {}
    for layer in range(model["num_hidden_layers"]):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        weights[f"{name}.lora_A.weight"] = torch.randn(8, width)
        weights[f"{name}.lora_B.weight"] = torch.randn(heads, 8)
    save_file(weights, folder / "adapter_model.safetensors")
    said = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 8,
        "lora_alpha": 16,
        "target_modules": ["q_proj"],
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(said))
    return folder


WAYS = {way.__name__: way for way in (crowded, reasoned, adapted)}

if __name__ == "__main__":
    print("\n" + json.dumps(WAYS[sys.argv[1]](Path(sys.argv[2]))), flush=True)
