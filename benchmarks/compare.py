"""Two runs of one kind: what the second measured, as a multiple of what the first did."""

from __future__ import annotations

from benchmarks.results import Measurement

Run = tuple[dict[str, str], list[Measurement]]


def compare(first: Run, second: Run) -> list[Measurement]:
    """Of every number that both have, the second over the first, with the ratios of their intervals' far ends.

    Raises `ValueError` where they have none in common.
    """
    before = {(each.case, each.arm, each.metric, each.unit): each for each in first[1] if each.middle > 0}
    found = []
    for each in second[1]:
        old = before.get((each.case, each.arm, each.metric, each.unit))
        if old is not None:
            low = each.low / old.high if old.high > 0 else 0.0
            high = each.high / old.low if old.low > 0 else float("inf")
            found.append(Measurement(each.case, each.arm, each.metric, "x", each.middle / old.middle, low, high, each.count))
    if not found:
        raise ValueError("the two files have no number in common")
    return found
