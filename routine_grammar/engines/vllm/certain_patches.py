"""Passes whose drafts are certain: of each, the grammar's mask leaves no other token. Why, and when these patches can go.

Nothing about such a draft is left to the model: its distribution under the mask is that token alone. So a pass of them needs no
logits at their positions, no masks of them and no rejection sampling; it computes their keys and values, and samples behind
them. Which passes these are is decided once, in the scheduler, and goes to the workers with its output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from routine_grammar.engines.vllm.drafts import is_ours
from routine_grammar.engines.vllm.patching import replace_method
from routine_grammar.engines.vllm.settings import EngineSettings, Spelling

_CERTAIN = "routine_certain"  # set on vLLM's `SchedulerOutput`, and the drafts themselves on its runner
_NOTHING = -1  # pads the tokens of a request; vLLM's `PLACEHOLDER_TOKEN_ID`


def apply_certain_patches() -> None:
    """Apply all of them; a second call changes nothing. Raises `EngineError` where vLLM is not as expected."""
    patch_certain_masks()
    patch_certain_forward()


def drafts_are_certain(vllm_config: Any) -> bool:
    """Whether every draft of an engine is one that its mask leaves alone, and a pass may take it for granted.

    Not with any spelling; not beside a proposer of drafts that are none of ours; and not where a model keeps a state for each
    draft.
    """
    return (
        is_ours(vllm_config.speculative_config)
        and EngineSettings.of(vllm_config).spelling is Spelling.CANONICAL
        and not vllm_config.model_config.has_inner_state
    )


def mark_certain(scheduler: Any, output: Any) -> None:
    """Mark a pass that was scheduled where its drafts are certain, and nobody in it asks for log-probabilities."""
    drafts = output.scheduled_spec_decode_tokens
    if not scheduler.structured_output_manager.routine_certain or not drafts:
        return
    if any(_NOTHING in tokens for tokens in drafts.values()):
        return  # there are positions to throw away behind the pass, as vLLM does where it verifies
    setattr(output, _CERTAIN, not any(wants_logprobs(scheduler.requests[name]) for name in output.num_scheduled_tokens))


def is_certain(output: Any) -> bool:
    """Whether a pass was marked."""
    return bool(getattr(output, _CERTAIN, False))


def wants_logprobs(request: Any) -> bool:
    """Whether a request asks for log-probabilities, so that its drafts need logits."""
    return request.sampling_params is not None and request.sampling_params.logprobs is not None


def patch_certain_masks() -> None:
    """Make one mask for each request of a pass of certain drafts: that behind them.

    Why: vLLM verifies all drafts alike, here and in the worker. Goes when drafts can be marked as certain.
    """
    from vllm.v1.core.sched.scheduler import Scheduler

    def masks(original: Callable[..., Any]) -> Callable[..., Any]:
        def get_grammar_bitmask(self: Any, scheduler_output: Any) -> Any:
            if not is_certain(scheduler_output):
                return original(self, scheduler_output)
            taken = []
            for name, drafts in scheduler_output.scheduled_spec_decode_tokens.items():
                request = self.requests.get(name)
                if request and (grammar := request.structured_output_request.grammar).accept_tokens(name, drafts):
                    taken.append((grammar, len(drafts)))
            try:
                return original(self, replace(scheduler_output, scheduled_spec_decode_tokens={}))
            finally:
                for grammar, count in taken:
                    grammar.rollback(count)

        return get_grammar_bitmask

    replace_method(Scheduler, "get_grammar_bitmask", ("self", "scheduler_output"), masks)


def patch_certain_forward() -> None:
    """Compute keys and values of certain drafts as those of a prompt's tokens, with logits behind the last alone."""
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    def update(original: Callable[..., Any]) -> Callable[..., Any]:
        def _update_states(self: Any, scheduler_output: Any) -> Any:
            result = original(self, scheduler_output)
            setattr(self, _CERTAIN, None)
            if is_certain(scheduler_output):  # the drafts stand where the batch has its tokens by now
                setattr(self, _CERTAIN, scheduler_output.scheduled_spec_decode_tokens)
                scheduler_output.scheduled_spec_decode_tokens = {}
            return result

        return _update_states

    replace_method(GPUModelRunner, "_update_states", ("self", "scheduler_output"), update)


def sample_certain(runner: Any, logits: Any) -> Any:
    """What a pass of certain drafts gave: each request's drafts, and a sampled token behind them; None: no such pass."""
    certain = runner.__dict__.get(_CERTAIN)
    if not certain:
        return None
    for row, generator in runner.input_batch.generators.items():
        count = len(certain.get(runner.input_batch.req_ids[row], ()))
        pass_over(generator, count, logits, in_64_bits=runner.sampler.use_fp64_gumbel)
    sampled = runner.sampler(logits=logits, sampling_metadata=runner.input_batch.sampling_metadata, predict_bonus_token=True)
    drafts = [certain.get(name, ()) for name in runner.input_batch.req_ids]
    return replace(sampled, sampled_token_ids=behind(drafts, sampled.sampled_token_ids))


def pass_over(generator: Any, count: int, logits: Any, *, in_64_bits: bool = False) -> None:
    """Draw as vLLM does where it samples that many tokens: a seed gives one text, drafted or not.

    `generator` is the request's; `in_64_bits`: under `--use-fp64-gumbel`. Source: vLLM's `TopKTopPSampler`, on the CPU and
    elsewhere.
    """
    import torch

    dtype = torch.float64 if in_64_bits else torch.float32
    for _ in range(count):
        if logits.device.type == "cpu" and not in_64_bits:
            torch.randint(0, 2**31, (1,), generator=generator, dtype=torch.long)
        else:
            torch.empty(logits.shape[-1], dtype=dtype, device=logits.device).exponential_(generator=generator)


def behind(drafts: Any, sampled: Any) -> Any:
    """Each request's drafts and its sampled token [requests, 1], as one tensor [requests, most drafts + 1] padded by -1."""
    import torch

    width = max(map(len, drafts)) + 1
    tokens = [[*before, token] for before, token in zip(drafts, sampled.flatten().tolist(), strict=True)]
    padded = [line + [_NOTHING] * (width - len(line)) for line in tokens]
    return torch.tensor(padded, dtype=sampled.dtype, device=sampled.device)
