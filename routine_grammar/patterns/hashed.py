"""Values whose hash is computed once: what is looked up again and again, and is as deep as what it was made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast


class Hashed:
    """Has room for a hash."""

    __slots__ = ("_hash",)
    _hash: int


T = TypeVar("T", bound=Hashed)


def hashed_once(kind: type[T]) -> type[T]:
    """Have a frozen dataclass keep its hash."""
    generated = cast(Callable[[T], int], kind.__hash__)

    def __hash__(self: T) -> int:
        try:
            return self._hash
        except AttributeError:
            object.__setattr__(self, "_hash", generated(self))
            return self._hash

    kind.__hash__ = __hash__  # type: ignore[assignment]
    return kind
