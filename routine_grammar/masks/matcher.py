"""The matcher: one sequence under a grammar, token by token, with what it may say next and what it must."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from routine_grammar.automaton.automaton import Piece
from routine_grammar.errors import GrammarError, VocabularyError
from routine_grammar.masks.bits import BITS, clear_bits, set_bits
from routine_grammar.masks.distinct import AnyPlace, AnyRows
from routine_grammar.masks.leaf_rows import Reach
from routine_grammar.masks.rows import Row, Run

# Where a sequence stands after its last token (None: none yet), and how many tokens it is into a run of forced ones, where one
# was looked for.
_Step = tuple[AnyPlace, int | None, Run | None, int]


def _behind(run: Run, place: int) -> _Step:
    """Where a sequence stands after a token of a run; behind its last one no run is known yet."""
    return run.after[place], run.tokens[place], run if place + 1 < len(run.tokens) else None, place + 1


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
        self._ends = frozenset(rows.vocabulary.eos if eos is None else eos)
        self._eos = np.array(sorted(self._ends), np.int32)
        tokens = rows.vocabulary.tokens
        self._spelling_ends = np.array([end for end in sorted(self._ends) if end < len(tokens) and tokens[end]], np.int32)
        self._history: list[_Step] = [(rows.start(), None, None, 0)]
        self._finished_at: int | None = None
        self._text_budget: int | None = None
        if budget is not None:
            if budget < (shortest := self.fewest_tokens):
                raise GrammarError(f"the shortest text of the grammar needs {shortest} tokens; the budget is {budget}")
            self.limit(budget)

    def limit(self, budget: int) -> None:
        """Allow `budget` tokens in all from now on, the end-of-text token among them where there is room for it."""
        self._text_budget = budget - (self.tokens + self.fewest_tokens < budget)

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
        if not 0 <= token_id < self.size:
            raise VocabularyError(f"token id {token_id} is outside the vocabulary of {self.size} tokens")
        if self.finished:
            return False
        place, _, run, taken = self._history[-1]
        if token_id in self._ends:
            if not self.may_end:
                return False
            self._finished_at = self.tokens + 1
            self._history.append((place, None, None, 0))
            return True
        if run is not None and taken < len(run.tokens) and run.tokens[taken] == token_id:
            self._history.append(_behind(run, taken))
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
            self._history += [_behind(run, place) for place in range(taken, end)]

    def rollback(self, count: int) -> None:
        """Undo the last `count` tokens."""
        if not 0 <= count <= self.tokens:
            raise GrammarError(f"can't roll back {count} of {self.tokens} tokens")
        if count:
            del self._history[-count:]
        if self._finished_at is not None and self.tokens < self._finished_at:
            self._finished_at = None

    def allowed(self) -> npt.NDArray[np.int32]:
        """The ids of all tokens allowed next, sorted, ends of text among them."""
        if self.finished:
            return np.zeros(0, np.int32)
        if (forced := self._forced_token()) is not None:
            return np.array([forced], np.int32)
        row = self._rows.row(self._place)
        if (left := self._tokens_left()) is None:
            ids = row.allowed
            ids = ids[~np.isin(ids, self._spelling_ends)] if len(self._spelling_ends) else ids
        else:
            reach = self._reach()
            ids = reach.tokens[reach.needed <= self._most(reach, left, row)]
        return np.union1d(ids, self._eos).astype(np.int32) if row.ends else ids

    def _reach(self) -> Reach:
        """How far the end is after each token that the grammar allows, but those that end a text and are none of it here."""
        reach = self._rows.reach(self._place)
        if not len(self._spelling_ends):
            return reach
        within = ~np.isin(reach.tokens, self._spelling_ends)
        return Reach(reach.tokens[within], reach.needed[within], self.words)

    def _most(self, reach: Reach, left: int, row: Row) -> int:
        """How many tokens may be needed behind the next one.

        An engine may set a budget that is too small by now: then as many as the shortest way needs, for never an empty set.
        """
        return left if row.ends else max(left, reach.least)

    def fill(self, row: npt.NDArray[np.int32]) -> None:
        """Overwrite a packed row (int32 [at least ceil(V / 32)]) with the tokens allowed next, bit 1 = allowed."""
        if len(row) < self.words:
            raise VocabularyError(f"a row of {len(row)} words can't hold {self.size} tokens")
        if self.finished:
            row[:] = 0
        elif (forced := self._forced_token()) is not None:
            row.fill(0)
            row[forced >> 5] = BITS[forced & 31]
        else:
            allowed = self._rows.row(self._place)
            if (left := self._tokens_left()) is None:
                allowed.write(row)
                if len(self._spelling_ends):
                    clear_bits(row.view(np.uint32), self._spelling_ends)
            else:
                reach = self._reach()
                row[: self.words] = reach.row(self._most(reach, left, allowed))
                row[self.words :] = 0
            if allowed.ends:
                set_bits(row.view(np.uint32), self._eos)

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
        if run.ends and len(self._eos) and len(tokens) != most:
            tokens.append(int(self._likely_end()))
        return tokens

    def _likely_end(self) -> int:
        """Of the tokens that end a text, the one that the vocabulary has for it."""
        return next((token for token in self._rows.vocabulary.eos if token in self._ends), self._eos[0])

    def _run(self) -> tuple[Run, int]:
        """The run of forced tokens that the sequence is in, and how many of them were taken."""
        place, token, run, taken = self._history[-1]
        if run is None:
            run = self._rows.run(place, token)
            taken = 0
            self._history[-1] = (place, token, run, taken)
        return run, taken

    def _forced_token(self) -> int | None:
        """The token to which a canonical matcher narrows what is allowed; None where there is none, or no budget for it.

        Where only the end can follow, that is the token that the vocabulary has for it.
        """
        if not self._canonical:
            return None
        run, taken = self._run()
        if taken == len(run.tokens):
            return int(self._likely_end()) if run.ends and len(self._eos) else None
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
            return self.may_end and set(self.allowed().tolist()) <= set(self._eos.tolist())
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
