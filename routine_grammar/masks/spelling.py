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
        if text:
            cut, whole = _cut(vocabulary, before, text)
            is_last = marker is None
            tokens += _unaffected(vocabulary, cut, text, follows) if whole and is_last else cut
            if not whole:
                break
        if marker is not None:
            tokens.append(vocabulary.special[marker])
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


def _cut(vocabulary: Vocabulary, before: str, text: bytes) -> tuple[list[int], bool]:
    """The tokens of a text behind another one, and whether they are all of it: a character may be under way at its end."""
    try:
        characters = text.decode()
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data" or error.start == 0:
            return [], False
        cut, _ = _cut(vocabulary, before, text[: error.start])
        return cut[:-1], False
    assert vocabulary.encode is not None
    for context in (before, "") if before else ("",):
        cut = _suffix(vocabulary, vocabulary.encode(context + characters), text)
        if cut:
            return cut, True
    return [], False


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
        if walks.goes_on(vocabulary.trie, data[place:], follows):
            kept = number
    return tokens[:kept]
