"""The grammar of one request: vLLM's `StructuredOutputGrammar` over one of our matchers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from vllm.v1.structured_output.backend_types import StructuredOutputGrammar

from routine_grammar.masks.distinct import AnyRows
from routine_grammar.masks.matcher import Matcher
from routine_grammar.masks.row import Row

_LOG = logging.getLogger(__name__)


class RoutineGrammar(StructuredOutputGrammar):  # type: ignore[misc]
    """One request under one of our grammars. What fails here ends this request, never the engine."""

    def __init__(self, rows: AnyRows, eos: Iterable[int], *, canonical: bool = True) -> None:
        self._rows = rows
        self._eos = sorted(set(eos)) or list(rows.vocabulary.eos)
        self._canonical = canonical
        self._matcher = Matcher(rows, eos=self._eos, canonical=canonical)
        self._request: Any = None
        self._most_tokens: int | None = None
        self._ahead = 0
        self._before = -1  # tokens that the request said before the grammar
        self._failed = False
        self._drafts = True
        self._bitmask: torch.Tensor | None = None
        self._packed: npt.NDArray[np.int32] = np.zeros((0, 0), np.int32)
        self.next_row: Callable[[], Row | None] = self._matcher.next_row  # as `guarded_row`, but that it may raise

    def bind(self, most_tokens: int, thinking: Any = None, ahead: int = 0) -> None:
        """Follow a request's budget: it may have `most_tokens` output tokens.

        `thinking` is the request where it may say something before the grammar, which counts too; `ahead`: so many of those
        tokens may be drafts that it does not count yet as masks are asked for.
        """
        self._most_tokens, self._request, self._ahead = most_tokens, thinking, ahead
        self.next_row = self._matcher.next_row if thinking is None else self.guarded_row
        if thinking is None:
            self._matcher.limit(most_tokens)

    def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:
        """Advance by tokens; False, and nothing advances, where one is not allowed, which ends the request with an error."""
        try:
            return not self._failed and self._matcher.advance_all(tokens)
        except Exception:
            _LOG.exception("request %s: the grammar failed", request_id)
            return False

    def validate_tokens(self, tokens: list[int]) -> list[int]:
        """The longest prefix of `tokens` that is allowed; nothing advances."""
        accepted = 0
        try:
            for token in tokens:
                if not self._matcher.advance(token):
                    break
                accepted += 1
        except Exception:
            _LOG.exception("the grammar failed on a draft")
        self._matcher.rollback(accepted)
        return tokens[:accepted]

    def forced_tokens(self, most: int) -> list[int]:
        """At most so many tokens of the text that has to come next, to be drafted."""
        if not self._drafts:
            return []
        try:
            self._keep_budget()
            return self._matcher.forced_tokens(most)
        except Exception:
            _LOG.exception("the grammar failed as its forced text was asked for: nothing of it is drafted any more")
            self._drafts = False
            return []

    def rollback(self, num_tokens: int) -> None:
        """Undo the last tokens."""
        self._matcher.rollback(num_tokens)

    def fill_bitmask(self, bitmask: torch.Tensor, batch_index: int) -> None:
        """Write the allowed tokens into row `batch_index` of `bitmask` (int32 [rows, words], bit 1 = allowed)."""
        if bitmask is not self._bitmask:  # there is one a batch manager: its view is made once, and not for every row
            self._bitmask, self._packed = bitmask, bitmask.numpy()
        self.row().write(self._packed[batch_index])

    def row(self) -> Row:
        """The tokens allowed next."""
        try:
            self._keep_budget()
            return self._matcher.row()
        except Exception:
            _LOG.exception("the grammar failed: its request ends with an error")
            self._failed = True
            return Row.single(self._eos[0])

    def guarded_row(self) -> Row | None:
        """As `row`, and None where the text is over."""
        return None if self._matcher.finished else self.row()

    def _keep_budget(self) -> None:
        """Tell the matcher how many tokens are left to it, once it is known what the request said before the grammar.

        Counted while drafts are under way that is too few, and never too many: so the most that was counted is it.
        """
        if self._request is None or self._most_tokens is None:
            return
        taken = self._matcher.tokens
        before = len(self._request.output_token_ids) - taken
        if before > self._before:
            self._before = before
            self._matcher.limit(self._most_tokens - before - (self._ahead if taken == 0 else 0))

    def is_terminated(self) -> bool:
        """Whether an end-of-text token was accepted."""
        return self._matcher.finished

    def reset(self) -> None:
        """Begin anew."""
        self._before = -1
        self._matcher = Matcher(self._rows, eos=self._eos, canonical=self._canonical)
        self.next_row = self._matcher.next_row
        if self._most_tokens is not None:
            self.bind(self._most_tokens, self._request, self._ahead)
