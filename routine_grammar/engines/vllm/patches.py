"""The private names of vLLM that this package replaces: why, with what guard, and when the patch can go.

Each patch checks the signature it relies on and raises `EngineError` where vLLM's differs: no start is better than a
constraint that is silently not there. Applied once a process.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from routine_grammar.engines.vllm.backend import multiplexer
from routine_grammar.engines.vllm.checking import check_off_loop, compile_off_loop
from routine_grammar.engines.vllm.device_patches import MESSAGE, add_table, apply_device_patches
from routine_grammar.engines.vllm.draft_patches import apply_draft_patches
from routine_grammar.engines.vllm.drafts import REQUEST_OPTION, is_ours
from routine_grammar.engines.vllm.mask_patches import apply_mask_patches
from routine_grammar.engines.vllm.patching import MARK, expect_parameters, replace_method
from routine_grammar.engines.vllm.settings import EngineSettings, GrammarBackend
from routine_grammar.errors import EngineError, RoutineGrammarError
from routine_grammar.grammar.payload import is_payload

_BACKENDS = (
    ("vllm.v1.structured_output", "XgrammarBackend"),
    ("vllm.v1.structured_output", "GuidanceBackend"),
    ("vllm.v1.structured_output.backend_outlines", "OutlinesBackend"),
    ("vllm.v1.structured_output.backend_lm_format_enforcer", "LMFormatEnforcerBackend"),
)


def apply_patches() -> None:
    """Apply all patches; a second call changes nothing. Raises `EngineError` where vLLM is not as expected."""
    patch_backends()
    patch_budget()
    patch_validation()
    patch_early_check()
    patch_inputs()
    patch_kernel_scan()
    allow_tiles()
    patch_discarded_samples()
    patch_startup_interrupt()
    patch_guard()
    apply_draft_patches()
    apply_mask_patches()
    apply_device_patches()


def patch_backends() -> None:
    """Put our multiplexer before each backend class that the manager instantiates.

    Why: there is no registry of backends; the manager's if-chain reads these names. Goes when vLLM has a registry.
    """
    for module_name, name in _BACKENDS:
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            continue  # a backend whose library is not installed can't be chosen either
        inner = getattr(module, name, None)
        if inner is None:
            raise EngineError(f"{module_name} has no {name}: this vLLM is not supported")
        if not hasattr(inner, MARK):
            expect_parameters(inner.compile_grammar, ("self", "request_type", "grammar_spec", "stop_token_ids"))
            backend = multiplexer(inner)
            setattr(backend, MARK, True)
            setattr(module, name, backend)


def patch_budget() -> None:
    """Tell each of our grammars its request's token budget once it is compiled.

    Why: `compile_grammar` is not given the request. Goes when it is.
    """
    from vllm.v1.structured_output import StructuredOutputManager

    def replacement(original: Callable[..., Any]) -> Callable[..., Any]:
        def _create_grammar(self: Any, request: Any) -> Any:
            grammar = original(self, request)
            if is_payload(request.sampling_params.structured_outputs.grammar):
                room = self.vllm_config.model_config.max_model_len - request.num_prompt_tokens
                config = self.vllm_config.speculative_config
                ahead = config.num_speculative_tokens if config and not is_ours(config) else 0
                thinking = request if self.reasoner_cls and not self.enable_in_reasoning else None
                grammar.bind(min(request.max_tokens, room), thinking, ahead)
                add_table(self, request, grammar)
            return grammar

        return _create_grammar

    replace_method(StructuredOutputManager, "_create_grammar", ("self", "request"), replacement)


def patch_validation() -> None:
    """Check our grammars ourselves, where vLLM would have its configured backend parse them.

    Why: validation of `structured_outputs.grammar` asks xgrammar or llguidance. Goes with a registry of backends.
    """
    from vllm.sampling_params import SamplingParams

    def replacement(original: Callable[..., Any]) -> Callable[..., Any]:
        def _validate_structured_outputs(self: Any, model_config: Any, structured_outputs_config: Any, tokenizer: Any) -> Any:
            params = self.structured_outputs
            if params is None or not is_payload(params.grammar):
                return original(self, model_config, structured_outputs_config, tokenizer)
            if structured_outputs_config is None or tokenizer is None:
                _refuse("needs a tokenizer, so it can't be used with `skip_tokenizer_init`")
            _check(self, tokenizer)
            backend = structured_outputs_config.backend
            params._backend = "xgrammar" if backend == "auto" else backend
            params._backend_was_auto = backend == "auto"
            return None

        return _validate_structured_outputs

    parameters = ("self", "model_config", "structured_outputs_config", "tokenizer")
    replace_method(SamplingParams, "_validate_structured_outputs", parameters, replacement)


def patch_early_check() -> None:
    """Compile our grammars off the event loop before a response is begun, so that a bad one is a 400 and no stream.

    Why: vLLM validates on the event loop, and for a stream after its 200. Goes when vLLM validates in `create_*`.
    """
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
    from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion

    def replacement(original: Callable[..., Any]) -> Callable[..., Any]:
        async def create(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
            params = getattr(request, "structured_outputs", None)
            if params is not None and is_payload(params.grammar):
                _check_beside(request)
                _check_option(getattr(request, "vllm_xargs", None))
                most = getattr(request, "max_completion_tokens", None) or request.max_tokens
                await check_off_loop(self.renderer.tokenizer, params.grammar, most)
            elif EngineSettings.of(self.engine_client.vllm_config).backend is not GrammarBackend.VLLM:
                await compile_off_loop(self.renderer.tokenizer, request.extract_structured_outputs())
            return await original(self, request, *args, **kwargs)

        return create

    replace_method(OpenAIServingChat, "create_chat_completion", ("self", "request"), replacement)
    replace_method(OpenAIServingCompletion, "create_completion", ("self", "request"), replacement)


def patch_inputs() -> None:
    """Take over what `--grammar-backend` says; refuse a prompt that leaves no room for the shortest text of its grammar.

    Why: `SamplingParams` are validated without the settings and the prompt, and `max_tokens` may be more than the model's
    length leaves. Goes when validation is given all.
    """
    from vllm.v1.engine.input_processor import InputProcessor

    def replacement(original: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(original)

        def process_inputs(self: Any, *args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(self, *args, **kwargs)
            backend = EngineSettings.of(self.vllm_config).backend
            if backend is not GrammarBackend.VLLM:
                from routine_grammar.engines.vllm.foreign import take_over

                params = bound.arguments["params"]
                bound.arguments["params"] = take_over(params, backend, lambda taken: _check(taken, self.tokenizer))
            if MESSAGE in (getattr(bound.arguments["params"], "extra_args", None) or {}):
                _refuse(f"`{MESSAGE}` in `vllm_xargs` is not a client's to say", "vllm_xargs")
            request = original(*bound.args, **bound.kwargs)
            constraint = getattr(request.sampling_params, "structured_outputs", None)
            if constraint is not None and is_payload(constraint.grammar):
                prompt = request.prompt_token_ids if request.prompt_embeds is None else request.prompt_embeds
                room = self.model_config.max_model_len - len(prompt)
                most = request.sampling_params.max_tokens
                _check_fits(self.tokenizer, constraint.grammar, room if most is None else min(most, room), room)
            return request

        return process_inputs

    replace_method(InputProcessor, "process_inputs", ("self", "request_id", "prompt", "params"), replacement)


def patch_kernel_scan() -> None:
    """Keep llvmlite out of the scan in which vLLM's CPU worker looks for Triton kernels.

    Why: the scan asks everything in `sys.modules` for its `__dict__`, and llvmlite's library handle answers any name with
    a function; the worker dies where numba was imported before it started. Goes when vLLM's scan checks what it gets.
    """
    try:
        dispatcher = importlib.import_module("vllm.triton_utils.dispatcher")
    except ImportError:
        return  # before vLLM 0.32
    original = getattr(dispatcher, "_rebind_kernels", None)
    if original is None or hasattr(original, MARK):
        return

    @functools.wraps(original)
    def _rebind_kernels(*args: Any) -> None:
        hidden = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "llvmlite"}
        for name in hidden:
            del sys.modules[name]
        try:
            original(*args)
        finally:
            sys.modules.update(hidden)

    setattr(_rebind_kernels, MARK, True)
    setattr(dispatcher, "_rebind_kernels", _rebind_kernels)  # noqa: B010 -- the module type has no such name


def allow_tiles() -> None:
    """Ask Linux for the tile registers of processors with AMX, on the CPU: each process has to, before it uses them.

    Why: vLLM's attention uses them for bfloat16 where the processor has them; a worker that has not asked dies of an illegal
    instruction. Goes when vLLM's CPU worker asks.
    """
    import torch
    from vllm.platforms import current_platform

    ask = getattr(torch.cpu, "_init_amx", None)
    if current_platform.is_cpu() and ask is not None and torch.cpu._is_amx_tile_supported():
        ask()


def patch_discarded_samples() -> None:
    """Sample what a chunk of a prompt discards without its request's own generator, on the CPU.

    Why: vLLM winds such generators back by `set_offset`, which a CPU generator doesn't have, so that a request with a `seed`
    and a prompt of several chunks ends the engine. Goes when vLLM's CPU runner winds them back in its own way.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    def replacement(original: Callable[..., Any]) -> Callable[..., Any]:
        def sample_tokens(self: Any, *args: Any, **kwargs: Any) -> Any:
            generators = self.input_batch.generators
            held = {row: generators.pop(row) for row in list(generators) if self.discard_request_mask.np[row]}
            try:
                return original(self, *args, **kwargs)
            finally:
                generators.update(held)

        return sample_tokens

    replace_method(CPUModelRunner, "sample_tokens", ("self", "grammar_output"), replacement)


def patch_startup_interrupt() -> None:
    """Let SIGTERM end a server that is still waiting for its engine.

    Why: the socket that it waits on drops the KeyboardInterrupt that vLLM makes of the signal, and the start goes on. Goes when
    vLLM's `zmq_socket_ctx` lets it pass.
    """
    from vllm.v1.engine import utils

    original = getattr(utils, "zmq_socket_ctx", None)
    if original is None or hasattr(original, MARK):
        return

    @functools.wraps(original)
    @contextlib.contextmanager
    def zmq_socket_ctx(*args: Any, **kwargs: Any) -> Iterator[Any]:
        interrupt: KeyboardInterrupt | None = None
        with original(*args, **kwargs) as socket:
            try:
                yield socket
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt:
            raise interrupt

    setattr(zmq_socket_ctx, MARK, True)
    setattr(utils, "zmq_socket_ctx", zmq_socket_ctx)  # noqa: B010 -- the module type has no such name


def patch_guard() -> None:
    """Refuse a `routine` field where nothing honours it: vLLM drops unknown fields of a request in silence.

    Why: a plain server with only the general plugin has no route that takes it. Our own server's request class declares the
    field, and passes. Goes when vLLM refuses unknown fields.
    """
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

    def replacement(original: Callable[..., Any]) -> Callable[..., Any]:
        def to_sampling_params(self: Any, *args: Any, **kwargs: Any) -> Any:
            if (self.model_extra or {}).get("routine") is not None:
                from vllm.exceptions import VLLMValidationError

                message = "`routine` is not served here: start the server with `python -m routine_grammar.serve`"
                raise VLLMValidationError(message, parameter="routine")
            return original(self, *args, **kwargs)

        return to_sampling_params

    for owner in (ChatCompletionRequest, CompletionRequest, ResponsesRequest):
        replace_method(owner, "to_sampling_params", ("self",), replacement)


def _check(params: Any, tokenizer: Any) -> None:
    """Refuse a grammar that can't be compiled or kept, and whatever beside it would break its promise."""
    for name in ("ignore_eos", "min_tokens", "bad_words", "allowed_token_ids", "stop", "repetition_detection"):
        if getattr(params, name, None):
            _refuse(f"can't be kept beside `{name}`", name)
    _check_option(params.extra_args)
    from routine_grammar.engines.vllm.grammars import CompiledGrammars

    try:
        compiled = CompiledGrammars.of(tokenizer)
        if text := [token for token in params.stop_token_ids or () if any(compiled.vocabulary.tokens[token : token + 1])]:
            _refuse(f"can't be kept beside `stop_token_ids` that may be part of a text, such as {text[0]}", "stop_token_ids")
        compiled.check(params.structured_outputs.grammar, params.max_tokens, params.all_stop_token_ids)
    except RoutineGrammarError as error:
        _refuse(str(error))


def _check_beside(request: Any) -> None:
    """Refuse what would drop a grammar in silence: beam search, and tools that bring grammars of their own."""
    if getattr(request, "use_beam_search", False):
        _refuse("can't be kept beside `use_beam_search`", "use_beam_search")
    choice = getattr(request, "tool_choice", None)
    if choice not in (None, "none", "auto"):
        _refuse("can't be kept beside a `tool_choice` of 'required' or of one tool", "tool_choice")
    if any(getattr(tool.function, "strict", None) for tool in getattr(request, "tools", None) or ()):
        _refuse("can't be kept beside tools that are `strict`", "tools")


def _check_option(options: Mapping[str, Any] | None) -> None:
    """Refuse a number of drafts that is none."""
    drafts = (options or {}).get(REQUEST_OPTION, 0)
    if not isinstance(drafts, int) or drafts < 0:
        _refuse(f"`{REQUEST_OPTION}` in `vllm_xargs` is {drafts!r:.80}; expected a number of drafts, from 0 on", "vllm_xargs")


def _check_fits(tokenizer: Any, payload: str, budget: int, room: int) -> None:
    """Refuse a budget of tokens that holds no text of a grammar."""
    from routine_grammar.engines.vllm.grammars import CompiledGrammars

    fewest = CompiledGrammars.of(tokenizer).fewest_tokens(payload)
    if budget < fewest:
        left = f"the prompt leaves {room} tokens, and" if budget == room else f"max_tokens is {budget}, and"
        _refuse(f"{left} the shortest text that it allows needs {fewest}", "max_tokens")


def _refuse(message: str, parameter: str = "structured_outputs.grammar") -> None:
    from vllm.exceptions import VLLMValidationError

    raise VLLMValidationError(f"the routine_grammar grammar: {message}", parameter=parameter)
