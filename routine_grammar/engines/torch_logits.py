"""A logits processor for any torch loop, transformers' `generate` among them: one matcher a sequence, one kernel a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from routine_grammar.engines.vllm.environment import hide_broken_packages
from routine_grammar.errors import EngineError
from routine_grammar.kernels.mask_logits import mask_logits
from routine_grammar.masks.matcher import Matcher
from routine_grammar.masks.row import Row, RowBuffer

# Before transformers is imported: beside vLLM's CPU build it finds CUDA packages that can't be loaded.
hide_broken_packages()


class GrammarLogitsProcessor:
    """Masks the logits of a batch in place, each sequence by its matcher; None leaves a sequence free.

    Called with `input_ids` [sequences, length] int64 and `scores` [sequences, columns] float, once a step, as transformers
    calls a `LogitsProcessor`: what `input_ids` gained since the last call is taken by the matchers. There are as many sequences
    as matchers, or the same multiple of each in a row (`num_beams`, `num_return_sequences`): those go their own ways under
    one grammar, and may change places, as beams do. One processor serves one generation. Raises `EngineError` for a token that
    a matcher refuses, and for `input_ids` that do not go on from those of the last call. Of several sequences of one matcher,
    one with a token that it refuses may only end from there on: beam search fills up with such where there are too few others.
    """

    def __init__(self, matchers: Sequence[Matcher | None]) -> None:
        self._first = tuple(matchers)
        self._matchers: list[Matcher | _GivenUp | None] = []  # of the sequences
        self._words = max((matcher.words for matcher in matchers if matcher is not None), default=0)
        self._columns = max((matcher.size for matcher in matchers if matcher is not None), default=0)
        self._buffer = RowBuffer(0, self._words)
        self._seen: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Mask `scores` for the next token and return them."""
        if scores.shape[-1] < self._columns:
            raise EngineError(f"scores of {scores.shape[-1]} tokens, and matchers of a vocabulary of {self._columns}")
        if self._seen is None:
            self._begin(len(input_ids))
        else:
            self._go_on(input_ids, self._seen)
        self._seen = input_ids.clone()
        rows = [None if matcher is None or matcher.finished else matcher.row() for matcher in self._matchers]
        row_ids = torch.tensor([-1 if row is None else place for place, row in enumerate(rows)], dtype=torch.int32)
        mask_logits(scores, torch.from_numpy(self._buffer.write(rows)).to(scores.device), row_ids.to(scores.device))
        return scores

    def _begin(self, sequences: int) -> None:
        """Give each sequence a matcher of its own."""
        if not self._first or sequences % len(self._first):
            raise EngineError(f"{sequences} sequences, and {len(self._first)} matchers")
        of_each = sequences // len(self._first)
        self._matchers = [
            matcher if matcher is None or not number else matcher.fork() for matcher in self._first for number in range(of_each)
        ]
        self._buffer = RowBuffer(sequences, self._words)

    def _go_on(self, input_ids: torch.Tensor, seen: torch.Tensor) -> None:
        """Take what the sequences gained, wherever they stand by now."""
        known = seen.shape[1]
        if len(input_ids) != len(seen):
            raise EngineError(f"{len(input_ids)} sequences, and {len(self._first)} matchers for {len(seen)} of them")
        if input_ids.shape[1] <= known:
            raise _apart()
        if not torch.equal(input_ids[:, :known], seen):
            self._follow(input_ids[:, :known].tolist(), seen.tolist())
        for place, tokens in enumerate(input_ids[:, known:].tolist()):
            self._take(place, tokens)

    def _follow(self, sequences: list[list[int]], seen: list[list[int]]) -> None:
        """Give each sequence the matcher of the one whose text it has, of those that are under its grammar."""
        of_each = len(seen) // len(self._first)
        places = {(number // of_each, *tokens): number for number, tokens in enumerate(seen)}
        followed: set[int] = set()
        matchers: list[Matcher | _GivenUp | None] = []
        for number, tokens in enumerate(sequences):
            before = places.get((number // of_each, *tokens))
            if before is None:
                raise _apart()
            matcher = self._matchers[before]
            matchers.append(matcher.fork() if matcher is not None and before in followed else matcher)
            followed.add(before)
        self._matchers = matchers

    def _take(self, place: int, tokens: Sequence[int]) -> None:
        matcher = self._matchers[place]
        for token in tokens:
            if matcher is None or matcher.finished or matcher.advance(token):
                continue
            if isinstance(matcher, _GivenUp) or len(self._matchers) == len(self._first):
                raise EngineError(f"sequence {place}: token {token} is not allowed by its grammar")
            self._matchers[place] = matcher = _GivenUp(matcher)


class _GivenUp:
    """In place of a matcher: whatever comes is taken, and nothing allowed but the end."""

    finished = False

    def __init__(self, matcher: Matcher) -> None:
        self._row = Row.of(None, np.array(sorted(matcher.ends), np.int32), False)

    def row(self) -> Row:
        return self._row

    def advance(self, token_id: int) -> bool:
        return True

    def fork(self) -> _GivenUp:
        return self


def _apart() -> EngineError:
    return EngineError("the sequences do not go on from those of the last call: a generation needs a processor of its own")
