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
from routine_grammar.masks.flat.packed import PackedTable
from routine_grammar.masks.matcher import Matcher
from routine_grammar.masks.row import Row

_LOG = logging.getLogger(__name__)


class RoutineGrammar(Matcher, StructuredOutputGrammar):  # type: ignore[misc]
    """One request under one of our grammars. What fails here ends this request, never the engine.

    It is a matcher, and does not have one: `accept_tokens` and `pass_row` are asked for every token of every sequence, where a
    call more is a third of the time.
    """

    def __init__(self, rows: AnyRows, eos: Iterable[int], *, canonical: bool = True) -> None:
        self._eos = sorted(set(eos)) or list(rows.vocabulary.eos)
        super().__init__(rows, eos=self._eos, canonical=canonical)
        self._request: Any = None
        self._most_tokens: int | None = None
        self._ahead = 0
        self._before = -1  # tokens that the request said before the grammar
        self._failed = False
        self._drafts = True
        self._bitmask: torch.Tensor | None = None
        self.table: PackedTable | None = None  # what a device follows the grammar by
        self._packed: npt.NDArray[np.int32] = np.zeros((0, 0), np.int32)
        self.pass_row: Callable[[], Row | None] = self._next_row  # as `guarded_row`, but that it may raise

    def bind(self, most_tokens: int, thinking: Any = None, ahead: int = 0) -> None:
        """Follow a request's budget: it may have `most_tokens` output tokens.

        `thinking` is the request where it may say something before the grammar, which counts too; `ahead`: so many of those
        tokens may be drafts that it does not count yet as masks are asked for.
        """
        self._most_tokens, self._request, self._ahead = most_tokens, thinking, ahead
        self.pass_row = self._next_row if thinking is None else self.guarded_row
        if thinking is None:
            self.limit(most_tokens)

    def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:
        """Advance by tokens; False, and nothing advances, where one is not allowed, which ends the request with an error."""
        try:
            if len(tokens) == 1 and not self._failed:
                token = tokens[0]
                place, _, run, taken = self._history[-1]
                if token not in self._ends and self._finished_at is None:  # nearly always
                    if run is None:
                        if (known := place.after.get(token)) is not None:
                            self._history.append((known, token, None, 0))
                            return True
                    elif taken < len(run.steps) and (step := run.steps[taken])[1] == token:
                        self._history.append(step)
                        return True
            return not self._failed and self.advance_all(tokens)
        except Exception:
            _LOG.exception("request %s: the grammar failed", request_id)
            return False

    def validate_tokens(self, tokens: list[int]) -> list[int]:
        """The longest prefix of `tokens` that is allowed; nothing advances."""
        accepted = 0
        try:
            for token in tokens:
                if not self.advance(token):
                    break
                accepted += 1
        except Exception:
            _LOG.exception("the grammar failed on a draft")
        self.rollback(accepted)
        return tokens[:accepted]

    def forced_tokens(self, most: int | None = None) -> list[int]:
        """At most so many tokens of the text that has to come next, to be drafted."""
        if not self._drafts:
            return []
        try:
            self._keep_budget()
            return super().forced_tokens(most)
        except Exception:
            _LOG.exception("the grammar failed as its forced text was asked for: nothing of it is drafted any more")
            self._drafts = False
            return []

    def fill_bitmask(self, bitmask: torch.Tensor, batch_index: int) -> None:
        """Write the allowed tokens into row `batch_index` of `bitmask` (int32 [rows, words], bit 1 = allowed)."""
        if bitmask is not self._bitmask:  # there is one a batch manager: its view is made once, and not for every row
            self._bitmask, self._packed = bitmask, bitmask.numpy()
        self.row().write(self._packed[batch_index])

    def row(self) -> Row:
        """The tokens allowed next."""
        try:
            self._keep_budget()
            return super().row()
        except Exception:
            _LOG.exception("the grammar failed: its request ends with an error")
            self._failed = True
            return Row.single(self._eos[0])

    def guarded_row(self) -> Row | None:
        """As `row`, and None where the text is over."""
        return None if self.finished else self.row()

    def _next_row(self) -> Row | None:
        place, _, run, taken = self._history[-1]
        if self._finished_at is not None:
            return None
        if len(self._history) <= self._free_until:  # nearly always
            if run is None and (place.is_free or not self._canonical):
                return self._rows.row(place).whole(self._ending)
            if run is not None and self._canonical and taken < len(run.tokens) and run.tokens[taken] not in self._ends:
                return self._rows.shared.single(run.tokens[taken])
        return super().row()

    def _keep_budget(self) -> None:
        """Tell the matcher how many tokens are left to it, once it is known what the request said before the grammar.

        Counted while drafts are under way that is too few, and never too many: so the most that was counted is it.
        """
        if self._request is None or self._most_tokens is None:
            return
        before = len(self._request.output_token_ids) - self.tokens
        if before > self._before:
            self._before = before
            self.limit(self._most_tokens - before - (self._ahead if self.tokens == 0 else 0))

    def is_terminated(self) -> bool:
        """Whether an end-of-text token was accepted."""
        return self.finished

    def reset(self) -> None:
        """Begin anew."""
        self._before, self._failed = -1, False
        self.rollback(self.tokens)
