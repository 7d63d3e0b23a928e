"""Canonical spelling: forced text cut into the tokens that the tokenizer would have written where it stands.

In: forced bytes and markers, the text before them, the bytes that may follow. Out: tokens, those at the end left out whose
cut depends on what follows. It knows no automaton.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from routine_grammar.automaton.automaton import Piece
from routine_grammar.masks import walks
from routine_grammar.masks.vocabulary import Vocabulary

BEGINNING = "\n"  # what stands for the text before an output: chat templates end so, or with a token that cuts as well
ByteSet = npt.NDArray[np.bool_]  # [256]


def spell(vocabulary: Vocabulary, before: str, pieces: Sequence[Piece], follows: ByteSet) -> list[int]:
    """The tokens of forced pieces behind the text `before`, up to the first whose cut depends on the bytes that follow.

    Only what spells the pieces exactly is returned: nothing where the tokenizer would change them, or knows no such text.
    """
    tokens: list[int] = []
    for text, marker in _parts(pieces):
        whole = _characters(text)
        cut = _cut(vocabulary, before, whole) if whole else []
        if len(whole) < len(text):
            follows = np.arange(256) == text[len(whole)]
        if marker is None or len(whole) < len(text):
            return tokens + _unaffected(vocabulary, cut, whole, follows)
        if text and not cut:
            return tokens
        tokens += [*cut, vocabulary.special[marker]]
        before = marker
    return tokens


def text_before(vocabulary: Vocabulary, token: int | None) -> str:
    """What of a token may matter to the cut of the text behind it: a marker, or its last character."""
    if token is None:
        return BEGINNING
    data = vocabulary.tokens[token]
    return data.decode(errors="ignore")[-1:] if data else vocabulary.marker(token)


def _parts(pieces: Sequence[Piece]) -> Iterator[tuple[bytes, str | None]]:
    """Stretches of bytes, each with the marker that ends it; None for the last one."""
    text = bytearray()
    for piece in pieces:
        if isinstance(piece, str):
            yield bytes(text), piece
            text.clear()
        else:
            text.append(piece)
    yield bytes(text), None


def _characters(text: bytes) -> bytes:
    """The text up to a character that is under way at its end; nothing of a text that begins within one."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return text[: error.start]
    return text


def _cut(vocabulary: Vocabulary, before: str, text: bytes) -> list[int]:
    """The tokens of a text behind another one; none where the tokenizer has none that are exactly it."""
    assert vocabulary.encode is not None
    cut = _suffix(vocabulary, vocabulary.encode(before + text.decode()), text)
    return cut or _suffix(vocabulary, vocabulary.encode(text.decode()), text)


def _suffix(vocabulary: Vocabulary, tokens: Sequence[int], text: bytes) -> list[int]:
    """The last of some tokens that are exactly `text`; none where no cut falls on its beginning."""
    left = text
    for number in range(len(tokens) - 1, -1, -1):
        data = vocabulary.tokens[tokens[number]]
        if not data or not left.endswith(data):
            return []
        left = left[: -len(data)]
        if not left:
            return list(tokens[number:])
    return []


def _unaffected(vocabulary: Vocabulary, tokens: list[int], text: bytes, follows: ByteSet) -> list[int]:
    """The tokens before the first that, with what stands behind it, may be the beginning of a longer token."""
    if not follows.any():
        return tokens
    data = np.frombuffer(text, np.uint8)
    place, kept = len(text), len(tokens)
    for number in range(len(tokens) - 1, -1, -1):
        place -= len(vocabulary.tokens[tokens[number]])
        if len(text) - place >= vocabulary.longest:
            break
        if walks.goes_on(vocabulary.trie.handle, data[place:], follows):
            kept = number
    return tokens[:kept]
