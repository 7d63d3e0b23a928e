"""Vocabularies: the bytes of every token, the tokens that are symbols, and the tokens that end a text.

In: a tokenizer, or its tokens as bytes. Out: a `Vocabulary` with a trie over its tokens. It knows no grammar.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from routine_grammar.errors import VocabularyError
from routine_grammar.masks.trie import Trie, build_trie

MAX_TOKENS = 1 << 22
_NEVER_IN_UTF8 = {0xC0, 0xC1, *range(0xF5, 0x100)}


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Tokens as bytes, by id. `b""` stands for tokens that no text contains: special, added, reserved and unused ones.

    `special` gives the ids of tokens that may stand for a marker's text; `eos` the ids that end a text. `encode` is how the
    tokenizer cuts a text into tokens, where that is known: without it no text has a canonical spelling.
    Raises `VocabularyError` where a byte of UTF-8 text has no token of its own: such a vocabulary can't write every text.
    """

    tokens: Sequence[bytes]
    special: Mapping[str, int]
    eos: Sequence[int]
    encode: Callable[[str], Sequence[int]] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", tuple(self.tokens))
        object.__setattr__(self, "special", dict(self.special))
        object.__setattr__(self, "eos", tuple(sorted(set(self.eos))))
        if not 0 < self.size <= MAX_TOKENS:
            raise VocabularyError(f"a vocabulary has {self.size} tokens; expected 1 to {MAX_TOKENS}")
        for name, token in (*self.special.items(), *(("eos", token) for token in self.eos)):
            if not 0 <= token < self.size:
                raise VocabularyError(f"token id {token} of {name!r} is outside the vocabulary of {self.size} tokens")
        missing = set(range(256)) - _NEVER_IN_UTF8 - {token[0] for token in self.tokens if len(token) == 1}
        if missing:
            raise VocabularyError(f"no token for single bytes {sorted(missing)[:8]}…: not every text could be written")

    @property
    def size(self) -> int:
        """How many token ids there are."""
        return len(self.tokens)

    @property
    def words(self) -> int:
        """Length of a packed row, in 32-bit words."""
        return (self.size + 31) // 32

    @cached_property
    def longest(self) -> int:
        """Bytes of the longest token."""
        return max(map(len, self.tokens))

    @cached_property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Token t's bytes stand at `offsets[t]` to `offsets[t + 1]` of `blob`."""
        return np.concatenate([[0], np.cumsum([len(token) for token in self.tokens])]).astype(np.int64)

    @cached_property
    def with_backslash(self) -> npt.NDArray[np.bool_]:
        """Which tokens have a backslash in their bytes: bool [size]."""
        return np.array([b"\\" in data for data in self.tokens], np.bool_)

    @cached_property
    def blob(self) -> npt.NDArray[np.uint8]:
        """The bytes of all tokens, one after the other."""
        return np.frombuffer(b"".join(self.tokens), np.uint8)

    @cached_property
    def _markers(self) -> Mapping[int, str]:
        return {token: text for text, token in self.special.items()}

    def marker(self, token: int) -> str:
        """The marker that a token stands for, or nothing."""
        return self._markers.get(token, "")

    @cached_property
    def trie(self) -> Trie:
        """The trie over all tokens that have bytes."""
        return build_trie(self.tokens)

    @classmethod
    def from_tokenizer(cls, tokenizer: Any) -> Vocabulary:
        """The vocabulary of a Hugging Face fast tokenizer, or of vLLM's wrapper of one: byte-level BPE or byte fallback.

        Raises `VocabularyError` for other kinds.
        """
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None or not hasattr(backend, "to_str"):
            raise VocabularyError(
                f"tokenizer {type(tokenizer).__name__} is not a fast tokenizer: its tokens' bytes can't be read"
            )
        written = backend.to_str()
        decoder = json.dumps(json.loads(written).get("decoder"))
        if '"ByteLevel"' in decoder:
            token_bytes = _byte_level_bytes
        elif '"ByteFallback"' in decoder:
            token_bytes = _byte_fallback_bytes
        else:
            raise VocabularyError(f"tokens are decoded by {decoder[:80]}; expected a ByteLevel or a ByteFallback decoder")
        vocabulary = tokenizer.get_vocab()
        tokens = [b""] * (max(vocabulary.values()) + 1)
        # A tokenizer may have had one added that its model has no place for, as vLLM's for embeddings in prompts has.
        added = {str(token): index for index, token in tokenizer.added_tokens_decoder.items() if index < len(tokens)}
        for text, index in vocabulary.items():
            if text not in added:
                tokens[index] = token_bytes(text)
        if tokenizer.eos_token_id is None:
            raise VocabularyError("the tokenizer has no end-of-sequence token")
        return cls(tokens, added, [tokenizer.eos_token_id], _Encoder(written))


class _Encoder:
    """A tokenizer of its own, made when it is first needed: others' truncation and padding come and go with their calls."""

    def __init__(self, written: str) -> None:
        self._written = written
        self._made: Any = None
        self._making = threading.Lock()

    def __call__(self, text: str) -> Sequence[int]:
        if self._made is None:
            self._make()
        tokens: Sequence[int] = self._made.encode(text, add_special_tokens=False).ids
        return tokens

    def _make(self) -> None:
        from tokenizers import Tokenizer

        with self._making:
            if self._made is None:
                tokenizer = Tokenizer.from_str(self._written)
                tokenizer.no_truncation()
                tokenizer.no_padding()
                self._made, self._written = tokenizer, ""


def byte_stand_ins() -> dict[int, str]:
    """The printable stand-in of every byte in byte-level BPE vocabularies (the scheme GPT-2 introduced)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in set(plain)]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + n) for n, byte in enumerate(moved)}


_ALPHABET = {char: byte for byte, char in byte_stand_ins().items()}


def _byte_level_bytes(text: str) -> bytes:
    try:
        return bytes(_ALPHABET[char] for char in text)
    except KeyError as error:
        raise VocabularyError(f"token {text!r} has a character outside the byte alphabet: {error}") from error


def _byte_fallback_bytes(text: str) -> bytes:
    if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        return bytes((int(text[3:5], 16),))
    return text.replace("▁", " ").encode()
