"""Checking grammars in an API server, off its event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import Any

from routine_grammar.errors import RoutineGrammarError


@cache
def compile_pool() -> ThreadPoolExecutor:
    """The threads that compile, so that other requests' streams go on."""
    return ThreadPoolExecutor(2, thread_name_prefix="routine_grammar")


async def check_off_loop(tokenizer: Any, payload: str, max_tokens: int | None) -> None:
    """Compile a payload in the pool; raises vLLM's validation error, a 400, for one that is malformed or does not fit."""
    from vllm.exceptions import VLLMValidationError

    def check() -> None:
        from routine_grammar.engines.vllm.grammars import CompiledGrammars

        CompiledGrammars.of(tokenizer).check(payload, max_tokens)

    try:
        await asyncio.get_running_loop().run_in_executor(compile_pool(), check)
    except RoutineGrammarError as error:
        message = f"the routine_grammar grammar: {error}"
        raise VLLMValidationError(message, parameter="structured_outputs.grammar") from error


async def compile_off_loop(tokenizer: Any, params: Any) -> None:
    """Compile the structured outputs of a foreign request in the pool, where they can be, so that they are known later on."""

    def compile_foreign() -> None:
        from routine_grammar.engines.vllm.foreign import as_ours, is_foreign
        from routine_grammar.engines.vllm.grammars import CompiledGrammars

        if is_foreign(params):
            with suppress(RoutineGrammarError):  # told, or handed over, where the request is validated
                CompiledGrammars.of(tokenizer).rows(as_ours(params).grammar)

    await asyncio.get_running_loop().run_in_executor(compile_pool(), compile_foreign)
