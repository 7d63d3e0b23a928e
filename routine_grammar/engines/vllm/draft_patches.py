"""The private names of vLLM that drafts need replaced: why, with what guard, and when the patch can go (see patches.py)."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

from routine_grammar.engines.vllm.certain_patches import (
    apply_certain_patches,
    drafts_are_certain,
    is_certain,
    mark_certain,
    sample_certain,
    wants_logprobs,
)
from routine_grammar.engines.vllm.device_patches import prepare_device
from routine_grammar.engines.vllm.drafts import (
    bars_drafts,
    drafts_of,
    has_custom_processors,
    is_ours,
    is_seeded,
    may_be_ours,
    most_drafts,
    room_for_drafts,
)
from routine_grammar.engines.vllm.patching import MARK, expect_parameters, replace_method
from routine_grammar.errors import EngineError

# What is noted of requests when they come, as each pass asks for it: by the attribute of vLLM's scheduler that has their ids.
_NOTED: dict[str, Callable[[Any], bool]] = {"routine_barring": bars_drafts, "routine_verifying": wants_logprobs}


def apply_draft_patches() -> None:
    """Apply all of them; a second call changes nothing. Raises `EngineError` where vLLM is not as expected."""
    patch_drafts()
    patch_scheduling()
    patch_sampling()
    patch_thinking_budget()
    patch_processors_beside_drafts()
    patch_expand()
    apply_certain_patches()


def patch_drafts() -> None:
    """Propose forced tokens after each pass; beside a proposer of others', in place of what it proposes.

    Why: proposers run in the workers, and grammars in the engine core. Asking a worker for proposals that it has not got costs
    each pass a word with it. Goes when grammars may propose.
    """
    from vllm.v1.engine.core import EngineCore
    from vllm.v1.structured_output import StructuredOutputManager

    def initialisation(original: Callable[..., Any]) -> Callable[..., Any]:
        def __init__(self: Any, vllm_config: Any) -> None:
            self.routine_drafts = most_drafts(vllm_config)  # settings that can't be end the start, and not a request
            self.routine_certain = drafts_are_certain(vllm_config)
            original(self, vllm_config)
            if vllm_config.model_config.runner_type != "pooling" and not vllm_config.model_config.skip_tokenizer_init:
                from routine_grammar.engines.vllm.grammars import make_ready  # in engine cores alone

                make_ready(self.tokenizer)
                prepare_device(self)

        return __init__

    def after_pass(original: Callable[..., Any]) -> Callable[..., Any]:
        def post_step(self: Any, model_executed: bool) -> None:
            manager = self.scheduler.structured_output_manager
            if not is_ours(self.vllm_config.speculative_config):
                original(self, model_executed)
            elif manager.routine_drafts and model_executed:
                for request in self.scheduler.running:
                    if request.structured_output_request and not request.is_prefill_chunk:
                        request.spec_token_ids = drafts_of(manager, request)

        return post_step

    def beside_others(original: Callable[..., Any]) -> Callable[..., Any]:
        def validate_tokens(self: Any, request: Any, spec_tokens: list[int]) -> Any:
            return drafts_of(self, request) or original(self, request, spec_tokens)

        return validate_tokens

    replace_method(StructuredOutputManager, "__init__", ("self", "vllm_config"), initialisation)
    replace_method(EngineCore, "post_step", ("self", "model_executed"), after_pass)
    replace_method(StructuredOutputManager, "validate_tokens", ("self", "request", "spec_tokens"), beside_others)


def patch_scheduling() -> None:
    """Leave drafts out of a pass where others would pay for them, pad none, and mark a pass whose drafts are certain.

    Why: drafts take the pass's tokens before requests that wait, and the cache's blocks before those that run; beside some
    requests vLLM can't verify any (`bars_drafts`); and a request whose prompt is cached but for one token gets drafts that are
    no tokens, so that each request of a pass has as many, which ours have not. Goes when vLLM schedules drafts last, its
    rejection sampler takes every request, and padding is a proposer's choice.
    """
    from vllm.v1.core.sched.scheduler import Scheduler

    def arrival(original: Callable[..., Any]) -> Callable[..., Any]:
        def add_request(self: Any, request: Any) -> Any:
            for kind, is_of_it in _NOTED.items():
                if is_of_it(request):
                    self.__dict__.setdefault(kind, set()).add(request.request_id)
            return original(self, request)

        return add_request

    def scheduling(original: Callable[..., Any]) -> Callable[..., Any]:
        def schedule(self: Any, *args: Any, **kwargs: Any) -> Any:
            config = self.vllm_config.speculative_config
            barring, verifying = (_present(self, kind) for kind in _NOTED)
            if is_ours(config):
                # Where the number of drafts goes by that of requests, as this says, vLLM does not pad.
                self.dynamic_sd_lookup = [config.num_speculative_tokens] * (self.max_num_running_reqs + 1)
                if verifying and self.structured_output_manager.routine_certain:
                    for request in filter(is_seeded, self.running):  # a pass that verifies draws otherwise
                        request.spec_token_ids = []
            if may_be_ours(config):
                _trim_drafts(self, 0 if barring else config.num_speculative_tokens)
            output = original(self, *args, **kwargs)
            mark_certain(self, output)
            return output

        return schedule

    replace_method(Scheduler, "add_request", ("self", "request"), arrival)
    replace_method(Scheduler, "schedule", ("self",), scheduling)


def patch_sampling() -> None:
    """Run a pass that verifies nothing as an engine without speculation does.

    Why: where speculation is configured, vLLM has every pass go through its rejection sampler, which costs random numbers for
    the whole batch and vocabulary, and on the CPU ends the engine over a `top_k` where there is no draft; and it asks the
    proposer, which for ours knows nothing. Goes when vLLM goes by what a pass verifies.
    """
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    def execution(original: Callable[..., Any]) -> Callable[..., Any]:
        def execute_model(self: Any, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
            configured = self.vllm_config.speculative_config
            if is_ours(configured) and not self.model_config.has_inner_state:  # which goes by how many drafts were accepted
                verifies = scheduler_output.scheduled_spec_decode_tokens and not is_certain(scheduler_output)
                self.speculative_config = configured if verifies else None
            if is_certain(scheduler_output):
                scheduler_output = copy.copy(scheduler_output)  # the engine may share it, and goes by it later
            return original(self, scheduler_output, *args, **kwargs)

        return execute_model

    def sampling(original: Callable[..., Any]) -> Callable[..., Any]:
        def _sample(self: Any, logits: Any, spec_decode_metadata: Any) -> Any:
            if (certain := sample_certain(self, logits)) is not None:
                return certain
            if may_be_ours(self.speculative_config) and not any(getattr(spec_decode_metadata, "num_draft_tokens", ())):
                spec_decode_metadata = None
            return original(self, logits, spec_decode_metadata)

        return _sample

    replace_method(GPUModelRunner, "execute_model", ("self", "scheduler_output"), execution)
    replace_method(GPUModelRunner, "_sample", ("self", "logits", "spec_decode_metadata"), sampling)


def patch_thinking_budget() -> None:
    """Count one row for each request of a pass without drafts, where an engine that speculates forces thinking to its end.

    Why: vLLM counts the drafts of each request there, none of them, and forces the end upon the first request of the batch
    instead. Goes when vLLM counts rows.
    """
    from vllm.v1.sample.thinking_budget_state import ThinkingBudgetStateHolder

    def replacement(original: Callable[..., Any]) -> Callable[..., Any]:
        def apply_to_logits(self: Any, logits: Any, predict_bonus_token: bool, spec_token_ids: Any) -> Any:
            speculates = self.in_spec_mode
            self.in_spec_mode = speculates and (predict_bonus_token or any(spec_token_ids or ()))
            try:
                return original(self, logits, predict_bonus_token, spec_token_ids)
            finally:
                self.in_spec_mode = speculates

        return apply_to_logits

    parameters = ("self", "logits", "predict_bonus_token", "spec_token_ids")
    replace_method(ThinkingBudgetStateHolder, "apply_to_logits", parameters, replacement)


def patch_processors_beside_drafts() -> None:
    """Keep `min_p` and `logit_bias` for requests beside drafts: those that use them have no drafts (`drafts_of`).

    Why: under speculation vLLM drops the processors of both and refuses requests with them, since it does not apply them to
    drafts. Goes when it does. Where others' processors are installed, all is left as vLLM has it.
    """
    from vllm.sampling_params import SamplingParams
    from vllm.v1.worker import gpu_model_runner

    if has_custom_processors():
        return

    def validation(original: Callable[..., Any]) -> Callable[..., Any]:
        def _validate_spec_decode(self: Any, speculative_config: Any) -> Any:
            return None if is_ours(speculative_config) else original(self, speculative_config)

        return _validate_spec_decode

    replace_method(SamplingParams, "_validate_spec_decode", ("self", "speculative_config"), validation)
    original = gpu_model_runner.build_logitsprocs
    if hasattr(original, MARK):
        return
    parameters = ("vllm_config", "device", "is_pin_memory", "is_pooling_model", "custom_logitsprocs")
    expect_parameters(original, parameters)

    @functools.wraps(original)
    def build_logitsprocs(
        vllm_config: Any, device: Any, is_pin_memory: Any, is_pooling_model: Any, custom_logitsprocs: Any = ()
    ) -> Any:
        if is_ours(vllm_config.speculative_config) and not custom_logitsprocs:
            vllm_config = copy.copy(vllm_config)
            vllm_config.speculative_config = None
        return original(vllm_config, device, is_pin_memory, is_pooling_model, custom_logitsprocs)

    setattr(build_logitsprocs, MARK, True)
    gpu_model_runner.build_logitsprocs = build_logitsprocs


def patch_expand() -> None:
    """Expand temperatures and the like to the rows of drafts, on the CPU, where vLLM's own kernel is found not to.

    Why: vLLM 0.32 converts what is not int64 into a copy, writes the result into that and drops it, so that drafts are judged
    by uninitialised temperatures. A probe at the first use tells; goes when no supported vLLM fails it.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.utils import cpu_triton_utils

    original = getattr(cpu_triton_utils, "_expand_kernel_impl", None)
    if original is None:
        raise EngineError("vllm.utils.cpu_triton_utils has no _expand_kernel_impl: this vLLM is not supported")
    if hasattr(original, MARK):
        return
    expect_parameters(original, ("output", "input_val", "cu_num_tokens", "replace_from", "replace_to"))
    kernel = functools.cache(lambda: original if expands_floats(original) else expand)

    @functools.wraps(original)
    def _expand_kernel_impl(*args: Any, **kwargs: Any) -> None:
        kernel()(*args, **kwargs)

    setattr(_expand_kernel_impl, MARK, True)
    cpu_triton_utils._expand_kernel_impl = _expand_kernel_impl


def expands_floats(kernel: Callable[..., Any]) -> bool:
    """Whether an implementation of vLLM's expand kernel writes floats to where it is told."""
    import torch

    output = torch.full((3,), torch.nan)
    kernel(output, torch.tensor([0.0, 0.5]), torch.tensor([1, 3], dtype=torch.int32), 0, 1)
    return output.tolist() == [1.0, 0.5, 0.5]


def expand(output: Any, input_val: Any, cu_num_tokens: Any, replace_from: Any, replace_to: Any, *_: Any, **__: Any) -> None:
    """Write each value of `input_val` [requests], `replace_from` as `replace_to`, once for each of its tokens.

    `output` [tokens]; `cu_num_tokens` [requests] are the ends of the requests' tokens. Source: vLLM's `expand_kernel`.
    """
    import torch

    counts = torch.diff(cu_num_tokens, prepend=cu_num_tokens.new_zeros(1))
    values = torch.where(input_val == replace_from, torch.full_like(input_val, replace_to), input_val)
    output.copy_(torch.repeat_interleave(values, counts.to(torch.int64)))


def _trim_drafts(scheduler: Any, most: int) -> None:
    """Leave each running request at most so many drafts, and no more than nobody else pays for.

    Half of a pass's tokens are others'; all of them are where vLLM takes no prompt in parts, and one waits. And drafts ask for
    no room in the cache that a running request may need: where that is short, they end with the block that is there anyway.
    """
    running, room = scheduler.running, most
    if is_ours(scheduler.vllm_config.speculative_config):
        room = min(room, room_for_drafts(len(running), scheduler.max_num_scheduled_tokens))
        if scheduler.waiting and not scheduler.scheduler_config.enable_chunked_prefill:
            room = 0
    manager, size = scheduler.kv_cache_manager, scheduler.block_size
    blocks = manager.num_kv_cache_groups * len(running) * (1 + -(-room // size))
    is_short = manager.block_pool.get_num_free_blocks() < blocks
    if not is_short and room == scheduler.vllm_config.speculative_config.num_speculative_tokens:
        return
    for request in running:
        if request.spec_token_ids:
            request.spec_token_ids = request.spec_token_ids[: min(room, -request.num_tokens % size) if is_short else room]


def _present(scheduler: Any, kind: str) -> bool:
    """Whether a request of a kind is there, waiting or running."""
    noted: set[str] | None = scheduler.__dict__.get(kind)
    if noted:
        noted.intersection_update(scheduler.requests)
    return bool(noted)
