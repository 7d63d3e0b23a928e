"""A grammar as a logits processor of Outlines: `outlines.Generator(outlines.from_transformers(…), processor=…)`."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from outlines.processors import OutlinesLogitsProcessor

from routine_grammar.engines.torch_logits import GrammarLogitsProcessor
from routine_grammar.masks.matcher import Matcher
from routine_grammar.masks.vocabulary import Vocabulary


class AnyGrammar(Protocol):
    """A grammar or a turn, as `routine_grammar` compiles them."""

    def matcher(self, vocabulary: Vocabulary, budget: int | None = None) -> Matcher:
        """A matcher for one sequence."""


class OutlinesGrammarProcessor(OutlinesLogitsProcessor):  # type: ignore[misc]
    """Holds every sequence of a generation to one grammar: single prompts, batches, several samples, beams.

    `tokenizer` is the model's, one of transformers'. `budget`: how many tokens each sequence may have; given the same number
    as `max_new_tokens`, all are whole. Raises `VocabularyError` for a tokenizer whose tokens' bytes can't be read, and
    `GrammarError` where no text of the grammar fits the budget.
    """

    def __init__(self, grammar: AnyGrammar, tokenizer: Any, budget: int | None = None) -> None:
        super().__init__("torch")
        self._grammar = grammar
        self._vocabulary = Vocabulary.from_tokenizer(tokenizer)
        self._budget = budget
        self.reset()

    def reset(self) -> None:
        """Begin a new generation; Outlines calls it."""
        self._processor = GrammarLogitsProcessor([self._grammar.matcher(self._vocabulary, self._budget)])

    def process_logits(self, input_ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Mask `logits` [sequences, columns] for the next token of `input_ids` [sequences, length], and return them."""
        return self._processor(input_ids, logits)
