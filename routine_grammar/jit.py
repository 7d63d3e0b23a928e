"""One door to numba: typed, cached on disk, with numpy's error model."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba import carray as carray  # numba's, for those who may not know it
from numba import types
from numba.extending import intrinsic

PACKAGE = Path(__file__).parent
COMPLETE = "complete"  # a file beside machine code that says that all of it is there
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
    "automaton/taking.py",
    "grammar/program.py",
    "kernels/mask_logits_cpu.py",
    "masks/flat/arrays.py",
    "masks/flat/comb.py",
    "masks/flat/landing.py",
    "masks/flat/states.py",
    "masks/trie.py",
    "masks/packing.py",
    "masks/walks.py",
    "patterns/determining.py",
    "patterns/minimizing.py",
)

F = TypeVar("F", bound=Callable[..., Any])
_KEPT: list[Any] = []  # what stands somewhere
_FUNCTIONS: list[Any] = []


def jit(function: F) -> F:
    """Compile a function on its first call; the machine code is kept on disk (`cache_folder`)."""
    with _cache():
        compiled = numba.njit(cache=True, error_model="numpy", no_cfunc_wrapper=True)(function)
    template = compiled.get_call_template
    compiled.get_call_template = lambda args, kws: template(tuple(map(_widened, args)), kws)
    _FUNCTIONS.append(compiled)
    return cast(F, compiled)


def builds() -> dict[str, int]:
    """Of every compiled function, by module and name, how many builds of it this process has: one for each set of types."""
    return {f"{of.py_func.__module__}.{of.py_func.__name__}": len(of.signatures) for of in _FUNCTIONS}


def address_of(function: Callable[[int, int], int]) -> int:
    """Compile a function of two integers at once, and where it stands: those that call it there need not have it within."""
    with _cache():
        compiled = numba.cfunc("int64(int64, int64)", cache=True, error_model="numpy")(function)
    _KEPT.append(compiled)
    return int(compiled.address)


@intrinsic  # type: ignore[untyped-decorator]
def pointer(context: Any, address: Any) -> Any:
    """In compiled code, for numba's `carray`: what stands at an address."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], target.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


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
    """Where the machine code of a package is: in what `NUMBA_CACHE_DIR` says, beside its modules, or with the user's caches.

    With the user's, where nobody may write beside the modules: there it begins as a copy of what is beside them, if all is.
    """
    name = f"routine_grammar-{_digest(package)}"
    beside = package / "__pycache__"
    if given:
        return Path(given) / name
    if os.access(package, os.W_OK):
        return beside / name
    own = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / name
    if not own.exists() and is_complete(beside / name):
        with suppress(OSError):
            _copy(beside / name, own)
    return own


def own_folder() -> Path:
    """Where the machine code of this process is."""
    return cache_folder(numba.config.CACHE_DIR)


def is_complete(folder: Path) -> bool:
    """Whether all machine code was put into a folder."""
    return (folder / COMPLETE).exists()


def _copy(folder: Path, to: Path) -> None:
    """Copy a folder as one step, whoever else does so."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent) as beside:
        shutil.copytree(folder, Path(beside) / "copy")
        (Path(beside) / "copy").rename(to)


@cache
def _digest(package: Path) -> str:
    return hashlib.sha256(b"".join((package / file).read_bytes() for file in COMPILED)).hexdigest()[:16]
