"""Intervals: of a mean, of a share, and of the ratio of paired values. All of them hold 95%."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, inf, log, sqrt
from statistics import fmean, stdev

Z_95 = 1.959964


def student_t_95(freedom: int) -> float:
    """Student's t that holds 95% on both sides; by the Cornish-Fisher expansion, to 1% from three degrees of freedom on."""
    if freedom < 3:
        return {1: 12.706, 2: 4.303}.get(freedom, inf)
    z, v = Z_95, freedom
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    )


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean, and its interval by Student's t."""
    middle = fmean(values)
    half = student_t_95(len(values) - 1) * stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0
    return middle, middle - half, middle + half


def ratio_interval(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """How many times as large ours are as theirs: the geometric mean over pairs of one round, with its interval."""
    middle, low, high = mean_interval([log(a / b) for a, b in zip(ours, theirs, strict=True)])
    return exp(middle), exp(low), exp(high)


def share_interval(count: int, total: int) -> tuple[float, float, float]:
    """A share with Wilson's interval, which does not leave 0 to 1."""
    z, share = Z_95, count / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return share, max(0.0, centre - half), min(1.0, centre + half)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which a share of the values lies, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]
