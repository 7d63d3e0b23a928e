"""Small vocabularies for tests: every byte, and some longer tokens that cross the borders of leaves and literals."""

from __future__ import annotations

import base64
import importlib.util
import json
import random
from pathlib import Path

import pytest

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


def tekken_vocabulary(markers: tuple[str, ...] = ()) -> Vocabulary:
    """Mistral's vocabulary of 131,072 tokens; the markers take the place of some of its reserved ones."""
    package = importlib.util.find_spec("mistral_common")
    file = Path(str(package.origin)).parent / "data" / "tekken_240911.json" if package is not None else None
    if file is None or not file.is_file():
        pytest.skip("mistral_common, or its file tekken_240911.json, is not installed")
    recorded = json.loads(file.read_text(encoding="utf-8"))
    size, reserved = recorded["config"]["default_vocab_size"], recorded["config"]["default_num_special_tokens"]
    tokens = [b""] * reserved + [base64.b64decode(entry["token_bytes"]) for entry in recorded["vocab"][: size - reserved]]
    return Vocabulary(tokens, {marker: 20 + place for place, marker in enumerate(markers)}, [2])
