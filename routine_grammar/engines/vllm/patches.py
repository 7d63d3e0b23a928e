"""Every private name of vLLM that this package replaces: why, with what guard, and when the patch can go.

Each patch checks the signature it relies on and raises `EngineError` where vLLM's differs: no start is better than a
constraint that is silently not there. Applied once a process.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from routine_grammar.engines.vllm.backend import multiplexer
from routine_grammar.engines.vllm.checking import check_off_loop
from routine_grammar.engines.vllm.drafts import REQUEST_OPTION, drafts_of, is_ours, most_drafts
from routine_grammar.errors import EngineError, RoutineGrammarError
from routine_grammar.grammar.payload import is_payload

_MARK = "__routine_grammar__"
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
    patch_room()
    patch_kernel_scan()
    patch_discarded_samples()
    patch_startup_interrupt()
    patch_guard()
    patch_drafts()
    patch_processors_beside_drafts()
    patch_expand()


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
        if not hasattr(inner, _MARK):
            _expect(inner.compile_grammar, ("self", "request_type", "grammar_spec", "stop_token_ids"))
            backend = multiplexer(inner)
            setattr(backend, _MARK, True)
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
                grammar.bind(request, min(request.max_tokens, room))
            return grammar

        return _create_grammar

    _replace(StructuredOutputManager, "_create_grammar", ("self", "request"), replacement)


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
    _replace(SamplingParams, "_validate_structured_outputs", parameters, replacement)


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
                most = getattr(request, "max_completion_tokens", None) or request.max_tokens
                await check_off_loop(self.renderer.tokenizer, params.grammar, most)
            return await original(self, request, *args, **kwargs)

        return create

    _replace(OpenAIServingChat, "create_chat_completion", ("self", "request"), replacement)
    _replace(OpenAIServingCompletion, "create_completion", ("self", "request"), replacement)


def patch_room() -> None:
    """Refuse a prompt that leaves no room for the shortest text of its grammar.

    Why: `SamplingParams` are validated without the prompt, and `max_tokens` may be more than the model's length leaves. Goes
    when validation is given both.
    """
    from vllm.v1.engine.input_processor import InputProcessor

    def replacement(original: Callable[..., Any]) -> Callable[..., Any]:
        def process_inputs(self: Any, *args: Any, **kwargs: Any) -> Any:
            request = original(self, *args, **kwargs)
            constraint = getattr(request.sampling_params, "structured_outputs", None)
            if constraint is not None and is_payload(constraint.grammar):
                prompt = request.prompt_token_ids if request.prompt_embeds is None else request.prompt_embeds
                room = self.model_config.max_model_len - len(prompt)
                most = request.sampling_params.max_tokens
                _check_fits(self.tokenizer, constraint.grammar, room if most is None else min(most, room), room)
            return request

        return process_inputs

    _replace(InputProcessor, "process_inputs", ("self", "request_id", "prompt", "params"), replacement)


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
    if original is None or hasattr(original, _MARK):
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

    setattr(_rebind_kernels, _MARK, True)
    setattr(dispatcher, "_rebind_kernels", _rebind_kernels)  # noqa: B010 -- the module type has no such name


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

    _replace(CPUModelRunner, "sample_tokens", ("self", "grammar_output"), replacement)


def patch_startup_interrupt() -> None:
    """Let SIGTERM end a server that is still waiting for its engine.

    Why: the socket that it waits on drops the KeyboardInterrupt that vLLM makes of the signal, and the start goes on. Goes when
    vLLM's `zmq_socket_ctx` lets it pass.
    """
    from vllm.v1.engine import utils

    original = getattr(utils, "zmq_socket_ctx", None)
    if original is None or hasattr(original, _MARK):
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

    setattr(zmq_socket_ctx, _MARK, True)
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
        _replace(owner, "to_sampling_params", ("self",), replacement)


def patch_drafts() -> None:
    """Put forced tokens in place of what a proposer proposes, where a grammar of ours forces some.

    Why: proposers run in the workers, and grammars in the engine core; this is where it looks at proposals. Goes when
    grammars may propose.
    """
    from vllm.v1.structured_output import StructuredOutputManager

    def replacement(original: Callable[..., Any]) -> Callable[..., Any]:
        def validate_tokens(self: Any, request: Any, spec_tokens: list[int]) -> Any:
            if most_drafts(self.vllm_config):
                if drafts := drafts_of(self, request):
                    return drafts
                if is_ours(self.vllm_config.speculative_config):
                    return []  # near the model's length vLLM fills up with zeros what a proposer did not propose
            return original(self, request, spec_tokens)

        return validate_tokens

    _replace(StructuredOutputManager, "validate_tokens", ("self", "request", "spec_tokens"), replacement)


def patch_processors_beside_drafts() -> None:
    """Keep `min_p` and `logit_bias` for requests beside drafts: those that use them have no drafts (`drafts_of`).

    Why: under speculation vLLM drops the processors of both and refuses requests with them, since it does not apply them to
    drafts. Goes when it does.
    """
    from vllm.sampling_params import SamplingParams
    from vllm.v1.worker import gpu_model_runner

    def validation(original: Callable[..., Any]) -> Callable[..., Any]:
        def _validate_spec_decode(self: Any, speculative_config: Any) -> Any:
            return None if is_ours(speculative_config) else original(self, speculative_config)

        return _validate_spec_decode

    _replace(SamplingParams, "_validate_spec_decode", ("self", "speculative_config"), validation)
    original = gpu_model_runner.build_logitsprocs
    if hasattr(original, _MARK):
        return
    parameters = ("vllm_config", "device", "is_pin_memory", "is_pooling_model", "custom_logitsprocs")
    _expect(original, parameters)

    @functools.wraps(original)
    def build_logitsprocs(
        vllm_config: Any, device: Any, is_pin_memory: Any, is_pooling_model: Any, custom_logitsprocs: Any = ()
    ) -> Any:
        if is_ours(vllm_config.speculative_config) and not custom_logitsprocs:
            vllm_config = copy.copy(vllm_config)
            vllm_config.speculative_config = None
        return original(vllm_config, device, is_pin_memory, is_pooling_model, custom_logitsprocs)

    setattr(build_logitsprocs, _MARK, True)
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
    if hasattr(original, _MARK):
        return
    _expect(original, ("output", "input_val", "cu_num_tokens", "replace_from", "replace_to"))
    kernel = functools.cache(lambda: original if expands_floats(original) else expand)

    @functools.wraps(original)
    def _expand_kernel_impl(*args: Any, **kwargs: Any) -> None:
        kernel()(*args, **kwargs)

    setattr(_expand_kernel_impl, _MARK, True)
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


def _check(params: Any, tokenizer: Any) -> None:
    """Refuse a grammar that can't be compiled or kept, and whatever beside it would break its promise."""
    for name in ("ignore_eos", "min_tokens", "bad_words", "allowed_token_ids", "stop", "repetition_detection"):
        if getattr(params, name, None):
            _refuse(f"can't be kept beside `{name}`", name)
    drafts = (params.extra_args or {}).get(REQUEST_OPTION, 0)
    if not isinstance(drafts, int) or drafts < 0:
        _refuse(f"`{REQUEST_OPTION}` in `vllm_xargs` is {drafts!r:.80}; expected a number of drafts, from 0 on", "vllm_xargs")
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


def _replace(
    owner: type, name: str, parameters: Sequence[str], replacement: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> None:
    """Replace a method once, if its first parameters are these."""
    original = getattr(owner, name, None)
    if original is None:
        raise EngineError(f"{owner.__module__}.{owner.__name__} has no {name}: this vLLM is not supported")
    if hasattr(original, _MARK):
        return
    _expect(original, parameters)
    patched = functools.wraps(original)(replacement(original))
    setattr(patched, _MARK, True)
    setattr(owner, name, patched)


def _expect(function: Callable[..., Any], parameters: Sequence[str]) -> None:
    found = tuple(inspect.signature(function).parameters)[: len(parameters)]
    if found != tuple(parameters):
        raise EngineError(
            f"{function.__module__}.{function.__qualname__} takes {', '.join(found)}; expected {', '.join(parameters)}: "
            "this vLLM is not supported"
        )
