"""A logits processor for any torch loop, transformers' `generate` among them: one matcher a sequence, one kernel a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from routine_grammar.engines.vllm.environment import hide_broken_packages
from routine_grammar.errors import EngineError
from routine_grammar.kernels.mask_logits import mask_logits
from routine_grammar.masks.matcher import Matcher

# Before transformers is imported: beside vLLM's CPU build it finds CUDA packages that can't be loaded.
hide_broken_packages()


class GrammarLogitsProcessor:
    """Masks the logits of a batch in place, each sequence by its matcher; None leaves a sequence free.

    Called with `input_ids` [sequences, length] int64 and `scores` [sequences, columns] float, once a step, as transformers
    calls a `LogitsProcessor`: what `input_ids` gained since the last call is taken by the matchers. Sequences keep their
    places, so beam search, which moves them, is not supported. One processor serves one generation. Raises `EngineError` for
    a token that a matcher refuses, and for `input_ids` that do not go on from those of the last call.
    """

    def __init__(self, matchers: Sequence[Matcher | None]) -> None:
        self._matchers = tuple(matchers)
        words = max((matcher.words for matcher in matchers if matcher is not None), default=0)
        self._columns = max((matcher.size for matcher in matchers if matcher is not None), default=0)
        self._rows = torch.zeros((len(self._matchers), words), dtype=torch.int32)
        self._seen: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Mask `scores` for the next token and return them."""
        if len(input_ids) != len(self._matchers):
            raise EngineError(f"{len(input_ids)} sequences, and {len(self._matchers)} matchers")
        if scores.shape[-1] < self._columns:
            raise EngineError(f"scores of {scores.shape[-1]} tokens, and matchers of a vocabulary of {self._columns}")
        if self._seen is not None:
            known = self._seen.shape[1]
            if input_ids.shape[1] <= known or not torch.equal(input_ids[:, :known], self._seen):
                message = "the sequences do not go on from those of the last call: a generation needs a processor of its own"
                raise EngineError(message)
            for place, tokens in enumerate(input_ids[:, known:].tolist()):
                self._take(place, tokens)
        self._seen = input_ids.clone()
        row_ids = [place if self._fills(place) else -1 for place in range(len(self._matchers))]
        device = scores.device
        mask_logits(scores, self._rows.to(device), torch.tensor(row_ids, dtype=torch.int32, device=device))
        return scores

    def _take(self, place: int, tokens: Sequence[int]) -> None:
        matcher = self._matchers[place]
        for token in tokens:
            if matcher is not None and not matcher.finished and not matcher.advance(token):
                raise EngineError(f"sequence {place}: token {token} is not allowed by its grammar")

    def _fills(self, place: int) -> bool:
        """Write a sequence's row; False where it is free or finished."""
        matcher = self._matchers[place]
        if matcher is None or matcher.finished:
            return False
        matcher.fill(self._rows[place].numpy())
        return True
