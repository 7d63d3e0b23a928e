"""Vocabularies to measure over, each with its own way to cut text into tokens."""

from __future__ import annotations

import base64
import importlib.util
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from routine_grammar.demo.model import demo_model_path
from routine_grammar.masks.vocabulary import Vocabulary

MOST_BYTES = 24  # of a token that is a pair of others
_END_OF_TEXT = 2  # of the tekken files


@dataclass(frozen=True)
class Tokenization:
    """A vocabulary, and text to the ids that its model was trained on."""

    name: str
    vocabulary: Vocabulary
    encode: Callable[[str], list[int]]


def largest_tokenization() -> Tokenization:
    """That of the largest vocabulary there is offline: mistral-common's, where installed, else the demo model's."""
    try:
        return tekken_tokenization(tekken_file())
    except FileNotFoundError:
        return demo_tokenization()


def tekken_file() -> Path:
    """The largest vocabulary in the mistral-common package; raises `FileNotFoundError` where it has none."""
    spec = importlib.util.find_spec("mistral_common")
    folder = Path(spec.origin).parent / "data" if spec is not None and spec.origin is not None else Path()
    files = sorted(folder.glob("tekken_*.json"), key=lambda file: file.stat().st_size)
    if not files:
        raise FileNotFoundError("no tekken file: the mistral-common package is not installed")
    return files[-1]


def tekken_tokenization(file: Path) -> Tokenization:
    """That of a tekken file: special tokens first, then the bytes of every rank."""
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    document = json.loads(file.read_text(encoding="utf-8"))
    size, special = (document["config"][name] for name in ("default_vocab_size", "default_num_special_tokens"))
    tokens = [b""] * size
    for entry in document["vocab"][: size - special]:
        tokens[entry["rank"] + special] = base64.b64decode(entry["token_bytes"])
    tekken = Tekkenizer.from_file(file)

    def encode(text: str) -> list[int]:
        return list(tekken.encode(text, bos=False, eos=False))

    return Tokenization(f"{file.stem} of mistral-common", Vocabulary(tokens, {}, [_END_OF_TEXT], encode), encode)


def sized_tokenization(size: int) -> Tokenization:
    """So many tokens: the first of the largest vocabulary there is, and beyond them pairs of them. Text is cut greedily."""
    known = largest_tokenization().vocabulary
    tokens = list(known.tokens[:size])
    spelled, rng = set(tokens), random.Random(size)
    while len(tokens) < size:
        pair = b"".join(rng.choices(known.tokens, k=2))
        if pair not in spelled and len(pair) <= MOST_BYTES:
            spelled.add(pair)
            tokens.append(pair)
    numbers = {data: number for number, data in enumerate(tokens) if data}
    longest = max(map(len, numbers))

    def encode(text: str) -> list[int]:
        data, found = text.encode(), list[int]()
        while data:
            piece = next(data[:length] for length in range(min(longest, len(data)), 0, -1) if data[:length] in numbers)
            found.append(numbers[piece])
            data = data[len(piece) :]
        return found

    return Tokenization(f"{size} tokens", Vocabulary(tokens, {}, known.eos, encode), encode)


def demo_tokenization() -> Tokenization:
    """That of the demo model: markers are tokens of their own."""
    return model_tokenization("demo model", demo_model_path())


def model_tokenization(name: str, folder: Path) -> Tokenization:
    """That of a model in a folder."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    return Tokenization(name, vocabulary, lambda text: list(tokenizer.encode(text, add_special_tokens=False)))
