"""Grammars in a vLLM process: payload text to rows over the model's vocabulary, compiled once and kept.

Used by the API server, to refuse what is wrong before a stream opens, and by the engine core, to mask.
"""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from routine_grammar.automaton.automaton import Automaton
from routine_grammar.automaton.distinct import require_enough
from routine_grammar.automaton.leaf import LeafLibrary
from routine_grammar.effort import bounded
from routine_grammar.errors import GrammarError, VocabularyError
from routine_grammar.grammar.payload import load_program
from routine_grammar.grammar.usual import usual_terminals
from routine_grammar.masks.distinct import AnyRows, rows_of
from routine_grammar.masks.flat.packed import PackedTable, pack_table
from routine_grammar.masks.flat.table import FlatTable
from routine_grammar.masks.matcher import Matcher
from routine_grammar.masks.row import Ends
from routine_grammar.masks.rows import TokenRows
from routine_grammar.masks.stored import make_ready as store_rows
from routine_grammar.masks.vocabulary import Vocabulary
from routine_grammar.warm_up import warm_up

MAX_COMPILED = 4096
MAX_COMPILED_BYTES = 512 * 2**20
MAX_TABLE_BYTES = 256 * 2**20
COUNTED_EVERY = 16  # new grammars, as all have to be asked how far they have grown


class CompiledGrammars:
    """The grammars compiled for one vocabulary, least recently used out. Safe to use from several threads."""

    _of: ClassVar[weakref.WeakKeyDictionary[Any, CompiledGrammars]] = weakref.WeakKeyDictionary()
    _making: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._compiled: OrderedDict[str, AnyRows] = OrderedDict()
        self._tables: OrderedDict[tuple[str, frozenset[int], bool], PackedTable | None] = OrderedDict()
        self._added = 0
        self.nbytes = 0  # of the grammars that are kept, about, as they were counted last
        self._lock = threading.Lock()

    @classmethod
    def of(cls, tokenizer: Any) -> CompiledGrammars:
        """The ones for this tokenizer; raises `VocabularyError` for a tokenizer whose tokens' bytes can't be read."""
        with cls._making:
            known = cls._of.get(tokenizer)
            if known is None:
                known = cls._of[tokenizer] = cls(Vocabulary.from_tokenizer(tokenizer))
            return known

    def rows(self, payload: str) -> AnyRows:
        """The rows of a payload's grammar; raises `GrammarError` for one that is malformed or can't be compiled."""
        key = hashlib.sha256(payload.encode(errors="surrogatepass")).hexdigest()
        with self._lock:
            if key in self._compiled:
                self._compiled.move_to_end(key)
                return self._compiled[key]
        with bounded():
            program = load_program(payload)
            if (program.distinct > 1).any():
                require_enough(program.grammar)
            rows = rows_of(Automaton(program, self.vocabulary.special), self.vocabulary)
            rows.automaton.start()
            rows.automaton.require_clear()
        with self._lock:
            self._compiled[key] = rows
            self._make_room(rows.automaton.library)
        return rows

    def _make_room(self, library: LeafLibrary) -> None:
        """Let grammars go that were used least recently, and those over leaves of which no new grammar makes use."""
        self._added += 1
        if len(self._compiled) > COUNTED_EVERY and self._added % COUNTED_EVERY:
            return
        for key in [key for key, rows in self._compiled.items() if rows.automaton.library is not library]:
            del self._compiled[key]
        self.nbytes = sum(rows.nbytes for rows in self._compiled.values())
        while len(self._compiled) > 1 and (self.nbytes > MAX_COMPILED_BYTES or len(self._compiled) > MAX_COMPILED):
            self.nbytes -= self._compiled.popitem(last=False)[1].nbytes

    def table(self, payload: str, ends: Ends, *, canonical: bool) -> PackedTable | None:
        """The table by which a device follows a payload's grammar; None where it has none."""
        rows = self.rows(payload)
        key = payload, ends.ids, canonical
        with self._lock:
            if key in self._tables:
                self._tables.move_to_end(key)
                return self._tables[key]
        table: PackedTable | None = None
        if isinstance(rows, TokenRows):
            with suppress(GrammarError):  # it says why there is none: the host follows such a grammar
                table = pack_table(FlatTable.of(rows, ends, canonical=canonical))
        with self._lock:
            self._tables[key] = table
            sizes = [len(payload) + (0 if kept is None else kept.words.nbytes) for (payload, *_), kept in self._tables.items()]
            size = sum(sizes)
            for each in sizes[:-1]:
                if size <= MAX_TABLE_BYTES and len(self._tables) <= MAX_COMPILED:
                    break
                self._tables.popitem(last=False)
                size -= each
        return table

    def __len__(self) -> int:
        """How many grammars are kept."""
        return len(self._compiled)

    def fewest_tokens(self, payload: str) -> int:
        """How many tokens the shortest text of a payload's grammar needs."""
        return Matcher(self.rows(payload)).fewest_tokens

    def check(self, payload: str, max_tokens: int | None, stop: Iterable[int] = ()) -> None:
        """Raise `GrammarError` where a payload can't be compiled, or where no text of it fits into `max_tokens`.

        Tokens of `stop` end a text, as the vocabulary's own do: none can be a marker inside it.
        """
        rows = self.rows(payload)
        ends = {*self.vocabulary.eos, *stop}
        if inside := [name for name in rows.automaton.symbols if self.vocabulary.special.get(name) in ends]:
            raise GrammarError(f"marker {inside[0]!r} is a token that ends a text")
        fewest = Matcher(rows).fewest_tokens
        if max_tokens is not None and max_tokens < fewest:
            raise GrammarError(f"max_tokens is {max_tokens}, and the shortest text that the grammar allows needs {fewest}")


def make_ready(tokenizer: Any) -> None:
    """Have ready what the first grammar would wait for: machine code, and what belongs to the tokenizer's vocabulary.

    A tokenizer that no grammar can be enforced for is told to the first request that has one.
    """
    warm_up()
    with suppress(VocabularyError):
        vocabulary = CompiledGrammars.of(tokenizer).vocabulary
        if vocabulary.encode is not None:
            vocabulary.encode("")
        rows_file(vocabulary)


def rows_file(vocabulary: Vocabulary) -> Path:
    """Have the rows of usual terminals ready for a vocabulary; returns the file that keeps them, or would."""
    return store_rows(vocabulary, usual_terminals())


def prepare_model(name: str) -> Path:
    """As `rows_file`, for the tokenizer of a model, a folder or a name. Raises `VocabularyError` where it can't be loaded."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise VocabularyError(
            f"model {name!r} has no tokenizer that can be loaded: {' '.join(str(error).split())[:200]}"
        ) from error
    return rows_file(Vocabulary.from_tokenizer(tokenizer))
