"""Small vocabularies for tests: every byte, and some longer tokens that cross the borders of leaves and literals."""

from __future__ import annotations

import random

from routine_grammar.masks.vocabulary import Vocabulary


def byte_vocabulary(words: tuple[str, ...] = (), special: tuple[str, ...] = ()) -> Vocabulary:
    """All 256 bytes, the words (repeated ones stay: two tokens of equal bytes), the special tokens, and an end token."""
    tokens = [bytes((byte,)) for byte in range(256)] + [word.encode() for word in words]
    marks = {name: len(tokens) + place for place, name in enumerate((*special, "<|end|>"))}
    return Vocabulary(tokens + [b""] * len(marks), marks, [marks["<|end|>"]])


def random_vocabulary(rng: random.Random, alphabet: str) -> Vocabulary:
    """All bytes and some 60 random words over an alphabet, a few of them twice."""
    words = ["".join(rng.choices(alphabet, k=rng.randint(2, 6))) for _ in range(60)]
    return byte_vocabulary(tuple(words + words[:3]))
