"""The private names of vLLM that its masks go through: why they are replaced, and when the patches can go (see patches.py)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from routine_grammar.engines.vllm.patching import replace_method

if TYPE_CHECKING:
    from routine_grammar.masks.row import Row, RowBuffer

_BUFFER = "routine_rows"  # set on vLLM's manager


def apply_mask_patches() -> None:
    """Apply all of them; a second call changes nothing. Raises `EngineError` where vLLM is not as expected."""
    patch_rows()
    patch_cpu_masks()


def patch_rows() -> None:
    """Write the rows of a pass at once, into a buffer of ours, where all are of grammars of ours, and none has drafts.

    Why: what vLLM does around each row, for drafts that are not there, takes longer than the row; and beyond 128 requests it
    shares rows out to threads, which only helps where a grammar lets go of the interpreter. Goes when vLLM's own loop costs
    less than a row.
    """
    from vllm.v1.structured_output import StructuredOutputManager

    def replacement(original: Callable[..., Any]) -> Callable[..., Any]:
        def grammar_bitmask(
            self: Any,
            requests: Mapping[str, Any],
            structured_output_request_ids: Sequence[str],
            scheduled_spec_decode_tokens: Mapping[str, Sequence[int]],
        ) -> Any:
            theirs = self._grammar_bitmask
            if not scheduled_spec_decode_tokens and structured_output_request_ids and theirs is not None:
                rows = _rows_of(self, requests, structured_output_request_ids)
                if rows is not None:
                    return _buffer_of(self, *theirs.shape).write(rows)
            return original(self, requests, structured_output_request_ids, scheduled_spec_decode_tokens)

        return grammar_bitmask

    parameters = ("self", "requests", "structured_output_request_ids", "scheduled_spec_decode_tokens")
    replace_method(StructuredOutputManager, "grammar_bitmask", parameters, replacement)


def _rows_of(manager: Any, requests: Mapping[str, Any], names: Sequence[str]) -> list[Row | None] | None:
    """The row of each request, None for one that its grammar leaves free in this pass. None where a grammar is not ours."""
    try:  # past the property that waits for what is not compiled yet: that is no grammar of ours, and vLLM's own loop's to tell
        grammars = [requests[name].structured_output_request._grammar for name in names]
        asked = [grammar.pass_row for grammar in grammars]
    except AttributeError:
        return None
    if manager.reasoner_cls is None or manager.enable_in_reasoning:
        try:
            return [pass_row() for pass_row in asked]
        except Exception:  # which of them failed, that one tells, and its request alone ends
            return [grammar.guarded_row() for grammar in grammars]
    return [
        grammar.guarded_row() if manager._get_constraint_bounds(requests[name], ()).constraint_start == 0 else None
        for name, grammar in zip(names, grammars, strict=True)
    ]


def _buffer_of(manager: Any, lines: int, words: int) -> RowBuffer:
    """The manager's buffer of ours, made with the first rows."""
    buffer: RowBuffer | None = manager.__dict__.get(_BUFFER)
    if buffer is None:
        from routine_grammar.masks.row import RowBuffer  # where a grammar comes, and not with the plugin

        buffer = RowBuffer(lines, words)
        setattr(manager, _BUFFER, buffer)
    return buffer


def patch_cpu_masks() -> None:
    """Mask logits on CPUs by our loop, from the rows as they come.

    Why: vLLM sorts the rows into a copy and asks xgrammar, whose loop goes bit by bit: over 131,072 tokens it takes 20 to 40
    times as long for rows of one token, 5 ms for eight of them. Goes when it goes word by word.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.v1.worker import gpu_model_runner

    @functools.cache
    def masker() -> Callable[..., None]:
        from routine_grammar.engines.vllm.cpu_masks import mask_batch  # where a grammar comes, and not with the plugin

        return mask_batch

    def replacement(original: Callable[..., Any]) -> Callable[..., Any]:
        def apply_grammar_bitmask(scheduler_output: Any, grammar_output: Any, input_batch: Any, logits: Any) -> None:
            masker()(
                logits,
                grammar_output.grammar_bitmask,
                grammar_output.structured_output_request_ids,
                input_batch.req_ids,
                scheduler_output.scheduled_spec_decode_tokens,
            )

        return apply_grammar_bitmask

    parameters = ("scheduler_output", "grammar_output", "input_batch", "logits")
    replace_method(gpu_model_runner, "apply_grammar_bitmask", parameters, replacement)
