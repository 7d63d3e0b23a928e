"""The private names of vLLM by which devices follow grammars: why they are replaced, and when that can go (see patches.py).

All of them do nothing but under vLLM's second model runner, with memory set aside for tables (`has_device_path`).
"""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from routine_grammar.engines.vllm.drafts import drafts_on_device, has_device_path
from routine_grammar.engines.vllm.patching import MARK, expect_parameters, replace_method
from routine_grammar.errors import EngineError

if TYPE_CHECKING:
    from routine_grammar.engines.vllm.device.requests import DeviceGrammars, OnDevice

_LOG = logging.getLogger(__name__)
_GRAMMARS = "routine_device"  # set on vLLM's manager: its `DeviceGrammars`, or None
ON_DEVICE = "routine_on_device"  # set on a request of vLLM's while a device follows its grammar: an `OnDevice`
MESSAGE = "routine_grammar_table"  # the name of a placement among a request's `extra_args`: no client may use it


def apply_device_patches() -> None:
    """Apply all of them; a second call changes nothing. Raises `EngineError` where vLLM is not as expected."""
    patch_requests()
    patch_promotion()
    patch_messages()
    patch_checks()
    patch_worker()
    patch_sampler()


def device_grammars(manager: Any) -> DeviceGrammars | None:
    """The grammars on the devices of an engine; None where its devices follow none."""
    grammars: DeviceGrammars | None = manager.__dict__.get(_GRAMMARS)
    return grammars


def prepare_device(manager: Any) -> None:
    """Have the engine core of a manager place grammars on its devices, where these follow any."""
    if has_device_path(manager.vllm_config):
        from routine_grammar.engines.vllm.device.requests import DeviceGrammars
        from routine_grammar.engines.vllm.grammars import CompiledGrammars

        vocabulary = CompiledGrammars.of(manager.tokenizer).vocabulary
        setattr(manager, _GRAMMARS, DeviceGrammars(manager.vllm_config, vocabulary))


def add_table(manager: Any, request: Any, grammar: Any) -> None:
    """Have a grammar bring its table, where devices follow it and it has one."""
    if device_grammars(manager) is not None:
        from routine_grammar.engines.vllm.grammars import CompiledGrammars

        payload = request.sampling_params.structured_outputs.grammar
        grammar.table = CompiledGrammars.of(manager.tokenizer).table(payload, grammar.ending, canonical=grammar.is_canonical)


def patch_requests() -> None:
    """Have the scheduler treat a request that is on the device as one without a grammar.

    Why: whatever vLLM does for a grammar's sake waits for the tokens of the pass before. Goes when a request can say that its
    grammar is kept elsewhere.
    """
    from vllm.v1.request import Request

    original = getattr(Request, "use_structured_output", None)
    if not isinstance(original, property) or original.fget is None:
        raise EngineError("vllm.v1.request.Request has no property use_structured_output: this vLLM is not supported")
    if hasattr(original.fget, MARK):
        return
    asked = original.fget

    def use_structured_output(self: Any) -> bool:
        held: OnDevice | None = self.__dict__.get(ON_DEVICE)
        return bool(asked(self)) and (held is None or held.checks)

    setattr(use_structured_output, MARK, True)
    Request.use_structured_output = property(use_structured_output)


def patch_promotion() -> None:
    """Move a request to the device once its grammar is compiled, and let go of its table once it has ended.

    Why: there is no hook where a grammar gets ready. Goes with one.
    """
    from vllm.v1.core.sched.scheduler import Scheduler

    def promotion(original: Callable[..., Any]) -> Callable[..., Any]:
        def _handle_blocked_waiting_request(self: Any, request: Any) -> Any:
            waited = request.structured_output_request is not None and request.status.name.endswith("GRAMMAR")
            proceeds = original(self, request)
            if proceeds and waited:
                grammars = device_grammars(self.structured_output_manager)
                held = grammars and grammars.begin(self.structured_output_manager, request)
                if held is not None:
                    setattr(request, ON_DEVICE, held)
            return proceeds

        return _handle_blocked_waiting_request

    def ending(original: Callable[..., Any]) -> Callable[..., Any]:
        def _free_request(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
            held: OnDevice | None = request.__dict__.pop(ON_DEVICE, None)
            if held is not None:
                held.let_go()
            return original(self, request, *args, **kwargs)

        return _free_request

    replace_method(Scheduler, "_handle_blocked_waiting_request", ("self", "request"), promotion)
    replace_method(Scheduler, "_free_request", ("self", "request"), ending)


def patch_messages() -> None:
    """Tell workers where the table of a request lies, with what they have not been sent of it.

    Why: `extra_args` are what reaches logits processors, and it is only known here what the workers have. Goes when a grammar
    may say something to the workers.
    """
    from vllm.v1.core.sched.output import NewRequestData

    original = NewRequestData.__dict__.get("from_request")
    if not isinstance(original, classmethod):
        raise EngineError("vllm.v1.core.sched.output.NewRequestData has no from_request: this vLLM is not supported")
    made = original.__func__
    if hasattr(made, MARK):
        return
    expect_parameters(made, ("cls", "request", "block_ids"))

    @functools.wraps(made)
    def from_request(cls: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        sent = made(cls, request, *args, **kwargs)
        held: OnDevice | None = request.__dict__.get(ON_DEVICE)
        if held is not None:
            sent.sampling_params = copy.copy(sent.sampling_params)  # the request's own are as the client said them
            extra = sent.sampling_params.extra_args or {}
            sent.sampling_params.extra_args = {**extra, MESSAGE: held.message()}
        return sent

    setattr(from_request, MARK, True)
    NewRequestData.from_request = classmethod(from_request)


def patch_checks() -> None:
    """Show every token of a device's to the host's matcher before a client sees it: what that rejects is not sent.

    Why: a device that errs must not be believed. Goes never, as long as devices follow grammars.
    """
    from vllm.v1.structured_output import StructuredOutputManager

    def replacement(original: Callable[..., Any]) -> Callable[..., Any]:
        def accept_tokens(self: Any, request: Any, new_token_ids: list[int]) -> Any:
            held: OnDevice | None = request.__dict__.get(ON_DEVICE)
            if held is None:
                return original(self, request, new_token_ids)
            held.checks = True
            try:
                accepted = original(self, request, new_token_ids)
            finally:
                held.checks = False
            if not accepted:
                grammars = device_grammars(self)
                assert grammars is not None
                grammars.rejected += 1
                told = "request %s: the device said %s, which its grammar does not allow; it ends (%d such so far)"
                _LOG.error(told, request.request_id, new_token_ids, grammars.rejected)
                new_token_ids.clear()
            return accepted

        return accept_tokens

    replace_method(StructuredOutputManager, "accept_tokens", ("self", "request", "new_token_ids"), replacement)


def patch_worker() -> None:
    """Have the second model runner load our logits processor, and our speculator where forced text is to be drafted.

    Why: processors are loaded by a flag or by an entry point, of which the latter is loaded by the first runner too, and there
    is none for speculators. Goes when a plugin can add both.
    """
    try:
        from vllm.v1.worker.gpu import model_runner
    except ImportError:
        return  # no Triton: vLLM has its first model runner alone
    loading = getattr(model_runner, "build_custom_logits_processors", None)
    speculating = getattr(model_runner, "init_speculator", None)
    if loading is None or speculating is None:
        raise EngineError(f"{model_runner.__name__} loads no logits processors: this vLLM is not supported")
    expect_parameters(loading, ("vllm_config", "req_states"))

    def processors(original: Callable[..., Any]) -> Callable[..., Any]:
        def build_custom_logits_processors(vllm_config: Any, req_states: Any, *args: Any, **kwargs: Any) -> Any:
            found = original(vllm_config, req_states, *args, **kwargs)
            if has_device_path(vllm_config):
                from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsProcRequestState

                from routine_grammar.engines.vllm.device.processor import GrammarProcessor

                found = [*found, GrammarProcessor(vllm_config, LogitsProcRequestState.from_request_state(req_states))]
            return found

        return build_custom_logits_processors

    def speculators(original: Callable[..., Any]) -> Callable[..., Any]:
        def init_speculator(vllm_config: Any, device: Any, req_states: Any) -> Any:
            if not drafts_on_device(vllm_config):
                return original(vllm_config, device, req_states)
            from routine_grammar.engines.vllm.device.speculator import ForcedSpeculator

            return ForcedSpeculator(vllm_config, device, req_states)

        return init_speculator

    replace_method(model_runner, "build_custom_logits_processors", ("vllm_config", "req_states"), processors)
    replace_method(model_runner, "init_speculator", ("vllm_config", "device", "req_states"), speculators)


def patch_sampler() -> None:
    """Mask logits by the states that the device has, before anything is done with them, drafts included.

    Why: vLLM gives logits processors a copy, so that log-probabilities would be those of tokens that no grammar allows, and so
    that every step would copy what is masked in place here. Goes when a plugin can mask where vLLM's own bitmaps do.
    """
    try:
        from vllm.v1.worker.gpu.sample.sampler import Sampler
    except ImportError:
        return  # no Triton
    of_batch = (
        *("expanded_idx_mapping", "idx_mapping", "idx_mapping_np", "pos", "input_ids", "expanded_local_pos"),
        "seq_lens_upper_bound_np",
    )

    def masking(original: Callable[..., Any]) -> Callable[..., Any]:
        def apply_sampling_params(self: Any, logits: Any, *args: Any, **kwargs: Any) -> Any:
            from routine_grammar.engines.vllm.device.processor import GrammarProcessor
            from routine_grammar.kernels.grammar_tables import Batch

            processor = GrammarProcessor.of(self.req_states)
            if processor is not None:
                slots, _, slots_of_batch, positions, tokens, places, lengths = args[: len(of_batch)]
                processor.mask(logits, Batch(slots, places, positions, tokens), slots_of_batch, lengths)
            return original(self, logits, *args, **kwargs)

        return apply_sampling_params

    replace_method(Sampler, "apply_sampling_params", ("self", "logits", *of_batch), masking)
