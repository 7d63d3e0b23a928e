"""Which requests a device follows the grammars of, as an engine core decides it, and what is kept of each while it does.

In: requests of vLLM's whose grammars are compiled. Out: placements for the workers. The host's matcher goes on beside the
device: it sees every token before a client does.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from routine_grammar.engines.vllm.device.memory import Block, DeviceMemory
from routine_grammar.engines.vllm.device.placement import Placement, Thinking, words_of
from routine_grammar.engines.vllm.drafts import REQUEST_OPTION
from routine_grammar.masks.flat.packed import PackedTable, pack_tokens

_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class OnDevice:
    """What is kept of a request that is on the device. `checks`: its tokens are being shown to the host's matcher."""

    memory: DeviceMemory
    block: Block
    placement: Placement
    checks: bool = False

    def message(self) -> Placement:
        """The placement for workers to which the request is sent: with what they have not got yet."""
        return self.placement._replace(parts=self.memory.parts(self.block))

    def let_go(self) -> None:
        """Use the table no more."""
        self.memory.let_go(self.block)


class DeviceGrammars:
    """The grammars that an engine's devices follow."""

    def __init__(self, vllm_config: Any, vocabulary: Any) -> None:
        tokens = len(pack_tokens(vocabulary))
        self._memory = DeviceMemory(words_of(vllm_config, tokens), tokens)
        self._drafts = vllm_config.num_speculative_tokens
        self._longest = vllm_config.model_config.max_model_len
        self.rejected = 0  # requests that ended as their device said what their grammar does not allow

    def begin(self, manager: Any, request: Any) -> OnDevice | None:
        """Have the device follow a request's grammar, if it can; `manager` is vLLM's `StructuredOutputManager`."""
        table: PackedTable | None = getattr(request.structured_output_request.grammar, "table", None)
        if table is None or getattr(request, "resumable", False) or request.prompt_token_ids is None:
            return None
        most = min(request.max_tokens, self._longest - request.num_prompt_tokens)
        thinking = thinking_of(manager, request)
        if thinking is None or most < table.shortest:
            return None
        block = self._memory.hold(table)
        if block is None:
            _LOG.debug("request %s: no room on the device for its grammar", request.request_id)
            return None
        drafts = (request.sampling_params.extra_args or {}).get(REQUEST_OPTION, self._drafts)
        thinks = thinking != Thinking()
        placement = Placement.of(table, block, most_tokens=most, thinks=thinks, thinking=thinking, drafts=drafts)
        return OnDevice(self._memory, block, placement)


def thinking_of(manager: Any, request: Any) -> Thinking | None:
    """How a request's thoughts end before its text, nothing where it has none. None where a device can't find that end."""
    if manager.reasoner_cls is None or manager.enable_in_reasoning:
        return Thinking()
    structured = request.structured_output_request
    reasoner = manager._get_reasoner(request)
    if structured.reasoning_ended or reasoner is None:
        return Thinking()
    if structured.reasoning_ended is None and reasoner.is_reasoning_end(request.prompt_token_ids):
        return Thinking()
    from vllm.reasoning.basic_parsers import BaseThinkingReasoningParser

    if isinstance(reasoner, BaseThinkingReasoningParser):
        told = type(reasoner).is_reasoning_end_streaming is BaseThinkingReasoningParser.is_reasoning_end_streaming
        return Thinking(reasoner.end_token_id) if told else None
    ends: frozenset[int] = getattr(reasoner, "reasoning_end_token_ids", None) or frozenset()
    find = getattr(reasoner, "find_reasoning_end", None)
    if find is None or not ends:
        return None
    explicit = [token for token in ends if not find([token]).implicit]
    implicit = [token for token in ends if token not in explicit]
    if len(explicit) > 1 or len(implicit) > 1:
        return None
    return Thinking(*(explicit or [-1]), *(implicit or [-1]))
