"""Lark parsers for this package's grammar files; each is built once."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from lark import Lark


@cache
def load_parser(name: str, *starts: str) -> Lark:
    """Return the LALR parser of `grammars/<name>.lark`."""
    grammar = (files("routine_grammar") / "grammars" / f"{name}.lark").read_text(encoding="utf-8")
    return Lark(grammar, start=list(starts), parser="lalr", lexer="contextual", maybe_placeholders=True)
