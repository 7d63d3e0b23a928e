"""Routines compiled to grammars that an LLM decodes under, token by token.

The public names are loaded when first used: vLLM's plugins import this package in the middle of vLLM's own import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from routine_grammar.api import (
        CompiledRoutine,
        Grammar,
        Turn,
        compile_lark,
        compile_regex,
        compile_routine,
        compile_schema,
    )
    from routine_grammar.masks.matcher import Matcher
    from routine_grammar.masks.vocabulary import Vocabulary
    from routine_grammar.routine.keys import MemoryKey
    from routine_grammar.routine.model import Routine
    from routine_grammar.routine.tools import Tool

__version__ = "0.1.0"

_HOMES = {
    "CompiledRoutine": "api",
    "Grammar": "api",
    "Matcher": "masks.matcher",
    "MemoryKey": "routine.keys",
    "Routine": "routine.model",
    "Tool": "routine.tools",
    "Turn": "api",
    "Vocabulary": "masks.vocabulary",
    "compile_lark": "api",
    "compile_regex": "api",
    "compile_routine": "api",
    "compile_schema": "api",
}

__all__ = [
    "CompiledRoutine",
    "Grammar",
    "Matcher",
    "MemoryKey",
    "Routine",
    "Tool",
    "Turn",
    "Vocabulary",
    "compile_lark",
    "compile_regex",
    "compile_routine",
    "compile_schema",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
