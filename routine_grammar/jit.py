"""One door to numba: typed, cached on disk, with numpy's error model."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba import types

PACKAGE = Path(__file__).parent
# The modules with compiled functions. These call each other across modules, and numba's cache looks at the own file alone.
COMPILED = (
    "automaton/analysis.py",
    "automaton/expanding.py",
    "automaton/facts.py",
    "automaton/leaf.py",
    "automaton/lowering.py",
    "automaton/marks.py",
    "automaton/opening.py",
    "automaton/placing.py",
    "automaton/pools.py",
    "automaton/readings.py",
    "automaton/sorting.py",
    "automaton/states.py",
    "automaton/step.py",
    "automaton/surveying.py",
    "automaton/tables.py",
    "grammar/program.py",
    "kernels/mask_logits_cpu.py",
    "masks/walks.py",
    "patterns/determining.py",
    "patterns/minimizing.py",
)

F = TypeVar("F", bound=Callable[..., Any])
_KEPT: list[Any] = []  # what stands somewhere


def jit(function: F) -> F:
    """Compile a function on its first call; the machine code is kept on disk (`cache_folder`)."""
    with _cache():
        compiled = numba.njit(cache=True, error_model="numpy", no_cfunc_wrapper=True)(function)
    template = compiled.get_call_template
    compiled.get_call_template = lambda args, kws: template(tuple(map(_widened, args)), kws)
    return cast(F, compiled)


def address_of(function: Callable[[int, int], int]) -> int:
    """Compile a function of two integers at once, and where it stands: those that call it there need not have it within."""
    with _cache():
        compiled = numba.cfunc("int64(int64, int64)", cache=True, error_model="numpy")(function)
    _KEPT.append(compiled)
    return int(compiled.address)


@contextmanager
def _cache() -> Iterator[None]:
    """Have numba keep machine code in our folder."""
    given = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(cache_folder(given))
    try:
        yield
    finally:
        numba.config.CACHE_DIR = given


def _widened(given: types.Type) -> types.Type:
    """What a compiled function takes for an argument of another: else there would be one for every constant."""
    plain = types.unliteral(given)
    return types.int64 if isinstance(plain, types.Integer) and plain.signed else plain


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
