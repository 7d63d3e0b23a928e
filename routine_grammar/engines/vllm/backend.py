"""The backend multiplexer: our grammars beside whatever structured-output backend vLLM was configured with.

What masks and compiles is imported with the first of our grammars, not with the plugin: workers never need it.
"""

from __future__ import annotations

from vllm.v1.structured_output.backend_types import (
    StructuredOutputBackend,
    StructuredOutputGrammar,
    StructuredOutputOptions,
)

from routine_grammar.engines.vllm.settings import EngineSettings, Spelling
from routine_grammar.grammar.payload import is_payload


def multiplexer(inner: type[StructuredOutputBackend]) -> type[StructuredOutputBackend]:
    """A backend class that takes our grammars and hands every other request to an `inner` backend, unchanged."""

    class RoutineMultiplexer(inner):  # type: ignore[misc]
        """vLLM's backend with ours in front."""

        def compile_grammar(
            self, request_type: StructuredOutputOptions, grammar_spec: str, stop_token_ids: set[int] | None = None
        ) -> StructuredOutputGrammar:
            if request_type is StructuredOutputOptions.GRAMMAR and is_payload(grammar_spec):
                from routine_grammar.engines.vllm.grammars import CompiledGrammars
                from routine_grammar.engines.vllm.request_grammar import RoutineGrammar

                compiled = CompiledGrammars.of(self.tokenizer)
                canonical = EngineSettings.of(self.vllm_config).spelling is Spelling.CANONICAL
                return RoutineGrammar(compiled.rows(grammar_spec), stop_token_ids or (), canonical=canonical)
            return super().compile_grammar(request_type, grammar_spec, stop_token_ids=stop_token_ids)

    RoutineMultiplexer.__name__ = RoutineMultiplexer.__qualname__ = f"Routine{inner.__name__}"
    return RoutineMultiplexer
