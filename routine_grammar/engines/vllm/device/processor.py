"""What follows grammars on the device beside vLLM's second model runner.

In: requests with a placement, batches. Out: masked logits. One launch a step for all of a batch, drafts included; the host is
not asked, so that asynchronous scheduling stays so. It is told of requests as a logits processor is, and masks logits where
vLLM does by the bitmaps of hosts: before logits are copied for other processors, and before log-probabilities are taken.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsContext, LogitsProcessor, LogitsProcRequestState

from routine_grammar.engines.vllm.device.memory import Part
from routine_grammar.engines.vllm.device.placement import Placement, Thinking, placement_of, words_of
from routine_grammar.kernels.advance_and_mask import advance_and_mask, advance_states, mask_states
from routine_grammar.kernels.close_rows import close_rows
from routine_grammar.kernels.draft_forced import draft_forced
from routine_grammar.kernels.grammar_tables import SLOT_COLUMNS, THINKING, Batch, Tables
from routine_grammar.kernels.replay_states import replay_states
from routine_grammar.masks.flat.packed import pack_tokens
from routine_grammar.masks.vocabulary import Vocabulary

MOST_FUSED_ROWS = 32  # beyond them a launch for the states alone costs less than finding each in all programs of its row


class GrammarProcessor(LogitsProcessor):  # type: ignore[misc]
    """Holds the tables of grammars, and the states of all slots, on one device."""

    _of: ClassVar[weakref.WeakKeyDictionary[Any, GrammarProcessor]] = weakref.WeakKeyDictionary()

    def __init__(self, vllm_config: Any, req_states: LogitsProcRequestState) -> None:
        from vllm.tokenizers import cached_tokenizer_from_config

        vocabulary = Vocabulary.from_tokenizer(cached_tokenizer_from_config(vllm_config.model_config))
        tokens = pack_tokens(vocabulary)
        slots, drafts = req_states.max_num_reqs, vllm_config.num_speculative_tokens
        self._device, self._requests = req_states.device, req_states
        self._arena = torch.zeros(words_of(vllm_config, len(tokens)), dtype=torch.int64, device=self._device)
        self._arena[: len(tokens)] = torch.from_numpy(tokens).to(self._device)
        self._ring = torch.zeros(slots, 1 << (drafts + 1).bit_length(), dtype=torch.int64, device=self._device)
        self._slots = np.full((slots, SLOT_COLUMNS), -1, np.int32)
        self._slots_on_device = torch.from_numpy(self._slots.copy()).to(self._device)
        self._thinking = Thinking()
        self._size = vocabulary.size
        self._active = np.zeros(slots, np.bool_)
        self._closing = np.zeros(slots, np.int64)  # the length of a sequence from which on its budget may matter
        self._added: list[tuple[int, int, int]] = []
        self._stream: Any = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._uploaded: torch.cuda.Event | None = None
        self._of[req_states.all_token_ids] = self
        for dtype in {vllm_config.model_config.dtype, torch.float32}:  # heads may have a type of their own
            self._warm_up(req_states.vocab_size, dtype)
        if drafts:
            self._warm_up_drafts(drafts)

    def _warm_up(self, columns: int, dtype: torch.dtype) -> None:
        """Have every kernel compiled before a request waits for it: a slot without a grammar is asked for, and left alone."""
        wide, narrow = (torch.zeros(1, dtype=integer, device=self._device) for integer in (torch.int64, torch.int32))
        logits, batch = torch.zeros(1, columns, dtype=dtype, device=self._device), Batch(wide, narrow, wide, narrow)
        advance_and_mask(logits, self.tables, batch, self._ring)
        advance_states(self.tables, batch, self._ring)
        mask_states(logits, self.tables, batch, self._ring)
        close_rows(logits, self.tables, batch, self._ring)
        nobody = torch.zeros(1, 3, dtype=torch.int32, device=self._device)
        replay_states(self.tables, nobody, self._requests.all_token_ids.gpu, self._ring)

    def _warm_up_drafts(self, drafts: int) -> None:
        last = torch.zeros(len(self._ring), dtype=torch.int64, device=self._device)
        self.draft(torch.zeros(1, drafts, dtype=torch.int64, device=self._device), last[:1], last)

    @classmethod
    def of(cls, req_states: Any) -> GrammarProcessor | None:
        """The processor beside a model runner's requests."""
        return cls._of.get(req_states.all_token_ids)

    @property
    def tables(self) -> Tables:
        """What kernels read."""
        return Tables(self._arena, self._slots_on_device, self._size, self._thinking.end, self._thinking.opening)

    def add_request(self, slot: int, sampling_params: Any) -> bool:
        """Begin with a request's grammar in a slot, or go on with it; the slot is nobody's where it has none.

        Returns False: for our sake vLLM need not copy logits.
        """
        placement = placement_of(sampling_params)
        had_one = bool(self._active[slot])
        self._active[slot] = placement is not None
        self._slots[slot] = -1
        if placement is None:
            if had_one:
                self._added.append((slot, 0, 0))
            return False
        self._upload(placement.parts)
        self._put(slot, placement)
        return False

    def _put(self, slot: int, placement: Placement) -> None:
        prompt = int(self._requests.prompt_len.np[slot])
        entry = int(self._requests.prefill_len.np[slot]) - 1
        limit = prompt - 1 + placement.budget
        if placement.thinks:
            self._thinking = placement.thinking
        self._slots[slot] = (
            placement.comb,
            placement.table,
            placement.listed,
            placement.class_count,
            placement.start,
            entry,
            limit,
            placement.drafts,
        )
        # At position p the text may go `limit - p - 1` tokens on; a sequence of length p + 1 has its last token there.
        self._closing[slot] = limit - placement.farthest
        self._added.append((slot, prompt, THINKING if placement.thinks else placement.start))

    def _upload(self, parts: Iterable[Part]) -> None:
        """Write what is new beside what the device does, behind all that it was told to do before."""
        for begin, words in parts:
            target = self._arena[begin : begin + len(words)]
            source = torch.from_numpy(words)
            if self._stream is None:
                target.copy_(source)
                continue
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(self._stream):
                target.copy_(source.pin_memory(), non_blocking=True)
            self._uploaded = self._stream.record_event()

    def _await_uploads(self) -> None:
        if self._uploaded is not None:
            torch.cuda.current_stream(self._device).wait_event(self._uploaded)
            self._uploaded = None

    def apply_staged_writes(self) -> None:
        """Tell the device of the slots that changed, and find the states of those that go on with a text."""
        if not self._added:
            return
        self._slots_on_device.copy_(self._pinned(torch.from_numpy(self._slots.copy())), non_blocking=True)
        added = self._pinned(torch.tensor(self._added, dtype=torch.int32)).to(self._device, non_blocking=True)
        self._added = []
        self._await_uploads()
        replay_states(self.tables, added, self._requests.all_token_ids.gpu, self._ring)

    def _pinned(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.pin_memory() if self._stream is not None else tensor

    def apply(self, logits: torch.Tensor, ctx: LogitsContext) -> torch.Tensor:
        """Return the logits: they have been masked."""
        del ctx
        return logits

    def mask(self, logits: torch.Tensor, batch: Batch, slots: npt.NDArray[np.int32], lengths: npt.NDArray[np.int32]) -> None:
        """Mask the rows of requests with grammars, in place.

        slots [requests]: those of the batch. lengths [requests at least]: how long their sequences are, or more.
        """
        if not self._active[slots].any():
            return
        tables = self.tables
        if len(logits) <= MOST_FUSED_ROWS:
            advance_and_mask(logits, tables, batch, self._ring)
        else:
            advance_states(tables, batch, self._ring)
            mask_states(logits, tables, batch, self._ring)
        if (self._active[slots] & (lengths[: len(slots)] > self._closing[slots])).any():
            close_rows(logits, tables, batch, self._ring)

    def draft(self, drafts: torch.Tensor, slots: torch.Tensor, last_tokens: torch.Tensor) -> None:
        """Fill drafts [requests, most] with what has to come behind the texts of some slots."""
        draft_forced(drafts, self.tables, slots, self._requests.total_len.gpu, last_tokens, self._ring)
