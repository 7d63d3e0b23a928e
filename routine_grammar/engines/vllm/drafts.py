"""Drafts: what a grammar forces is proposed as speculative tokens, which the model verifies in one pass.

vLLM is given a proposer that proposes nothing, so that it runs its speculation; the tokens come from the engine core, where
the grammars are. Imported by every process of vLLM's, and by launchers before it: it imports neither vllm nor numpy.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from routine_grammar.engines.vllm.settings import EngineSettings
from routine_grammar.errors import EngineError

MAX_DRAFTS = 128  # vLLM's own bound on the draft tokens of a request
DEFAULT_DRAFTS = 16
# Methods whose proposals carry no probabilities, so that forced tokens can stand in their place.
BESIDE = ("ngram", "suffix")
REQUEST_OPTION = "routine_drafts"  # in a request's `vllm_xargs`: at most so many drafts a pass, 0: none
IN_PIPELINES = "the stages of a pipeline hand on tokens that their grammars have not seen"
WITH_STATE = "on CPUs, vLLM loses the state of models that keep one (Mamba, hybrid models) where it verifies drafts"
NOT_ON_DEVICE = (
    "it takes vLLM's second model runner, memory for tables, and `device_speculative_config` as its speculation "
    "(under --grammar-device-memory 0 the host drafts)"
)
_PROPOSER = f"{__name__}.NoProposals"


class NoProposals:
    """vLLM's custom proposer (`speculative_config["model"]`): no tokens for any request."""

    def __init__(self, vllm_config: Any) -> None:
        del vllm_config

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """There is none."""

    def propose(self, sampled_token_ids: list[list[int]], *args: Any, **kwargs: Any) -> list[list[int]]:
        """Nothing for each request of the batch."""
        return [[] for _ in sampled_token_ids]


def speculative_config(drafts: int = DEFAULT_DRAFTS) -> dict[str, Any]:
    """vLLM's `speculative_config` by which forced text is drafted, at most `drafts` tokens a request and pass.

    Raises `EngineError` for a number outside of 1 to 128.
    """
    if not 1 <= drafts <= MAX_DRAFTS:
        raise EngineError(f"{drafts} drafts a pass: expected 1 to {MAX_DRAFTS}, vLLM's bound")
    return {"method": "custom_class", "model": _PROPOSER, "num_speculative_tokens": drafts}


def device_speculative_config(drafts: int = DEFAULT_DRAFTS) -> dict[str, Any]:
    """vLLM's `speculative_config` by which devices draft forced text (`EngineSettings.device_drafts`), at most `drafts` tokens.

    Raises `EngineError` for a number outside of 1 to 128.
    """
    return {"method": "ngram_gpu", "num_speculative_tokens": speculative_config(drafts)["num_speculative_tokens"]}


def is_ours(config: Any) -> bool:
    """Whether a speculative configuration of vLLM's is the one that `speculative_config` makes."""
    return config is not None and config.method == "custom_class" and config.model == _PROPOSER


def may_be_ours(config: Any) -> bool:
    """Whether forced tokens can stand where a speculative configuration has proposals, or have no others beside them."""
    return is_ours(config) or (config is not None and config.method in BESIDE)


def has_device_path(vllm_config: Any) -> bool:
    """Whether an engine's devices follow grammars: under vLLM's second model runner, where memory is set aside for it."""
    return bool(
        vllm_config.use_v2_model_runner
        and EngineSettings.of(vllm_config).device_memory
        and vllm_config.model_config.runner_type != "pooling"
        and not vllm_config.model_config.skip_tokenizer_init
        and not getattr(vllm_config.parallel_config, "enable_batch_sharded_sampling", False)
    )


def drafts_on_device(vllm_config: Any) -> bool:
    """Whether devices propose forced text, where vLLM's configuration has them propose what came before."""
    config = vllm_config.speculative_config
    is_asked = config is not None and config.method == "ngram_gpu" and EngineSettings.of(vllm_config).device_drafts
    return is_asked and has_device_path(vllm_config)


def has_custom_processors() -> bool:
    """Whether logits processors of others are installed, which vLLM loads by entry point and does not apply to drafts."""
    return bool(entry_points(group="vllm.logits_processors"))


def most_drafts(vllm_config: Any) -> int:
    """How many forced tokens an engine takes as drafts of a request in a pass; 0 where it takes none.

    Asynchronous scheduling has fixed which tokens a pass verifies before their grammar is asked, and vLLM's second model
    runner verifies what its own proposer proposed. Raises `EngineError` for settings of ours that can't be.
    """
    allowed = EngineSettings.of(vllm_config).drafts
    config = vllm_config.speculative_config
    if EngineSettings.of(vllm_config).device_drafts and not drafts_on_device(vllm_config):
        raise EngineError(f"forced text can't be drafted by devices: {NOT_ON_DEVICE}")
    if config is None or vllm_config.scheduler_config.async_scheduling or vllm_config.use_v2_model_runner:
        return 0
    obstacle = None
    if vllm_config.parallel_config.pipeline_parallel_size > 1:
        obstacle = IN_PIPELINES
    elif vllm_config.device_config.device_type == "cpu" and vllm_config.model_config.has_inner_state:
        obstacle = WITH_STATE
    if obstacle and is_ours(config):
        raise EngineError(f"forced text can't be drafted: {obstacle}")
    if obstacle or not may_be_ours(config):
        return 0
    most: int = config.num_speculative_tokens
    return most if allowed is None else min(most, allowed)


def drafts_of(manager: Any, request: Any) -> list[int]:
    """Forced tokens that a request may be asked to verify in its next pass, as many as its engine takes.

    `manager` is vLLM's `StructuredOutputManager`. Nothing for a request that is not under a grammar of ours by now, or whose
    sampling parameters vLLM does not apply to drafts.
    """
    grammar = request.structured_output_request and request.structured_output_request.grammar
    forced = getattr(grammar, "forced_tokens", None)
    if forced is None or manager._get_constraint_bounds(request, ()).constraint_start > 0:
        return []
    if is_seeded(request) and not manager.routine_certain:
        return []
    params, most = request.sampling_params, manager.routine_drafts
    most = min(most, request.max_tokens - request.num_output_tokens - 1, (params.extra_args or {}).get(REQUEST_OPTION, most))
    if most <= 0 or params.min_p or params.logit_bias:
        return []
    tokens: list[int] = forced(most)
    return tokens


def is_seeded(request: Any) -> bool:
    """Whether a request's random numbers are its own."""
    params = request.sampling_params
    return params is not None and params.seed is not None and params.temperature > 0


def bars_drafts(request: Any) -> bool:
    """Whether vLLM can't sample for a request in a pass in which anybody has drafts.

    Its rejection sampler ends the engine over `logprob_token_ids`, and has no place for a `thinking_token_budget` of a
    request without drafts.
    """
    params = request.sampling_params
    return params is not None and (bool(params.logprob_token_ids) or params.thinking_token_budget is not None)


def room_for_drafts(running: int, tokens: int) -> int:
    """How many drafts each of the running requests may have in a pass of that many tokens: half of them is others'."""
    return tokens // (2 * max(running, 1))
