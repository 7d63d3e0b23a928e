"""Properties of characters as expressions name them: general categories, and a few others, from Python's Unicode database."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import cache

from routine_grammar.patterns.charset import CHARS, HEX, NO_CHARS, CharSet, matching


@cache
def unicode_property(name: str) -> CharSet | None:
    """The characters of a general category (`L`, `Lu`, `General_Category=Letter` …) or of a few other properties, else None."""
    name = name.removeprefix("General_Category=").removeprefix("gc=")
    category = _CATEGORIES.get(name, name)
    if name in _PROPERTIES:
        return _PROPERTIES[name]()
    if category == "LC":
        return _of_category("Lu") | _of_category("Ll") | _of_category("Lt")
    found = CharSet.of(
        *(bounds for long in _by_category() if long.startswith(category) for bounds in _by_category()[long].ranges)
    )
    return found if found and len(category) in (1, 2) else None


def _of_category(category: str) -> CharSet:
    return _by_category().get(category, NO_CHARS)


@cache
def _by_category() -> dict[str, CharSet]:
    ranges: dict[str, list[tuple[int, int]]] = {}
    for low, high in CHARS.ranges:
        start, current = low, unicodedata.category(chr(low))
        for code in range(low + 1, high + 1):
            category = unicodedata.category(chr(code))
            if category != current:
                ranges.setdefault(current, []).append((start, code - 1))
                start, current = code, category
        ranges.setdefault(current, []).append((start, high))
    return {category: CharSet.of(*found) for category, found in ranges.items()}


_PROPERTIES: dict[str, Callable[[], CharSet]] = {
    "Any": lambda: CHARS,
    "ASCII": lambda: CharSet.of((0, 0x7F)),
    "Assigned": lambda: CHARS - _of_category("Cn"),
    "ASCII_Hex_Digit": lambda: HEX,
    "AHex": lambda: HEX,
    "White_Space": lambda: matching(r"\s") - CharSet.of((0x1C, 0x1F)),
    "space": lambda: matching(r"\s") - CharSet.of((0x1C, 0x1F)),
}
_CATEGORIES = {
    "Letter": "L",
    "Cased_Letter": "LC",
    "Uppercase_Letter": "Lu",
    "Lowercase_Letter": "Ll",
    "Titlecase_Letter": "Lt",
    "Modifier_Letter": "Lm",
    "Other_Letter": "Lo",
    "Mark": "M",
    "Combining_Mark": "M",
    "Nonspacing_Mark": "Mn",
    "Spacing_Mark": "Mc",
    "Enclosing_Mark": "Me",
    "Number": "N",
    "Decimal_Number": "Nd",
    "digit": "Nd",
    "Letter_Number": "Nl",
    "Other_Number": "No",
    "Punctuation": "P",
    "punct": "P",
    "Connector_Punctuation": "Pc",
    "Dash_Punctuation": "Pd",
    "Open_Punctuation": "Ps",
    "Close_Punctuation": "Pe",
    "Initial_Punctuation": "Pi",
    "Final_Punctuation": "Pf",
    "Other_Punctuation": "Po",
    "Symbol": "S",
    "Math_Symbol": "Sm",
    "Currency_Symbol": "Sc",
    "Modifier_Symbol": "Sk",
    "Other_Symbol": "So",
    "Separator": "Z",
    "Space_Separator": "Zs",
    "Line_Separator": "Zl",
    "Paragraph_Separator": "Zp",
    "Other": "C",
    "Control": "Cc",
    "cntrl": "Cc",
    "Format": "Cf",
    "Private_Use": "Co",
    "Unassigned": "Cn",
}
