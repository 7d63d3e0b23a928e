from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routine_grammar.automaton.automaton import Automaton
from routine_grammar.errors import GrammarError
from routine_grammar.grammar.json_text import EXACT, JsonForm, begins_with_sigil, string_pattern, turn_form, value_literal
from routine_grammar.grammar.tree import Choice, Grammar, Leaf, Literal, Node

PLAIN_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"')
MARKERS = [
    (),
    ("<tool_call>", "</tool_call>"),
    ("<a", "<abc>", "<abd"),
    ("[TOOL_CALLS]", "<|python_tag|>", "[/"),
    ("<t>",),
]
SIGILS = ["", "memory_", "m", "mm_m", "_", "Key9_", "eA_"]


def is_allowed(text: str, markers: tuple[str, ...], sigil: str) -> bool:
    """What `string_pattern` promises, said without it."""
    if not PLAIN_STRING.fullmatch(text):
        return False
    value = json.loads(text)
    if any("\ud800" <= char <= "\udfff" for char in value):
        return False
    return not any(marker in text for marker in markers) and not (sigil and value.startswith(sigil))


def accepts(node: Node) -> Callable[[str], bool]:
    automaton = Automaton(Grammar(node))
    return lambda text: automaton.accepts(text.encode("utf-8", "surrogatepass"))


JUDGES: dict[tuple[tuple[str, ...], str], Callable[[str], bool]] = {}


def judge(markers: tuple[str, ...], sigil: str) -> Callable[[str], bool]:
    if (markers, sigil) not in JUDGES:
        JUDGES[markers, sigil] = accepts(Leaf("STRING", string_pattern(markers, sigil)))
    return JUDGES[markers, sigil]


def escapes(char: str) -> st.SearchStrategy[str]:
    """The `\\u` spellings of a character of one code unit, its digits in any case."""
    digits = f"{ord(char):04x}"
    return st.tuples(*(st.sampled_from((digit, digit.upper())) for digit in digits)).map(lambda d: "\\u" + "".join(d))


def units(markers: tuple[str, ...], sigil: str) -> st.SearchStrategy[str]:
    """Pieces of strings, most of them close to what is forbidden."""
    chars = "".join(dict.fromkeys("".join(markers) + sigil + "nx"))
    pieces = [marker[:cut] for marker in markers for cut in range(1, len(marker) + 1)]
    pieces += [sigil[:cut] for cut in range(1, len(sigil) + 1)] or ["y"]
    pairs = st.tuples(st.integers(0xD800, 0xDBFF), st.integers(0xDC00, 0xDFFF))
    lone = st.integers(0xD800, 0xDFFF).map(lambda unit: f"\\u{unit:04x}")
    return st.one_of(
        st.sampled_from(pieces),
        st.sampled_from(chars),
        st.sampled_from(chars).flatmap(escapes),
        st.sampled_from(('\\"', "\\\\", "\\/", "\\b", "\\f", "\\n", "\\r", "\\t")),
        pairs.map(lambda pair: f"\\u{pair[0]:04x}\\u{pair[1]:04X}"),
        lone,
        st.sampled_from(
            ("é", "😀", "\x7f", "\u2028", "\ufffd", "\U0010ffff", "\n", "\x00", '"', "\\", "\\x", "\\u00", "\ud800")
        ),
        st.characters(exclude_categories=["Cs"]),
        st.integers(0, 0xFFFF).map(lambda unit: f"\\u{unit:04x}"),
    )


@settings(max_examples=700, deadline=None)
@given(st.data())
def test_strings_are_what_json_reads_without_markers_and_sigil(data: st.DataObject) -> None:
    markers, sigil = data.draw(st.sampled_from(MARKERS)), data.draw(st.sampled_from(SIGILS))
    begins = data.draw(st.sampled_from(("", *(sigil[:cut] for cut in range(1, len(sigil) + 1)))))
    spelled = "".join(data.draw(escapes(char)) if data.draw(st.booleans()) else char for char in begins)
    body = spelled + "".join(data.draw(st.lists(units(markers, sigil), max_size=8)))
    for text in (f'"{body}"', f'"{body}', body):
        assert judge(markers, sigil)(text) == is_allowed(text, markers, sigil), text


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(MARKERS), st.sampled_from(SIGILS), st.text(max_size=12), st.data())
def test_every_value_has_a_spelling_but_those_of_the_sigil(
    markers: tuple[str, ...], sigil: str, value: str, data: st.DataObject
) -> None:
    value += data.draw(st.sampled_from(("", *markers))) + value[:3]
    text = json.dumps(value, ensure_ascii=data.draw(st.booleans()))
    for marker in markers:
        text = text.replace(marker[0], f"\\u{ord(marker[0]):04x}")
    assert judge(markers, sigil)(text) == is_allowed(text, (), sigil)
    if sigil:
        assert judge(markers, sigil)('"\\\\' + text[1:]), "behind a backslash any text may follow, the sigil too"


@pytest.mark.parametrize("sigil", SIGILS[1:])
@pytest.mark.parametrize("markers", MARKERS)
def test_no_spelling_of_the_sigil_passes_and_everything_next_to_it_does(markers: tuple[str, ...], sigil: str) -> None:
    allowed = judge(markers, sigil)
    for place, char in enumerate(sigil):
        for spelled in (char, f"\\u{ord(char):04x}", f"\\u{ord(char):04X}"):
            begins = sigil[:place] + spelled + sigil[place + 1 :]
            assert not allowed(f'"{begins}"')
            assert not allowed(f'"{begins}x"')
        assert allowed(f'"{sigil[:place]}"')
        assert allowed(f'"{sigil[:place]}\\u{ord(char) ^ 1:04x}"')
        assert allowed(f'"{sigil[:place]}\\u{ord(char) + 0x100:04x}"')
    assert allowed(f'" {sigil}"')


@pytest.mark.parametrize("sigil", ["9", "a-b", "é", 'a"', "a b", "memory_\n"])
def test_sigils_that_are_no_identifiers_are_refused(sigil: str) -> None:
    with pytest.raises(GrammarError, match="is no identifier"):
        string_pattern((), sigil)


@pytest.mark.parametrize("markers", [("<",), ("<<",), ("<a<b>",), ("<a", "[<]"), ("",)])
def test_markers_whose_lead_comes_again_are_refused(markers: tuple[str, ...]) -> None:
    with pytest.raises(GrammarError, match="marker"):
        string_pattern(markers)


numerals = st.one_of(
    st.from_regex(r"-?[0-9]{0,22}(\.[0-9]{0,33})?([eE][+-]?[0-9]{0,3})?", fullmatch=True),
    st.integers(-(10**20), 10**20).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(json.dumps),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda number: str(float(int(number)))[:40]),
)
JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
TURN = turn_form(("<tool_call>",), "memory_")
NUMBERS = {form.closed: (accepts(form.integer), accepts(form.number)) for form in (EXACT, TURN)}


@settings(max_examples=600, deadline=None)
@given(numerals)
def test_numbers(text: str) -> None:
    is_number = JSON_NUMBER.fullmatch(text) is not None
    exact_integer, exact_number = NUMBERS[False]
    assert exact_number(text) == is_number
    if "e" in text.lower():  # as libraries write floats, and nothing that is no integer
        is_large = re.fullmatch(r"-?[1-9](\.[0-9]{1,16})?e\+([12][0-9]{2}|30[0-7]|1[6-9]|[2-9][0-9])", text) is not None
        assert exact_integer(text) or not is_large
        assert not exact_integer(text) or (is_number and Fraction(text).denominator == 1)
    else:
        assert exact_integer(text) == (is_number and re.fullmatch(r"-?[0-9]+(\.0+)?", text) is not None)
    turn_integer, turn_number = NUMBERS[True]
    if turn_integer(text):
        assert turn_number(text)
        assert abs(int(text)) < 10**19
    if turn_number(text):
        assert is_number
        assert math.isfinite(float(text))
    elif is_number:
        mantissa, _, exponent = text.lower().partition("e")
        whole, _, fraction = mantissa.lstrip("-").partition(".")
        assert len(whole) > 19 or len(fraction) > 30 or len(exponent.lstrip("+-")) > 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
with_markers = st.sampled_from(("<tool_call>", "a</tool_call>", "<tool_<tool_call>", "é<tool_call>\\"))
FORMS = [EXACT, turn_form(("<tool_call>", "</tool_call>"), "memory_")]


@settings(max_examples=300, deadline=None)
@given(
    json_values | with_markers | st.lists(with_markers) | st.dictionaries(with_markers, with_markers), st.sampled_from(FORMS)
)
def test_literals_of_a_value_spell_exactly_that_value(value: Any, form: JsonForm) -> None:
    node = value_literal(value, form)
    ways = node.items if isinstance(node, Choice) else (node,)
    texts = [way.text for way in ways if isinstance(way, Literal)]
    assert len(texts) == len(ways) == len(set(texts))
    canonical = json.dumps(value, ensure_ascii=False)
    assert texts[0] == canonical or any(marker in canonical for marker in form.markers)
    for text in texts:
        assert json.dumps(json.loads(text)) == json.dumps(value)
        assert not any(marker in text for marker in form.markers)
    assert texts[-1].isascii()


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, [-math.inf], "\ud800", ["a\udfff"], {"\udc00": 1}, {1, 2}, b"x", object()]
)
def test_values_that_no_json_text_spells_are_refused(value: Any) -> None:
    with pytest.raises(GrammarError):
        value_literal(value, EXACT)


def test_a_value_nested_too_deep_is_refused() -> None:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(GrammarError):
        value_literal(value, EXACT)
    assert not begins_with_sigil(value, "memory_")


@pytest.mark.parametrize(
    ("value", "begins"),
    [
        ("memory_1_x", True),
        ("memory_", True),
        ("\\memory_1_x", True),
        ("\\\\\\memory_", True),
        ({"a": [1, {"b": ["memory_x"]}]}, True),
        (["x", "y\\memory_"], False),
        ({"memory_x": "y"}, False),
        (" memory_x", False),
        ("memory", False),
        ("Memory_x", False),
        (7, False),
        (None, False),
    ],
)
def test_what_begins_with_the_sigil(value: Any, begins: bool) -> None:
    assert begins_with_sigil(value, "memory_") is begins
    assert not begins_with_sigil(value, "")
