"""One door to numba: typed, cached on disk, with numpy's error model."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

PACKAGE = Path(__file__).parent
# The modules with compiled functions. These call each other across modules, and numba's cache looks at the own file alone.
COMPILED = (
    "automaton/leaf.py",
    "automaton/marks.py",
    "automaton/step.py",
    "automaton/tables.py",
    "kernels/mask_logits_cpu.py",
    "masks/walks.py",
)

F = TypeVar("F", bound=Callable[..., Any])


def jit(function: F) -> F:
    """Compile a function on its first call; the machine code is kept on disk (`cache_folder`)."""
    given = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(cache_folder(given))
    try:
        return cast(F, numba.njit(cache=True, error_model="numpy")(function))
    finally:
        numba.config.CACHE_DIR = given


def cache_folder(given: str = "", package: Path = PACKAGE) -> Path:
    """Where the machine code of a package is: in what `NUMBA_CACHE_DIR` says, beside its modules, or with the user's caches."""
    if given:
        base = Path(given)
    elif os.access(package, os.W_OK):
        base = package / "__pycache__"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / f"routine_grammar-{_digest(package)}"


@cache
def _digest(package: Path) -> str:
    return hashlib.sha256(b"".join((package / file).read_bytes() for file in COMPILED)).hexdigest()[:16]
