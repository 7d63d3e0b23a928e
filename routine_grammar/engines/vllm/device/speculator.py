"""The speculator of vLLM's second model runner that proposes forced text, from the states of grammars on the device."""

from __future__ import annotations

from typing import Any

import torch
from vllm.v1.worker.gpu.spec_decode.speculator import BaseSpeculator

from routine_grammar.engines.vllm.device.processor import GrammarProcessor


class ForcedSpeculator(BaseSpeculator):  # type: ignore[misc]
    """Proposes the tokens that have to come, and for what is behind them each text's last token: vLLM verifies it as any."""

    supports_mm_inputs = False
    draft_logits = None

    def __init__(self, vllm_config: Any, device: torch.device, req_states: Any) -> None:
        self._requests = req_states
        most, requests = vllm_config.speculative_config.num_speculative_tokens, vllm_config.scheduler_config.max_num_seqs
        self._drafts = torch.zeros(requests, most, dtype=torch.int64, device=device)

    def init_cudagraph_manager(self, cudagraph_mode: Any) -> None:
        """There is no graph."""

    def capture(self) -> None:
        """There is none."""

    def propose(
        self,
        input_batch: Any,
        attn_metadata: Any,
        slot_mappings: Any,
        last_hidden_states: Any,
        aux_hidden_states: Any,
        num_sampled: torch.Tensor,
        num_rejected: torch.Tensor,
        last_sampled: torch.Tensor,
        *args: Any,
        dummy_run: bool = False,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The drafts of each request of a batch: int64 [requests, most]."""
        drafts = self._drafts[: input_batch.num_reqs]
        processor = GrammarProcessor.of(self._requests)
        if dummy_run or processor is None:
            return drafts.zero_()
        processor.draft(drafts, input_batch.idx_mapping, last_sampled.view(-1))
        return drafts
