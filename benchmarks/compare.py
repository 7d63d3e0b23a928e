"""Two runs of one kind: what the second measured as a multiple of the first; shares, and what was 0, by differences."""

from __future__ import annotations

from benchmarks.results import Measurement

Run = tuple[dict[str, str], list[Measurement]]


def compare(first: Run, second: Run) -> list[Measurement]:
    """Of every number that both have, the second over the first, or how much more it is, with their intervals' far ends.

    Raises `ValueError` where they have none in common.
    """
    before = {(each.case, each.arm, each.metric, each.unit): each for each in first[1]}
    found = []
    for each in second[1]:
        old = before.get((each.case, each.arm, each.metric, each.unit))
        if old is None:
            continue
        if each.unit == "%" or old.middle <= 0:
            more = each.middle - old.middle, each.low - old.high, each.high - old.low
            found.append(Measurement(each.case, each.arm, f"{each.metric}, more", each.unit, *more, each.count))
        else:
            low = each.low / old.high if old.high > 0 else 0.0
            high = each.high / old.low if old.low > 0 else float("inf")
            found.append(Measurement(each.case, each.arm, each.metric, "x", each.middle / old.middle, low, high, each.count))
    if not found:
        raise ValueError("the two files have no number in common")
    return found
