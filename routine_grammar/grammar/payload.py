"""What travels from API server to engine: a grammar as compact JSON behind a prefix, in vLLM's `grammar` field."""

from __future__ import annotations

import json
from typing import Any

from routine_grammar.errors import GrammarError, GrammarTooLargeError
from routine_grammar.grammar.terminals import Terminal, dump, load
from routine_grammar.grammar.tree import (
    MAX_DEPTH,
    Call,
    Choice,
    Distinct,
    Element,
    Grammar,
    Leaf,
    Literal,
    Marker,
    Node,
    Optional,
    Repeat,
    Sequence,
)

PREFIX = "routine_grammar:"
MAX_PAYLOAD_CHARS = 16 * 2**20
_VERSION = 2


def is_payload(text: object) -> bool:
    """Whether a text is a grammar of ours, as `dump_grammar` writes it."""
    return isinstance(text, str) and text.startswith(PREFIX)


def dump_grammar(grammar: Grammar) -> str:
    """The grammar as one line of text."""
    document = {
        "v": _VERSION,
        "leaves": {name: dump(terminal) for name, terminal in grammar.leaves().items()},
        "root": _dump(grammar.root),
        "rules": {name: _dump(tree) for name, tree in grammar.rules.items()},
    }
    return PREFIX + json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def load_grammar(text: str) -> Grammar:
    """Read what `dump_grammar` wrote. Raises `GrammarError` for anything else."""
    if len(text) > MAX_PAYLOAD_CHARS:
        raise GrammarTooLargeError(f"a grammar's text has {len(text)} characters; the bound is {MAX_PAYLOAD_CHARS}")
    try:
        document = json.loads(text.removeprefix(PREFIX))
        if document["v"] != _VERSION:
            raise GrammarError(f"the grammar's text is of version {document['v']!r:.40}; expected {_VERSION}")
        leaves = {str(name): load(value) for name, value in document["leaves"].items()}
        rules = {str(name): _load(tree, leaves, 0) for name, tree in document["rules"].items()}
        return Grammar(_load(document["root"], leaves, 0), rules)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise GrammarError(f"malformed grammar text: {type(error).__name__} {error}") from error


def _dump(node: Node) -> Any:
    match node:
        case Literal(text):
            return text
        case Leaf(name, _):
            return ["leaf", name]
        case Marker(text):
            return ["marker", text]
        case Call(rule):
            return ["call", rule]
        case Sequence(items):
            return ["seq", *map(_dump, items)]
        case Choice(items):
            return ["or", *map(_dump, items)]
        case Optional(item):
            return ["opt", _dump(item)]
        case Repeat(item, low, high):
            return ["rep", _dump(item), low, high]
        case Distinct(item, pointer, least):
            return ["distinct", _dump(item), pointer, least]
        case Element(item):
            return ["element", _dump(item)]


def _load(value: Any, leaves: dict[str, Terminal], depth: int) -> Node:
    if depth > MAX_DEPTH:
        raise GrammarTooLargeError(f"the grammar's text is nested more than {MAX_DEPTH} deep, the bound")
    if isinstance(value, str):
        return Literal(value)
    match value:  # what is most frequent comes first
        case ["seq", *items]:
            return Sequence(tuple([_load(item, leaves, depth + 1) for item in items]))
        case ["opt", item]:
            return Optional(_load(item, leaves, depth + 1))
        case ["call", str(rule)]:
            return Call(rule)
        case ["or", *items]:
            return Choice(tuple([_load(item, leaves, depth + 1) for item in items]))
        case ["leaf", str(name)]:
            return Leaf(name, leaves[name])
        case ["rep", item, int(low), int() | None as high]:
            return Repeat(_load(item, leaves, depth + 1), low, high)
        case ["marker", str(text)]:
            return Marker(text)
        case ["distinct", item, str(pointer), int(least)]:
            return Distinct(_load(item, leaves, depth + 1), pointer, least)
        case ["element", item]:
            return Element(_load(item, leaves, depth + 1))
        case _:
            raise GrammarError(f"malformed node in grammar text: {json.dumps(value):.120}")
