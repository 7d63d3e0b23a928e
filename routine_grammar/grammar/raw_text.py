r"""Text that stands in a block of markup as it is: which texts its parser gives back unchanged, as a pattern.

vLLM's parser of `<parameter=…>` blocks has the literals `<tool_call>`, `<function=`, `<parameter=`, `<think>`, the ends of
these, and the special tokens `<|…|>`; its expressions let white space stand behind `<` and around `/`. So a text is read as
it is where no `<`, white space, `/`, white space is followed by one of `WORDS`. Everything else may be written, `a < b` and
`<div></div>` too: what the parser looks for begins so, and what stands behind a text, `\n</parameter>`, completes none.
"""

from __future__ import annotations

from typing import Any

from routine_grammar.patterns.text import escape, trie_of

WORDS = ("parameter", "function", "tool_call", "think", "|")
_SPACE = "\t\n\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
_CONTROL = r"\x00-\x08\x0b\x0c\x0e-\x1f"
_ANY_SPACE = f"[{_SPACE}]*".replace("\t\n\r", r"\t\n\r")


def raw_pattern(sigil: str = "", unlike: str = "") -> str:
    """A pattern of raw texts that don't begin with the sigil, and are not the word `unlike` in any case.

    A text is the start of the sigil or of the word, and then either ends, or goes on otherwise and as it likes.
    """
    if not sigil and not unlike:
        return _BODY
    found = _beginnings(sigil, unlike, 0 if sigil else None, 0 if unlike else None)
    otherwise, starts, ends = map(_either, found)
    return f"(?:(?:{otherwise}|{starts}(?:{_LED})){_BODY}|{starts}(?:{_BROKEN_OFF})+|{ends})"


def _beginnings(sigil: str, word: str, in_sigil: int | None, in_word: int | None) -> tuple[list[str], ...]:
    """What may follow the first characters of sigil or word (None: not of this one) up to where a text is neither's start.

    Up to there, with the character that goes on otherwise; the starts of sigil or word; those at which a text may end.
    """
    of_sigil = sigil[in_sigil] if in_sigil is not None else ""
    of_word = word[in_word] if in_word is not None and in_word < len(word) else ""
    of_words = dict.fromkeys((of_word.lower(), of_word.upper())) if of_word else {}
    otherwise, starts, ends = [_char(*of_sigil, *of_words)], [""], [""] if in_word is None or of_word else []
    for char in dict.fromkeys((*of_sigil, *of_words)):
        next_sigil = in_sigil + 1 if in_sigil is not None and char == of_sigil else None
        next_word = in_word + 1 if in_word is not None and char in of_words else None
        if next_sigil != len(sigil):
            below = _beginnings(sigil, word, next_sigil, next_word)
            for ways, more in zip((otherwise, starts, ends), below, strict=True):
                ways += [escape(char) + _either(more)] if more else []
    return otherwise, starts, ends


def _either(ways: list[str]) -> str:
    return ways[0] if len(ways) == 1 else f"(?:{'|'.join(ways)})"


def _char(*but: str) -> str:
    """A character that begins no markup, and none of these."""
    excluded = "".join("\\" + char if char in "-^" else char if char in _SPACE else escape(char) for char in but)
    return f"[^<{_CONTROL}{excluded}]".replace("\t", r"\t").replace("\n", r"\n").replace("\r", r"\r")


def _starts(trie: dict[str, Any]) -> str:
    """Any proper start of a word, the empty one too."""
    ways = "|".join(escape(char) + _starts(below) for char, below in trie.items() if below)
    return f"(?:{ways})?" if ways else ""


def _otherwise(trie: dict[str, Any], *but: str) -> str:
    """A start of a word, and then a character that does not go on with it."""
    ways = [_char(*but, *trie)]
    ways += [escape(char) + _otherwise(below) for char, below in trie.items() if below]
    return f"(?:{'|'.join(ways)})" if len(ways) > 1 else ways[0]


_TRIE = trie_of(WORDS)
_LEAD = f"<{_ANY_SPACE}(?:/{_ANY_SPACE})?"
_BROKEN_OFF = _LEAD + _starts(_TRIE)  # the start of markup that ends, or that another `<` breaks off
_LED = (  # the start of markup, and then what does not go on with it
    f"(?:{_BROKEN_OFF})*(?:{_LEAD}{_otherwise(_TRIE, '/', *_SPACE)}|<{_ANY_SPACE}/{_ANY_SPACE}/)"
)
_BODY = f"(?:{_char()}|{_LED})*(?:{_BROKEN_OFF})*"
