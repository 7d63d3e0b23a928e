"""Counting: the characters of a string counted beside its automaton, where the automaton lets any count be reached.

A leaf's state tells how few further characters it takes to the end (`least`), and how few bytes a given number of them does.
Both are right for any bounds where from every state any number of characters from the least on can follow, more of them never
in fewer bytes. Where that is not so, the length has to be part of the automaton.
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

    `completes` [states] bool: entering the state completes a character. `least` [states] int32. `layers` [states, n] int32:
    the fewest bytes to the end with exactly that many further characters, NEVER where there are none; from the last on
    `slope` bytes more for each further one.
    """

    completes: npt.NDArray[np.bool_]
    least: Layers
    layers: Layers
    slope: int


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
    while len(layers) < MAX_LAYERS:
        # What completes a character takes from the layer before; within a character the layer is its own.
        through = np.where(counts, layers[-1][target] + 1, NEVER).min(axis=1, initial=NEVER)
        layers.append(_settled(through, target, within))
        slope = _slope(layers[-2], layers[-1])
        if slope is not None:
            return _checked(completes, np.stack(layers, axis=1), slope)
    return None


def _settled(
    layer: npt.NDArray[np.int64], target: npt.NDArray[np.int32], within: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """A layer with what leads to it within a character."""
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
    """The counting, where from every state any number of characters from the least on can follow, in no fewer bytes."""
    least = np.argmax(layers < NEVER, axis=1)
    reached = np.arange(layers.shape[1]) >= least[:, None]
    rising = np.diff(np.where(reached, layers, 0), axis=1) >= 0
    if not ((layers < NEVER) == reached).all() or not rising.all():
        return None
    return Counting(completes, least.astype(np.int32), layers.astype(np.int32), slope)
