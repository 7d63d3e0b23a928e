"""What travels from API server to engine: a grammar as compact JSON behind a prefix, in vLLM's `grammar` field."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from routine_grammar.errors import GrammarError, GrammarTooLargeError
from routine_grammar.grammar.program import Program
from routine_grammar.grammar.terminals import dump, load
from routine_grammar.grammar.tree import Grammar

PREFIX = "routine_grammar:"
MAX_PAYLOAD_CHARS = 16 * 2**20
_VERSION = 3


def is_payload(text: object) -> bool:
    """Whether a text is a grammar of ours, as `dump_grammar` writes it."""
    return isinstance(text, str) and text.startswith(PREFIX)


def dump_grammar(grammar: Grammar) -> str:
    """The grammar as one line of text. Raises `GrammarError` where two leaves of one name differ."""
    program = Program.of(grammar)
    document = {
        "v": _VERSION,
        "rules": program.rules,
        "texts": program.texts,
        "leaves": [[name, dump(terminal)] for name, terminal in program.leaves],
        "nodes": program.nodes.reshape(-1).tolist(),
    }
    return PREFIX + json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def load_grammar(text: str) -> Grammar:
    """Read what `dump_grammar` wrote. Raises `GrammarError` for anything else."""
    return load_program(text).grammar


def load_program(text: str) -> Program:
    """Read what `dump_grammar` wrote, as a program. Raises `GrammarError` for anything else."""
    if len(text) > MAX_PAYLOAD_CHARS:
        raise GrammarTooLargeError(f"a grammar's text has {len(text)} characters; the bound is {MAX_PAYLOAD_CHARS}")
    try:
        document = json.loads(text.removeprefix(PREFIX))
        if document["v"] != _VERSION:
            raise GrammarError(f"the grammar's text is of version {document['v']!r:.40}; expected {_VERSION}")
        rules, texts = _texts(document, "rules"), _texts(document, "texts")
        if len(set(rules)) < len(rules):
            raise GrammarError("malformed grammar text: two rules have one name")
        leaves = tuple((str(name), load(value)) for name, value in document["leaves"])
        nodes = np.array(document["nodes"])
        if nodes.dtype != np.int64 or nodes.ndim != 1 or (nodes != nodes.astype(np.int32)).any():
            raise GrammarError("malformed grammar text: its nodes are no list of integers")
        program = Program(rules, texts, leaves, nodes.astype(np.int32).reshape(-1, 3))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise GrammarError(f"malformed grammar text: {type(error).__name__} {error}") from error
    if "" in program.markers:
        raise GrammarError("the grammar has an empty marker")
    return program


def _texts(document: Any, name: str) -> tuple[str, ...]:
    texts = document[name]
    try:
        if not isinstance(texts, list):
            raise TypeError
        "".join(texts).encode()
    except TypeError as error:
        raise GrammarError(f"malformed grammar text: {name!r} is no list of texts") from error
    except UnicodeEncodeError as error:
        raise GrammarError(f"malformed grammar text: {name!r} has a lone surrogate: {error}") from error
    return tuple(texts)
