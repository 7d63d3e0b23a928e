"""Replacing a method or a function of vLLM's: once, and only where it takes what is expected."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from routine_grammar.errors import EngineError

MARK = "__routine_grammar__"


def replace_method(
    owner: type | ModuleType,
    name: str,
    parameters: Sequence[str],
    replacement: Callable[[Callable[..., Any]], Callable[..., Any]],
) -> None:
    """Replace a method of a class, or a function of a module, once, if its first parameters are these."""
    original = getattr(owner, name, None)
    if original is None:
        where = owner.__name__ if isinstance(owner, ModuleType) else f"{owner.__module__}.{owner.__name__}"
        raise EngineError(f"{where} has no {name}: this vLLM is not supported")
    if hasattr(original, MARK):
        return
    expect_parameters(original, parameters)
    patched = functools.wraps(original)(replacement(original))
    setattr(patched, MARK, True)
    setattr(owner, name, patched)


def expect_parameters(function: Callable[..., Any], parameters: Sequence[str]) -> None:
    """Raise `EngineError` where a function's first parameters are others."""
    found = tuple(inspect.signature(function).parameters)[: len(parameters)]
    if found != tuple(parameters):
        raise EngineError(
            f"{function.__module__}.{function.__qualname__} takes {', '.join(found)}; expected {', '.join(parameters)}: "
            "this vLLM is not supported"
        )
