"""Machine code ahead of time: every compiled function that requests call, loaded from its cache or compiled into it.

Without it the first requests would wait: a second in all where the machine code is in its cache (`jit.cache_folder`), about a
minute where it is not there yet. Nothing here is specific to a model.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import torch

from routine_grammar.automaton.automaton import Automaton
from routine_grammar.errors import GrammarError
from routine_grammar.explanation import explain
from routine_grammar.grammar.lark_reader import read_lark
from routine_grammar.grammar.payload import dump_grammar, load_program
from routine_grammar.grammar.schema.compiler import schema_to_grammar
from routine_grammar.grammar.terminal_text import terminal_of
from routine_grammar.grammar.tree import Grammar, Leaf, Literal, Marker, Sequence
from routine_grammar.jit import COMPLETE, is_complete, own_folder
from routine_grammar.kernels.mask_logits import mask_logits
from routine_grammar.masks.distinct import rows_of
from routine_grammar.masks.flat.table import FlatTable
from routine_grammar.masks.matcher import Matcher
from routine_grammar.masks.row import RowBuffer
from routine_grammar.masks.rows import TokenRows
from routine_grammar.masks.vocabulary import Vocabulary

_LOG = logging.getLogger(__name__)
_MARKER = "<call>"
_WORDS = (b'{"', b'": ', b'"}', b"ab", b"12", b'a", "', b"\\u00", "é".encode(), b"\xc3", b"ab")
_OBJECT = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 200},
        "slug": {"type": "string", "pattern": "^[a-z]+(?:-[a-z]+)*$"},
        "size": {"type": "number", "minimum": -3.5, "multipleOf": 0.5},
        "kind": {"enum": ["ab", "abc", 1, None]},
        "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        "next": {"$ref": "#"},
    },
    "required": ["name"],
    "patternProperties": {"^x_": {"type": "integer"}},
}
_VALUE = (
    '{"name": "é", "slug": "a-b", "size": 1.5, "kind": "abc", "tags": ["a", "b"], "next": {"name": "ab"}, "x_1": 1, "y": {}}'
)
_SUMS = r"""
start: product (("+" | "-") product)*
product: power (("*" | "/") power)~0..3
power: atom | atom "^" power
atom: /[0-9]+/ | "(" start ")" | /[a-z]_?/ ["'"]
"""
# What two objects have in common is told apart state by state.
_ALIKE = {"anyOf": [{"properties": {f"{name}{number}": {"type": "boolean"} for number in range(60)}} for name in "ab"]}


@cache
def warm_up() -> Path:
    """Have all machine code ready in this process: a grammar of every kind is compiled and followed once.

    Returns the folder that keeps it.
    """
    folder = own_folder()
    if not is_complete(folder):
        _LOG.warning("compiling machine code into %s: this takes about a minute, once", folder)
    _warm_up()
    with suppress(OSError):
        (folder / COMPLETE).touch()
    return folder


def _warm_up() -> None:
    vocabulary = Vocabulary(
        [*(bytes((byte,)) for byte in range(256)), *_WORDS, b"", b""],
        {_MARKER: 256 + len(_WORDS)},
        [257 + len(_WORDS)],
        lambda text: list(text.encode()),
    )
    for grammar, text in _grammars():
        for tree in (grammar, load_program(dump_grammar(grammar))):
            rows = rows_of(Automaton(tree, vocabulary.special), vocabulary)
            for canonical in (False, True):
                for budget in (None, len(text) + 8):
                    _follow(Matcher(rows, budget, canonical=canonical), text, vocabulary)
                if isinstance(rows, TokenRows):
                    with suppress(GrammarError):  # not every grammar has one
                        table = FlatTable.of(rows, rows.shared.ends(None), canonical=canonical)
                        table.after(table.start, 0)
        explain(grammar, Automaton(grammar), text[:-1])
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        logits, bits = torch.zeros(1, 64, dtype=dtype), torch.zeros(1, 2, dtype=torch.int32)
        mask_logits(logits, bits, torch.zeros(1, dtype=torch.int32), vocab_size=64)


def _grammars() -> Iterator[tuple[Grammar, str]]:
    """Grammars that need all of the compiled functions, each with a text that it allows."""
    yield schema_to_grammar(_OBJECT), _VALUE
    yield schema_to_grammar({"type": "array", "items": _ALIKE}), '[{"a7": true, "b7": 1}]'
    yield schema_to_grammar({}), "[1, null]"
    yield Grammar(Leaf("PATTERN", terminal_of(r"(?i:ab|\bcd)+[^\d]?"))), "abab"
    yield read_lark(_SUMS), "(1+2)*3^x"
    yield Grammar(Sequence((Marker(_MARKER), Literal("ab" * 100)))), f"{_MARKER}{'ab' * 100}"  # a flat form that has to grow


def _follow(matcher: Matcher, text: str, vocabulary: Vocabulary) -> None:
    row, buffer = np.zeros(matcher.words, np.int32), RowBuffer(1, matcher.words)
    before, marker, rest = text.partition(_MARKER)
    tokens = [*before.encode(), *([vocabulary.special[_MARKER]] if marker else ()), *rest.encode()]
    for token in tokens:
        matcher.fill(row)
        buffer.write([matcher.row()])
        matcher.forced_tokens()
        assert matcher.advance(token)
    matcher.allowed()
