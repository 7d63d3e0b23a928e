"""The matcher: one sequence under a grammar, token by token, with what it may say next and what it must."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy

import numpy as np
import numpy.typing as npt

from routine_grammar.automaton.automaton import Piece
from routine_grammar.automaton.step import NO_BOUNDS
from routine_grammar.errors import GrammarError, VocabularyError
from routine_grammar.masks.distinct import AnyPlace, AnyRows
from routine_grammar.masks.row import NO_TOKEN, Ends, Row
from routine_grammar.masks.rows import Run

# Where a sequence stands after its last token (None: none yet), and how many tokens it is into a run of forced ones, where one
# was looked for.
_Step = tuple[AnyPlace, int | None, Run | None, int]


class Matcher:
    """Follows one sequence. `budget` is how many tokens it may have in all; None: as many as it likes.

    Within a budget only tokens are allowed after which the rest still suffices to end the text, so that a sequence cut off
    by it is whole. Raises `GrammarError` where not even the shortest text fits the budget. `eos` are the tokens that end a
    text, where they are not the vocabulary's; one that spells something does not do so within a text. `canonical`: of the
    tokens that begin to spell forced text only the one is allowed that the tokenizer would write; else all of them.
    """

    def __init__(
        self,
        rows: AnyRows,
        budget: int | None = None,
        *,
        eos: Iterable[int] | None = None,
        canonical: bool = False,
    ) -> None:
        self._rows = rows
        self.words = rows.vocabulary.words  # of a packed row, 32 bits each
        self.size = rows.vocabulary.size  # of the vocabulary, in tokens
        self._canonical = canonical
        self._ending = rows.shared.ends(eos)
        self._ends = self._ending.ids
        self._history: list[_Step] = [(rows.start(), None, None, 0)]
        self._finished_at: int | None = None
        self._text_budget: int | None = None
        self._free_until = NO_BOUNDS  # so many steps of the history the budget does not matter, wherever the text is
        if budget is not None:
            if budget < (shortest := self.fewest_tokens):
                raise GrammarError(f"the shortest text of the grammar needs {shortest} tokens; the budget is {budget}")
            self.limit(budget)

    def limit(self, budget: int) -> None:
        """Allow `budget` tokens in all from now on, the end-of-text token among them where there is room for it."""
        self._text_budget = budget - (self.tokens + self.fewest_tokens < budget)
        self._free_until = self._text_budget - self._rows.farthest_of_all

    @property
    def tokens(self) -> int:
        """How many tokens were taken."""
        return len(self._history) - 1

    @property
    def finished(self) -> bool:
        """Whether an end-of-text token was taken."""
        return self._finished_at is not None

    @property
    def may_end(self) -> bool:
        """Whether the text may end here."""
        return self._rows.row(self._place).ends

    @property
    def fewest_tokens(self) -> int:
        """How few further tokens suffice to end the text, the end-of-text token not counted."""
        return self._rows.fewest_tokens(self._place)

    @property
    def _place(self) -> AnyPlace:
        return self._history[-1][0]

    def advance(self, token_id: int) -> bool:
        """Take a token; False, and nothing changes, where it is not allowed.

        Raises `VocabularyError` for an id outside the vocabulary. The budget is not checked here: a token over it is an
        engine's doing, and legal text.
        """
        place, _, run, _ = self._history[-1]
        known = place.after.get(token_id)
        if known is not None and run is None and token_id not in self._ends and self._finished_at is None:
            self._history.append((known, token_id, None, 0))  # nearly always
            return True
        return self._advance(token_id)

    def _advance(self, token_id: int) -> bool:
        place, _, run, taken = self._history[-1]
        if not 0 <= token_id < self.size:
            raise VocabularyError(f"token id {token_id} is outside the vocabulary of {self.size} tokens")
        if self.finished:
            return False
        if token_id in self._ends:
            if not self.may_end:
                return False
            self._finished_at = self.tokens + 1
            self._history.append((place, None, None, 0))
            return True
        if run is not None and taken < len(run.tokens) and run.tokens[taken] == token_id:
            self._history.append(run.steps[taken])
            return True
        after = self._rows.after(place, token_id)
        if after is None:
            return False
        self._history.append((after, token_id, None, 0))
        return True

    def advance_all(self, token_ids: Sequence[int]) -> bool:
        """Take these tokens; False, and nothing changes, where one is not allowed. Raises as `advance` does."""
        if len(token_ids) == 1:
            return self.advance(token_ids[0])
        before = self.tokens
        self._advance_in_run(token_ids)
        is_allowed = False
        try:
            is_allowed = all(self.advance(token) for token in token_ids[self.tokens - before :])
        finally:
            if not is_allowed:
                self.rollback(self.tokens - before)
        return is_allowed

    def _advance_in_run(self, token_ids: Sequence[int]) -> None:
        """Take those of the tokens at once that a known run has next, where these begin as it goes on."""
        _, _, run, taken = self._history[-1]
        if run is None:
            return
        end = min(taken + len(token_ids), len(run.tokens))
        if run.tokens[taken:end] == tuple(token_ids[: end - taken]) and self._ends.isdisjoint(run.tokens[taken:end]):
            self._history += run.steps[taken:end]

    def rollback(self, count: int) -> None:
        """Undo the last `count` tokens."""
        if not 0 <= count <= self.tokens:
            raise GrammarError(f"can't roll back {count} of {self.tokens} tokens")
        if count:
            del self._history[-count:]
        if self._finished_at is not None and self.tokens < self._finished_at:
            self._finished_at = None

    def fork(self) -> Matcher:
        """Another matcher at the same place, which goes its own way from there on."""
        other = copy(self)
        other._history = list(self._history)
        return other

    @property
    def ending(self) -> Ends:
        """The tokens that end a text."""
        return self._ending

    @property
    def ends(self) -> frozenset[int]:
        """The ids of the tokens that end a text."""
        return self._ends

    @property
    def is_canonical(self) -> bool:
        """Whether forced text has only the tokens that its tokenizer would write."""
        return self._canonical

    def allowed(self) -> npt.NDArray[np.int32]:
        """The ids of all tokens allowed next, sorted, ends of text among them."""
        return self.row().allowed

    def row(self) -> Row:
        """The tokens allowed next, ends of text among them."""
        place, _, run, taken = self._history[-1]
        if self._finished_at is not None:
            return NO_TOKEN
        if len(self._history) <= self._free_until:  # nearly always
            if place.is_free or not self._canonical:
                return self._rows.row(place).whole(self._ending)
            if run is not None and taken < len(run.tokens) and run.tokens[taken] not in self._ends:
                return self._rows.shared.single(run.tokens[taken])
        if (forced := self._forced_token()) is not None:
            return self._rows.shared.single(forced)
        if (left := self._tokens_left()) is None:
            return self._rows.row(self._place).whole(self._ending)
        reach = self._rows.reach(self._place)
        if len(self._ending.within):
            reach = reach.without(self._ending.within)
        return reach.row(left).whole(self._ending)

    def fill(self, row: npt.NDArray[np.int32]) -> None:
        """Overwrite a packed row (int32 [at least ceil(V / 32)]) with the tokens allowed next, bit 1 = allowed."""
        if len(row) < self.words:
            raise VocabularyError(f"a row of {len(row)} words can't hold {self.size} tokens")
        self.row().write(row)

    def forced_pieces(self) -> list[Piece]:
        """The only bytes and marker symbols that can come next, up to the first choice."""
        return [] if self.finished else self._rows.automaton.forced_pieces(self._rows.configuration(self._place))

    def forced_tokens(self, most: int | None = None) -> list[int]:
        """The forced text as the tokenizer would write it, and the end of text where that is all that can come; at most `most`.

        The last tokens are left out where their cut depends on what follows. Other spellings are allowed too, unless the
        matcher is canonical: then each of them is the only token that `allowed` leaves at its place. Where the vocabulary does
        not know its tokenizer, these are the tokens of which each is the only one allowed.
        """
        if self.finished:
            return []
        run, taken = self._run()
        tokens: list[int] = []
        for place in range(taken, len(run.tokens)):
            if len(tokens) == most or (self._canonical and not self._suffices(run, place, len(tokens))):
                return tokens
            if run.tokens[place] in self._ends:
                return tokens
            tokens.append(run.tokens[place])
        if run.ends and self._ends and len(tokens) != most:
            tokens.append(int(self._likely_end()))
        return tokens

    def _likely_end(self) -> int:
        """Of the tokens that end a text, the one that the vocabulary has for it."""
        return next((token for token in self._rows.vocabulary.eos if token in self._ends), min(self._ends))

    def _run(self) -> tuple[Run, int]:
        """The run of forced tokens that the sequence is in, and how many of them were taken."""
        place, token, run, taken = self._history[-1]
        if run is not None:
            return run, taken
        run = self._rows.run(place, token)
        if run.tokens:
            self._history[-1] = (place, token, run, 0)
        return run, 0

    def _forced_token(self) -> int | None:
        """The token to which a canonical matcher narrows what is allowed; None where there is none, or no budget for it.

        Where only the end can follow, that is the token that the vocabulary has for it.
        """
        if not self._canonical:
            return None
        run, taken = self._run()
        if taken == len(run.tokens):
            return int(self._likely_end()) if run.ends and self._ends else None
        return run.tokens[taken] if run.tokens[taken] not in self._ends and self._suffices(run, taken) else None

    def _suffices(self, run: Run, place: int, ahead: int = 0) -> bool:
        """Whether the budget suffices to end the text behind a token of a run, `ahead` tokens being taken before it by then."""
        left = self._tokens_left(ahead)
        return left is None or self._rows.fewest_tokens(run.after[place]) <= left

    def count_forced(self, token_ids: Iterable[int]) -> int | None:
        """Take these tokens, and tell how many of them were the only possible continuation; None where one is not allowed."""
        forced = 0
        for token in token_ids:
            if not 0 <= token < self.size:
                return None
            forced += self._is_forced(token)
            if not self.advance(token):
                return None
        return forced

    def _is_forced(self, token: int) -> bool:
        if token in self._ends:
            return self.may_end and set(self.allowed().tolist()) <= self._ends
        pieces = self.forced_pieces()
        data = self._rows.vocabulary.tokens[token]
        if data:
            return pieces[: len(data)] == list(data)
        return bool(pieces) and self._rows.vocabulary.special.get(str(pieces[0])) == token

    def _tokens_left(self, ahead: int = 0) -> int | None:
        """How many tokens of text the budget leaves behind the next but `ahead`, where that may matter; else None."""
        if self._text_budget is None:
            return None
        left = self._text_budget - self.tokens - 1 - ahead
        return None if left >= self._rows.farthest(self._place) else left
