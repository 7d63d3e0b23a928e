"""llguidance as an independent judge of our grammars and masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import llguidance
import llguidance.numpy
import numpy as np
import numpy.typing as npt

from routine_grammar.masks.vocabulary import Vocabulary

# llguidance would narrow its masks to the canonical token wherever text is forced.
NO_FORCING = '%llguidance {"no_forcing": true}\n'


@dataclass
class _Tokens:
    """A vocabulary in the form that llguidance reads."""

    tokens: list[bytes]
    special_token_ids: list[int]
    eos_token_id: int
    bos_token_id: int | None = None

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


def peer_tokenizer(vocabulary: Vocabulary) -> llguidance.LLTokenizer:
    """llguidance's tokenizer of a vocabulary, with the same ids."""
    tokens = list(vocabulary.tokens)
    for name, token in vocabulary.special.items():
        tokens[token] = name.encode()
    wrapped = _Tokens(tokens, list(vocabulary.special.values()), vocabulary.eos[0])
    return llguidance.LLTokenizer(llguidance.TokenizerWrapper(wrapped))


class PeerMatcher:
    """One sequence under a Lark grammar, as llguidance sees it."""

    def __init__(self, tokenizer: llguidance.LLTokenizer, lark: str) -> None:
        limits = llguidance.LLParserLimits(
            max_grammar_size=2_000_000, initial_lexer_fuel=50_000_000, step_lexer_fuel=10_000_000
        )
        self._matcher = llguidance.LLMatcher(tokenizer, NO_FORCING + lark, log_level=0, limits=limits)
        self._row = np.zeros((1, (tokenizer.vocab_size + 31) // 32), np.int32)
        assert not self._matcher.is_error(), self._matcher.get_error()

    def restart(self) -> None:
        """Go back to the beginning."""
        self._matcher.reset()

    def advance(self, token: int) -> bool:
        """Take a token."""
        return bool(self._matcher.consume_token(token))

    def accepts(self, tokens: Sequence[int]) -> bool:
        """Whether the tokens, from the beginning, are a whole text."""
        self._matcher.reset()
        if self._matcher.validate_tokens(list(tokens)) < len(tokens):
            return False
        return bool(self._matcher.consume_tokens(list(tokens))) and bool(self._matcher.is_accepting())

    def row(self) -> npt.NDArray[np.int32]:
        """The packed row of the tokens allowed next."""
        llguidance.numpy.fill_next_token_bitmask(self._matcher, self._row)
        row: npt.NDArray[np.int32] = self._row[0]
        return row
