"""Structured requests of any client, taken over by our grammars: JSON Schemas, regular expressions, choices and Lark.

Which are taken is `--grammar-backend`: none (`vllm`), all (`ours`), or those that ours can enforce (`auto`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from routine_grammar.engines.vllm.settings import GrammarBackend
from routine_grammar.errors import GrammarError, GrammarTooLargeError, RoutineGrammarError, SchemaError
from routine_grammar.grammar.json_text import EXACT
from routine_grammar.grammar.lark_reader import read_lark
from routine_grammar.grammar.payload import dump_grammar, is_payload
from routine_grammar.grammar.schema.blaming import too_large
from routine_grammar.grammar.schema.compiler import schema_to_grammar
from routine_grammar.grammar.terminal_text import terminal_of
from routine_grammar.grammar.tree import Grammar, Leaf, Literal, choice

_LOG = logging.getLogger(__name__)
KINDS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
MAX_CHOICES = 30_000


def is_foreign(params: Any) -> bool:
    """Whether a request is structured, and not by one of our payloads already."""
    return params is not None and not is_payload(params.grammar)


def kind_of(params: Any) -> str:
    """By what a request is structured."""
    return next(kind for kind in KINDS if getattr(params, kind) is not None)


def as_ours(params: Any) -> Any:
    """The same structured outputs as a payload of ours.

    Raises `SchemaError` or `GrammarError` for what is malformed, or can't be enforced exactly by us.
    """
    kind = kind_of(params)
    if params.whitespace_pattern is not None:
        raise GrammarError("`whitespace_pattern` is not supported: there is one spelling of space")
    value = getattr(params, kind)
    text = value if isinstance(value, str) else json.dumps(value)
    found = _payload(kind, text, closed=bool(params.disable_additional_properties))
    if isinstance(found, RoutineGrammarError):
        raise found
    return replace(params, **{**dict.fromkeys(KINDS), "grammar": found})


@lru_cache(maxsize=256)
def _payload(kind: str, text: str, *, closed: bool) -> str | RoutineGrammarError:
    """The payload, or why there is none: both are asked for again, by every request of one schema."""
    try:
        return dump_grammar(_grammar(kind, text, closed=closed))
    except RoutineGrammarError as error:
        return error.with_traceback(None)


def _grammar(kind: str, text: str, *, closed: bool) -> Grammar:
    form = replace(EXACT, closed=closed)
    match kind:
        case "json":
            try:
                return schema_to_grammar(json.loads(text), form)
            except ValueError as error:
                raise SchemaError(f"no JSON: {error}") from error
        case "json_object":
            return schema_to_grammar({"type": "object"}, form)
        case "regex":
            return Grammar(Leaf("PATTERN", terminal_of(text)))
        case "choice":
            return _choices(json.loads(text))
        case "grammar" if "::=" in text:
            raise GrammarError("EBNF is not supported: write the grammar in Lark")
        case "grammar":
            return read_lark(text)
        case _:
            raise GrammarError(f"`{kind}` is not supported")


def _choices(texts: list[str]) -> Grammar:
    if not 0 < len(texts) <= MAX_CHOICES:
        raise GrammarError(f"{len(texts)} choices: there can be 1 to {MAX_CHOICES}")
    return Grammar(choice(*map(Literal, texts)))


def take_over(params: Any, backend: GrammarBackend, check: Callable[[Any], None]) -> Any:
    """`SamplingParams` under our grammar where `backend` says so, else as they are.

    `check` is given what it would be and raises a `ValueError`, as vLLM's own checks do, where that can't be decoded. Raises
    such an error under `ours` for whatever can't be taken.
    """
    from vllm.exceptions import VLLMValidationError

    given = getattr(params, "structured_outputs", None)
    if backend is GrammarBackend.VLLM or not is_foreign(given):
        return params
    kind = kind_of(given)
    try:
        taken = params.clone()
        taken.structured_outputs = as_ours(given)
        check(taken)
        return taken
    except (RoutineGrammarError, VLLMValidationError) as error:
        told: Exception = error
        if given is not None and kind == "json" and isinstance(error.__context__, GrammarTooLargeError):
            told = too_large(given.json if isinstance(given.json, dict) else json.loads(given.json), error.__context__)
        if backend is GrammarBackend.OURS:
            message = f"under --grammar-backend ours, structured_outputs.{kind}: {told}"
            raise VLLMValidationError(message, parameter=f"structured_outputs.{kind}") from error
        _LOG.info("a request's %s is left to vLLM's own backend: %s", kind, told)
        return params
