"""Hypothesis strategies for regular expressions, and for texts that they may match."""

from __future__ import annotations

from hypothesis import strategies as st

TEXT = "abcA1\n é-"
CLASSES = st.lists(st.sampled_from(("a", "b", "a-c", r"\-", "é", r"\n", r"\^", "A-Z", r"\]")), min_size=1, max_size=3)
ATOMS = ("a", "b", "c", "A", "1", r"\n", " ", "é", "-", ".", r"\.", r"\x61", r"\u0062", "(?:)")
COUNTS = ("*", "+", "?", "{2}", "{1,3}", "{2,}", "*?", "{0}")

texts = st.text(TEXT, max_size=5)


def expressions(*more: str, looks: bool = False) -> st.SearchStrategy[str]:
    """Expressions that Python's `re` and JavaScript read alike, with these atoms too, and with lookaheads or not."""
    classes = st.tuples(st.sampled_from(("[", "[^")), CLASSES).map(lambda pair: f"{pair[0]}{''.join(pair[1])}]")
    atoms = st.one_of(st.sampled_from((*ATOMS, *more)), classes)

    def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        ways = [
            st.lists(inner, max_size=4).map("".join),
            st.lists(inner, min_size=1, max_size=3).map("|".join),
            st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)})"),
            st.tuples(inner, st.sampled_from(COUNTS)).map(lambda pair: f"({pair[0]}){pair[1]}"),
        ]
        if looks:
            ways.append(st.tuples(st.sampled_from(("(?=", "(?!")), inner).map(lambda pair: f"{pair[0]}{pair[1]})"))
        return st.one_of(ways)

    return st.recursive(atoms, larger, max_leaves=7)
