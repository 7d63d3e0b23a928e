"""Tables of grammars, and the vocabulary that they are over, as arrays of words that a device is handed as they are.

In: a flat table, a vocabulary. Out: arrays int64 [words] of the layout that `kernels.grammar_tables` tells, and what stands
where in them. They hold no addresses: a table can lie anywhere in a device's memory, its bitmaps elsewhere.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from routine_grammar.errors import VocabularyError
from routine_grammar.masks.bits import Bitmap
from routine_grammar.masks.flat.table import BASE, COLUMNS, DISTANCE, FARTHEST, FlatTable, special_numbers
from routine_grammar.masks.vocabulary import Vocabulary

Words = npt.NDArray[np.int64]

CLASS_WORDS = 32
ROW_WORDS = COLUMNS // 2
MAX_VOCABULARY_BYTES = 1 << 31


class PackedTable(NamedTuple):
    """`words`: the classes of bytes, rows, listed words, a comb; the latter begin at `listed` and `comb`.

    A row's bitmap is the number of one of `bases` int64 [words] each, which tables of one vocabulary share. `start` is the
    state where texts begin, `shortest` how few tokens the shortest has, `farthest` how many are at most between any token and
    the end.
    """

    words: Words
    bases: tuple[Words, ...]
    listed: int
    comb: int
    class_count: int
    start: int
    shortest: int
    farthest: int

    @property
    def digest(self) -> bytes:
        """What tells a table from others: two that have it allow the same over one vocabulary."""
        digest = hashlib.blake2b(np.array(self[2:], np.int64).tobytes(), digest_size=16)
        for array in (self.words, *self.bases):
            digest.update(array.tobytes())
        return digest.digest()

    def placed(self, bases: list[int]) -> Words:
        """The words of a table whose bitmaps begin at these words of a device's memory."""
        words = self.words.copy()
        rows = words[CLASS_WORDS : self.listed].view(np.int32).reshape(-1, COLUMNS)
        has_base = rows[:, BASE] >= 0
        rows[has_base, BASE] = np.array([*bases, -1], np.int32)[rows[has_base, BASE]]
        return words


def pack_table(table: FlatTable) -> PackedTable:
    """Put the arrays of a table one behind the other."""
    rows, listed = np.ascontiguousarray(table.rows), np.ascontiguousarray(table.words)
    parts = [table.classes.view(np.int64), rows.view(np.int64).ravel(), listed.view(np.int64).ravel(), table.comb]
    begins = np.cumsum([len(part) for part in parts])
    return PackedTable(
        words=np.concatenate(parts),
        bases=tuple(_even(base) for base in table.bases),
        listed=int(begins[1]),
        comb=int(begins[2]),
        class_count=table.class_count,
        start=table.start,
        shortest=int(table.rows[table.row_number(table.start), DISTANCE]),
        farthest=int(table.rows[:, FARTHEST].max()),
    )


def pack_tokens(vocabulary: Vocabulary) -> Words:
    """A vocabulary as the begin of a device's memory: a word for each token, then the bytes of all that spell something.

    Raises `VocabularyError` where these are more than 2 GiB.
    """
    numbers = special_numbers(vocabulary)
    begin = 8 * vocabulary.size
    spelled = b"".join(vocabulary.tokens)
    if begin + len(spelled) >= MAX_VOCABULARY_BYTES:
        raise VocabularyError(f"the vocabulary's tokens are of {len(spelled)} bytes; a device takes {MAX_VOCABULARY_BYTES}")
    lengths = np.array([len(data) for data in vocabulary.tokens], np.int64)
    begins = begin + np.cumsum(lengths) - lengths
    silent = np.array([1 + numbers.get(token, -1) for token in range(vocabulary.size)], np.int64)
    words = np.where(lengths > 0, begins, silent) << 32 | lengths
    padded = spelled + bytes(-len(spelled) % 8)
    return np.concatenate([words, np.frombuffer(padded, np.int64)])


def _even(base: Bitmap) -> Words:
    """A bitmap in words of 64 bits."""
    words = np.zeros(len(base) + len(base) % 2, np.uint32)
    words[: len(base)] = base
    return words.view(np.int64)
