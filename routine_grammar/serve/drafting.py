"""The flags of the launcher for drafts, spelling and grammars of any client, and what they make of vLLM's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from routine_grammar.engines.vllm.drafts import (
    BESIDE,
    DEFAULT_DRAFTS,
    IN_PIPELINES,
    MAX_DRAFTS,
    WITH_STATE,
    device_speculative_config,
    has_custom_processors,
    speculative_config,
)
from routine_grammar.engines.vllm.environment import has_second_runner
from routine_grammar.engines.vllm.settings import DEFAULT_DEVICE_MEMORY, ENTRY, EngineSettings, GrammarBackend, Spelling
from routine_grammar.errors import EngineError

_LORA_NEEDS = "vLLM wants --max-num-batched-tokens for one token and all drafts of --max-num-seqs requests there"


def add_flags(group: Any) -> None:
    """Add the flags to an argument group."""
    group.add_argument(
        "--routine-drafts",
        metavar="K",
        type=int,
        help=f"propose up to K forced tokens a request and pass; 0: none (default: {DEFAULT_DRAFTS} on CPUs, else 0)",
    )
    group.add_argument(
        "--routine-spelling",
        choices=[str(spelling) for spelling in Spelling],
        default=str(Spelling.CANONICAL),
        help="whether forced text has only the tokens that the tokenizer would write, or any that spell it "
        "(default: %(default)s)",
    )

    group.add_argument(
        "--grammar-device-memory",
        metavar="MIB",
        type=int,
        default=DEFAULT_DEVICE_MEMORY >> 20,
        help="MiB of each GPU for tables of grammars that it follows by itself; 0: the host follows all (default: %(default)s)",
    )
    group.add_argument(
        "--grammar-backend",
        choices=[str(backend) for backend in GrammarBackend],
        default=str(GrammarBackend.VLLM),
        help="who enforces JSON Schemas, regular expressions, choices and Lark grammars of any client: vLLM's own backend, "
        "ours, or ours wherever it can (default: %(default)s)",
    )


def apply_flags(args: Any, *, on_cpu: bool, keeps_state: Callable[[], bool]) -> str | None:
    """Turn the flags into vLLM's own; returns a sentence where drafts that are on by default can't be, else None.

    `keeps_state`: whether the model keeps a state beside keys and values, asked where it matters. Raises `EngineError` where
    drafts were asked for that can't be.
    """
    asked = args.routine_drafts
    given = args.speculative_config or {}
    by_host = given == {**speculative_config(), "num_speculative_tokens": given.get("num_speculative_tokens")}
    if by_host:
        args.speculative_config, asked = None, given["num_speculative_tokens"] if asked is None else asked
    if asked is not None and not 0 <= asked <= MAX_DRAFTS:
        raise EngineError(f"argument --routine-drafts: {asked}: expected 0 to {MAX_DRAFTS}")
    if args.grammar_device_memory < 0:
        raise EngineError(f"argument --grammar-device-memory: {args.grammar_device_memory}: expected MiB from 0 on")
    on_device = not (on_cpu or by_host) and args.grammar_device_memory > 0 and has_second_runner()
    drafts = asked if asked is not None else DEFAULT_DRAFTS if on_cpu else 0
    said = None
    obstacle = _obstacle(args, on_device=on_device) if drafts else None
    if drafts and not obstacle and on_cpu and keeps_state():
        obstacle = WITH_STATE
    if obstacle:
        if asked is not None:
            raise EngineError(f"argument --routine-drafts: {obstacle}")
        drafts, said = 0, f"forced text is not drafted: {obstacle}"
    if drafts and args.enable_lora and _method(args) is None and drafts > (fitting := _most_beside_lora(args)):
        if asked is not None:
            raise EngineError(f"argument --routine-drafts: {asked}: at most {fitting} beside LoRA adapters: {_LORA_NEEDS}")
        drafts = max(fitting, 0)
        said = (
            f"forced text is drafted by {drafts} tokens a pass, and not {DEFAULT_DRAFTS}, beside LoRA adapters: {_LORA_NEEDS}"
        )
    on_device = on_device and bool(drafts) and _method(args) is None
    if drafts and _method(args) is None:
        args.speculative_config = device_speculative_config(drafts) if on_device else speculative_config(drafts)
    elif asked and drafts and (most := _speculated(args)) is not None and most < asked:
        said = f"forced text is drafted by {most} tokens a pass, and not {asked}: as many as {_method(args)!r} speculates"
    memory = args.grammar_device_memory << 20
    spelling, backend = Spelling(args.routine_spelling), GrammarBackend(args.grammar_backend)
    settings = EngineSettings(drafts, spelling, backend, memory, on_device)
    if ENTRY in (args.additional_config or {}):
        flags = "--routine-drafts, --routine-spelling, --grammar-backend and --grammar-device-memory"
        raise EngineError(f"--additional-config has {ENTRY!r}, which {flags} stand for")
    args.additional_config = {**(args.additional_config or {}), **settings.entry()}
    return said


def _method(args: Any) -> str | None:
    """The speculation that vLLM's own flags ask for, by name; a model of its own stands for a method."""
    given = args.speculative_config or {}
    named = args.spec_method or given.get("method") or args.spec_model or given.get("model")
    return named or ("no method" if given or args.spec_tokens else None)


def _most_beside_lora(args: Any) -> int:
    """As many drafts as vLLM takes beside LoRA adapters; where it is not told, with its defaults for servers on CPUs."""
    world = (args.tensor_parallel_size or 1) * (args.pipeline_parallel_size or 1)
    tokens = args.max_num_batched_tokens or 2048 * world
    return int(tokens // (args.max_num_seqs or 128 * world)) - 1


def _speculated(args: Any) -> int | None:
    """How many tokens vLLM's own flags ask for."""
    return args.spec_tokens or (args.speculative_config or {}).get("num_speculative_tokens")


def _obstacle(args: Any, *, on_device: bool) -> str | None:
    """Why vLLM can't verify drafts of ours under these flags, the host's or those of its devices."""
    method = _method(args)
    if method is not None and method not in BESIDE:
        return f"the proposals of speculation by {method!r} can't be replaced; beside {' and '.join(BESIDE)} they can"
    if not on_device and (args.logits_processors or has_custom_processors()):
        return "vLLM does not apply logits processors of one's own to drafts"
    if args.async_scheduling and not on_device:
        return "under --async-scheduling the tokens to verify are fixed before a grammar is asked"
    if (args.pipeline_parallel_size or 1) > 1:
        return IN_PIPELINES
    if getattr(args, "runner", None) == "pooling":
        return "a pooling model decodes nothing"
    return None
