"""Counting: the characters of a string counted beside its automaton, where the automaton lets nearly any count be reached.

A leaf's state tells which numbers of further characters lead to the end (all, from some number on), and how few bytes each of
them takes. That is right for any bounds where more characters never take fewer bytes. Where not nearly any count can be
reached, or more take fewer, upper bounds alone can still be counted: by how few bytes lead to the end within so many
characters. Else the length has to be part of the automaton.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MAX_LAYERS = 64
NEVER = 1 << 29

Layers = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Counting:
    """What counts need to know of the states of a leaf, the quote before a string counted as a character.

    `completes` [states] bool: entering the state completes a character. `layers` [states, n] int32: the fewest bytes to the end
    with exactly that many further characters, NEVER where there are none; from the last on `slope` bytes more for each further
    one. `counts` [states, n] int32: the least number from this one on with which there are some.

    Not `has_lower`: for upper bounds alone. Then `layers` are the fewest bytes with at most that many further characters, and
    of `counts` there is the least number, NEVER in the last place.
    """

    completes: npt.NDArray[np.bool_]
    counts: Layers
    layers: Layers
    slope: int
    has_lower: bool = True


def counting_of(table: npt.NDArray[np.int32], completes: npt.NDArray[np.bool_], closes: int) -> Counting | None:
    """The counting of a leaf whose `table` [states, 256] holds `closes` where it ends; None where counts can't be told apart.

    `completes` [states] bool: which states are entered with the last byte of a character.
    """
    ends = (table == closes).any(axis=1)
    columns = np.unique(table, axis=1)
    inside = columns >= 0
    target = np.maximum(columns, 0)
    counts = completes[target] & inside
    within = inside & ~counts
    layers = [_settled(np.where(ends, 1, NEVER), target, within)]
    may_have_slope = True
    while len(layers) < MAX_LAYERS:
        # What completes a character takes from the layer before; within a character the layer is its own.
        through = np.where(counts, layers[-1][target] + 1, NEVER).min(axis=1, initial=NEVER)
        layers.append(_settled(through, target, within))
        slope = _slope(layers[-2], layers[-1]) if may_have_slope else None
        if slope is not None:
            if (counting := _checked(completes, np.stack(layers, axis=1), slope)) is not None:
                return counting
            may_have_slope = False
    shortest = _settled(np.where(ends, 1, NEVER), target, inside)
    return _of_upper_bounds(completes, np.stack(layers, axis=1), shortest)


def _of_upper_bounds(
    completes: npt.NDArray[np.bool_], layers: npt.NDArray[np.int64], shortest: npt.NDArray[np.int64]
) -> Counting | None:
    """The counting for upper bounds alone, where some number of characters suffices for the shortest way of every state."""
    within = np.minimum.accumulate(layers, axis=1)
    if (within[:, -1] != shortest).any():
        return None
    least = np.argmax(layers < NEVER, axis=1)
    counts = np.full((len(layers), MAX_LAYERS), NEVER, np.int32)
    counts[:, 0], counts[:, 1] = least, np.where(least > 0, least, NEVER)
    return Counting(completes, counts, within.astype(np.int32), 0, has_lower=False)


def _settled(
    layer: npt.NDArray[np.int64], target: npt.NDArray[np.int32], within: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """A layer with what leads to it by the ways of `within`: those that stay within a character, or all."""
    while True:
        step = np.where(within, layer[target] + 1, NEVER).min(axis=1, initial=NEVER)
        shorter: npt.NDArray[np.int64] = np.minimum(np.minimum(layer, step), NEVER)
        if (shorter == layer).all():
            return shorter
        layer = shorter


def _slope(before: npt.NDArray[np.int64], after: npt.NDArray[np.int64]) -> int | None:
    """By how much all of a layer is more than the one before; then each later one is so too, as it is made of differences."""
    if (after >= NEVER).any() or (before >= NEVER).any():
        return None
    differences = np.unique(after - before)
    return int(differences[0]) if len(differences) == 1 and differences[0] >= 0 else None


def _checked(completes: npt.NDArray[np.bool_], layers: npt.NDArray[np.int64], slope: int) -> Counting | None:
    """The counting, where more characters never take fewer bytes."""
    last = layers.shape[1] - 1
    counts = np.full(layers.shape, last, np.int32)
    for count in range(last - 1, -1, -1):
        counts[:, count] = np.where(layers[:, count] < NEVER, count, counts[:, count + 1])
    needed = np.take_along_axis(layers, counts.astype(np.int64), axis=1)
    if (np.diff(needed, axis=1) < 0).any():
        return None
    return Counting(completes, counts, layers.astype(np.int32), slope)
