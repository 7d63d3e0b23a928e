"""One door to numba: typed, cached on disk, with numpy's error model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def jit(function: F) -> F:
    """Compile a function on its first call; the machine code is cached beside its module, or in the user's cache folder."""
    return cast(F, numba.njit(cache=True, error_model="numpy")(function))
