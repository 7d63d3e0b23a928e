"""The vLLM general plugin: loaded by entry point in API servers, engine cores, workers and offline `LLM`s."""

from __future__ import annotations


def register() -> None:
    """Make vLLM take our grammars. Raises `EngineError` under a vLLM that is not supported, so that it does not start."""
    from routine_grammar.engines.vllm.environment import prepare

    prepare()
    from routine_grammar.engines.vllm.patches import apply_patches

    apply_patches()
