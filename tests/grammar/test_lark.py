from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lark import Lark
from lark.exceptions import UnexpectedInput

from routine_grammar.api import compile_lark, compile_schema
from routine_grammar.automaton.automaton import Automaton
from routine_grammar.errors import GrammarError, GrammarTooLargeError
from routine_grammar.grammar import tree
from routine_grammar.grammar.lark_reader import MAX_LARK_CHARS, read_lark
from routine_grammar.grammar.lark_text import Flavour, grammar_to_lark, quoted
from routine_grammar.grammar.payload import dump_grammar, load_grammar
from routine_grammar.grammar.regex import grammar_to_regex
from routine_grammar.grammar.tree import Call, Choice, Grammar, Leaf, Literal, Marker, Node, Optional, Repeat, Sequence
from tests.grammar.peer import PeerMatcher, peer_tokenizer
from tests.grammar.samples import Sampler
from tests.grammars import edited, grammars, sample, trees
from tests.vocabularies import byte_vocabulary

MARKERS = ("<tool_call>", "</tool_call>", "<|x|>", "[A]", "[/A]", "é")
marked = trees(st.sampled_from(MARKERS).map(Marker)).map(Grammar)
PEER = peer_tokenizer(byte_vocabulary())


# Written and read back


@settings(max_examples=250, deadline=None)
@given(grammars, st.integers(0, 1 << 30))
def test_a_grammar_written_and_read_back_accepts_the_same(grammar: Grammar, seed: int) -> None:
    rng = random.Random(seed)
    lark = grammar_to_lark(grammar)
    read = read_lark(lark)
    assert grammar_to_lark(read_lark(grammar_to_lark(read))) == grammar_to_lark(read)
    ours, theirs = Automaton(grammar), Automaton(read)
    for _ in range(8):
        text = sample(grammar, rng)
        for candidate in (text, edited(text, rng), edited(edited(text, rng), rng)):
            assert ours.accepts(candidate.encode()) == theirs.accepts(candidate.encode()), candidate


@settings(max_examples=150, deadline=None)
@given(marked, st.integers(0, 1 << 30))
def test_markers_are_read_back_as_markers(grammar: Grammar, seed: int) -> None:
    read = read_lark(grammar_to_lark(grammar))
    assert read.markers() == grammar.markers()
    assert read.leaves() == grammar.leaves()
    sampler = Sampler(grammar, seed)
    ours, theirs = Automaton(grammar), Automaton(read)
    for _ in range(4):
        text = sampler.text()
        for candidate in (text, sampler.edited(text)):
            assert ours.accepts(candidate.encode()) == theirs.accepts(candidate.encode()), candidate


@given(st.text(max_size=10))
def test_any_text_is_a_string_literal(text: str) -> None:
    assert read_lark(f"start: {quoted(text)}\n").root == Literal(text)


@pytest.mark.parametrize(
    "pattern", ["a/b", r"a\/b", "/", "//", r"\\/", r"[/]", "", "a\nb", "\n", r"\n", '"', "#", " ", r"\\", "\x00", "\t"]
)
def test_any_pattern_is_a_regular_expression_between_slashes(pattern: str) -> None:
    automaton = Automaton(read_lark(grammar_to_lark(Grammar(Sequence((Literal("<"), Leaf("X", pattern)))))))
    direct = Automaton(Grammar(Sequence((Literal("<"), Leaf("X", pattern)))))
    for text in ("<", "<a/b", "</", "<//", "<\\/", "<a\nb", "<\n", '<"', "<#", "< ", "<\\", "<\x00", "<\t", "<a"):
        assert automaton.accepts(text.encode()) == direct.accepts(text.encode()), text


REPEATS = [(low, high) for low in (0, 1, 2, 5) for high in (None, 0, 1, 2, 5, 7) if high is None or high >= low]


@pytest.mark.parametrize(("low", "high"), REPEATS)
@pytest.mark.parametrize("around", ["alone", "before", "optional", "again"])
def test_repetitions_keep_their_bounds(low: int, high: int | None, around: str) -> None:
    repeat: Node = Repeat(Choice((Literal("x"), Literal("y"))), low, high)
    tested = {
        "alone": repeat,
        "before": Sequence((repeat, Literal("!"))),
        "optional": Sequence((Optional(repeat), Literal("!"))),
        "again": Repeat(Sequence((repeat, Literal(";"))), 2, None),
    }[around]
    grammar = Grammar(tested)
    ours, read = Automaton(grammar), Automaton(read_lark(grammar_to_lark(grammar)))
    peer = PeerMatcher(PEER, grammar_to_lark(grammar, Flavour.LLGUIDANCE))
    for count in range(10):
        for text in ("xy" * 5)[:count], ("xy" * 5)[:count] + "!", (("xy" * 5)[:count] + ";") * 3, "x;" * count:
            accepted = ours.accepts(text.encode())
            assert read.accepts(text.encode()) == accepted
            assert peer.accepts(list(text.encode())) == accepted


def test_notes_head_the_text_as_comments() -> None:
    lark = grammar_to_lark(Grammar(Literal("a")), note='one\ntwo "\n\nstart: "b"')
    assert lark.startswith('// one\n// two "\n//\n// start: "b"\nstart: "a"\n')
    assert read_lark(lark).root == Literal("a")


def test_what_allows_nothing_is_not_written() -> None:
    for nothing in (Choice(()), Optional(Choice(())), Sequence((Literal("a"), Choice(()))), Repeat(Choice(()), 0, 1)):
        with pytest.raises(GrammarError, match="allows nothing"):
            grammar_to_lark(Grammar(nothing))


def test_rules_of_any_schema_have_names_of_their_own() -> None:
    reserved = (
        "start",
        "any_value",
        "any_object",
        "any_array",
        "item",
        "member",
        "members",
        "1",
        "Ünicode",
        "a-b",
        "a b",
        "A_B",
        "",
    )
    schema = {
        "$defs": {name: {"const": f"is {name}"} for name in reserved} | {"free": {}},
        "type": "object",
        "properties": {f"p{place}": {"$ref": f"#/$defs/{name.replace(' ', '%20')}"} for place, name in enumerate(reserved)}
        | {"any": {}, "some": {"type": "array"}, "free": {"$ref": "#/$defs/free"}, "object": {"type": "object"}},
        "additionalProperties": False,
    }
    grammar = compile_schema(schema)
    read = compile_lark(grammar.lark)
    values = ", ".join(f'"p{place}": "is {name}"' for place, name in enumerate(reserved) if name != "Ünicode")
    good = f'{{{values}, "any": [1, {{"x": null}}], "some": ["x", 1], "free": "y", "object": {{"z": []}}}}'
    for compiled in (grammar, read):
        assert compiled.accepts(good)
        assert not compiled.accepts(good.replace("is start", "is any_value"))
        assert not compiled.accepts(good.replace('"free": "y"', '"free": y'))


# What llguidance makes of it


@settings(max_examples=150, deadline=None)
@given(grammars, st.sampled_from(Flavour))
def test_llguidance_reads_what_is_written_for_it(grammar: Grammar, flavour: Flavour) -> None:
    if flavour is Flavour.LARK and "~" in grammar_to_lark(grammar):
        return  # Lark's own way to count, which llguidance does not read
    PeerMatcher(PEER, grammar_to_lark(grammar, flavour))


JSON_LIST = compile_schema({"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}, {"$ref": "#"}]}}).tree
CALL = Grammar(
    Sequence((Optional(Literal("Step 1\n")), Marker("<tool_call>"), Literal("\n"), JSON_LIST.root, Marker("</tool_call>"))),
    JSON_LIST.rules,
)


@pytest.mark.parametrize("single", [(), ("<tool_call>",), ("<tool_call>", "</tool_call>")])
def test_markers_are_bytes_or_tokens_for_llguidance_as_the_vocabulary_says(single: tuple[str, ...]) -> None:
    vocabulary = byte_vocabulary(special=single)
    peer = PeerMatcher(peer_tokenizer(vocabulary), grammar_to_lark(CALL, Flavour.LLGUIDANCE, vocabulary.special))
    sampler = Sampler(CALL, 5)
    automaton = Automaton(CALL)
    agreed = set()
    for _ in range(150):
        text = sampler.text()
        for candidate in (text, sampler.edited(text)):
            accepted = automaton.accepts(candidate.encode())
            tokens = tokens_of(candidate, vocabulary.special if accepted else {})
            spelled = bool(single) and any(marker in candidate for marker in single) and not accepted
            assert peer.accepts(tokens) == (accepted and not spelled), candidate
            agreed.add(accepted)
    assert agreed == {True, False}
    if single:
        bare = next(text for text in (sampler.text() for _ in range(9)) if automaton.accepts(text.encode()))
        assert not peer.accepts(list(bare.encode())), "a marker that is one token can't be spelled by bytes"


def tokens_of(text: str, special: dict[str, int] | object) -> list[int]:
    """The bytes of a text, its markers as the tokens that they are."""
    assert isinstance(special, dict)
    tokens: list[int] = []
    while text:
        marker = next((name for name in special if text.startswith(name)), None)
        tokens += [special[marker]] if marker else text[0].encode()
        text = text[len(marker or "x") :]
    return tokens


# Grammars that users write

CALCULATOR = r"""
// sums of products
?start: sum
sum: product (("+" | "-") product)*   -> sums
product: power (("*" | "/") power)~0..3
power: atom | atom "^" power
!atom: NUMBER | "(" sum ")" | NAME ["'"]
NUMBER: DIGIT+ ("." DIGIT+)?
DIGIT: "0".."9"
NAME.2: /[a-z]_?/
"""


def test_a_grammar_of_a_user() -> None:
    grammar = compile_lark(CALCULATOR)
    for text in ("1", "1+2", "12.5-a*b_*(c'+7)/2", "a^b^c", "1*2*3/4", "((1))"):
        assert grammar.accepts(text), text
        assert compile_lark(grammar.lark).accepts(text)
    for text in ("", "1+", "(1", "ab", "a__", "1*2*3*4*5", "1..2", "A", "1 + 2"):
        assert not grammar.accepts(text), text
        assert not compile_lark(grammar.lark).accepts(text)
    assert load_grammar(dump_grammar(grammar.tree)) == grammar.tree


def test_terminals_may_be_composed_of_terminals() -> None:
    grammar = compile_lark('start: A B C D\nA: /a/ /b/\nB: /x/ | /y+/ | "z"\nC: A? B~2\nD: "p".."r"')
    for text, accepted in {"abxxxp": True, "abyyababxyr": False, "abyyabzzr": True, "abzyxq": True, "abzabyxs": False}.items():
        assert grammar.accepts(text) == accepted, text
        assert compile_lark(grammar.lark).accepts(text) == accepted
    assert grammar.matcher(byte_vocabulary()).allowed().tolist() == [ord("a")]
    assert load_grammar(grammar.payload) == grammar.tree


TEMPLATES = """
start: "select"i " " _rows{CNAME, ", "} [" WHERE "i test]
test: CNAME " = " (json | pair{INT, /[xy]z/i})
_rows{item, between}: item (between item)*
pair{x, y}: "<" twice{x} y ">"
twice{x}: x "," x
%import common (CNAME, INT)
%import json.value -> json
"""


def test_templates_imports_and_any_case() -> None:
    grammar = compile_lark(TEMPLATES)
    taken = ("SELECT a, b", "sElEcT _x WhErE y = [1, {}]", 'select a where b = "\\u00e9"', "select a where b = <1,22Xz>")
    refused = ("SELECT a,b", "select a, ", "select a where b = [1,{}]", "select a where b = <1,2,xz>", "select a where b = 01")
    for text, expected in (*((text, True) for text in taken), *((text, False) for text in refused)):
        assert grammar.accepts(text) == expected, text
        assert compile_lark(grammar.lark).accepts(text) == expected
    assert load_grammar(grammar.payload) == grammar.tree


def lark_accepts(terminal: str) -> Callable[[str], bool]:
    parser = Lark(f"start: T\n%import common.{terminal} -> T\n", parser="lalr")

    def judge(text: str) -> bool:
        try:
            parser.parse(text)
        except UnexpectedInput:
            return False
        return True

    return judge


COMMON = (
    *("DIGIT", "HEXDIGIT", "INT", "SIGNED_INT", "DECIMAL", "FLOAT", "SIGNED_FLOAT", "NUMBER", "SIGNED_NUMBER"),
    *("ESCAPED_STRING", "LCASE_LETTER", "UCASE_LETTER", "LETTER", "WORD", "CNAME", "WS_INLINE", "WS", "CR", "LF", "NEWLINE"),
)


@pytest.mark.parametrize("terminal", COMMON)
def test_common_terminals_are_those_of_larks_library(terminal: str) -> None:
    mine, judge = compile_lark(f"start: T\n%import common.{terminal} -> T"), lark_accepts(terminal)
    rng = random.Random(terminal)
    for _ in range(2_000):
        text = "".join(rng.choice('01a9bFzZ_+-..eE"\\\\ \t\r\n\f') for _ in range(rng.randrange(1, 6)))
        for each in (text, f'"{text}"'):
            assert mine.accepts(each) == judge(each), each


def test_json_of_the_fragment_is_that_of_schemas() -> None:
    mine, whole = compile_lark("start: value\n%import json.value"), compile_schema({})
    for text in (
        '{"a": [1.5e-7, true, null]}',
        "[]",
        "{}",
        '"\\ud83d\\ude00"',
        '"\\ud83d"',
        "[1,2]",
        '{"a":1}',
        "-0",
        "01",
        '"\x01"',
    ):
        assert mine.accepts(text) == whole.accepts(text), text


def test_start_may_call_itself() -> None:
    grammar = compile_lark('start: "(" start? ")"')
    assert grammar.accepts("((()))")
    assert not grammar.accepts("(()")
    with pytest.raises(GrammarError, match="rule start calls itself"):
        grammar_to_regex(grammar.tree)


def test_holes_may_stay_undefined() -> None:
    assert Automaton(read_lark('start: "a" hole', frozenset(("hole",)))).accepts(b"a")
    with pytest.raises(GrammarError, match="hole, which is not defined"):
        read_lark('start: "a" hole')


@pytest.mark.parametrize(
    ("lark", "message"),
    [
        ("", "has no rule `start`"),
        ('begin: "a"', "has no rule `start`"),
        ('start: "a', "line 1, column 8"),
        ("start: (", "line 1, column 9"),
        ('start: "a"\nb: )', "line 2, column 4"),
        ('start: "a"\n\n  $$', "line 3, column 3"),
        ('start "a"', "line 1, column 7"),
        ('start: "a" | | |*', "line 1, column 17"),
        ('start: "a"\n%ignore " "', "line 2: %ignore is not supported"),
        ('start: "a"\n%import nowhere.INT', "line 2: there is no fragment 'nowhere'; there are common, json"),
        ('start: "a"\n%import .common.INT', "line 2: there is no fragment '.common'"),
        ('start: "a"\n%import INT', "line 2: there is no fragment ''"),
        ('start: "a"\n%import common (INT, NONE)', "line 2: fragment 'common' has no 'NONE'"),
        ('start: INT\n%import common.INT\nINT: "1"', "line 3: INT is defined twice|line 2: INT is defined twice"),
        ('start: t{"a"}', "line 1: there is no template 't'"),
        ('start: t{"a"}\nt{x, y}: x y', "line 1: template t takes 2 arguments, got 1"),
        ('start: "a" t\nt{x}: x x', "line 1: t is a template, and takes 1 arguments"),
        ('start: t{"a"}\nt{x}: x | t{t{x}}', "nested too deep|more than 1000 rules"),
        ("start: /a/l", "line 1: "),
        ('start: "a" /b\\/a(?<!x)/', "line 1: "),
        ('start: "a"\n\n%declare X', "line 3: %declare is not supported"),
        ('start: "a"\n%override start: "b"', "line 2: %override is not supported"),
        ('%extend start: "b"', "line 1"),
        ('start: "a"\nstart: "b"', "line 2: start is defined twice"),
        ('start: A\nA: "a"\n?b: A\nA: "b"', "line 4: A is defined twice"),
        ('start: "ab".."cd"', "line 1: .* is no range of characters"),
        ('start: "z".."a"', "line 1: .* is no range of characters"),
        ('start: ""..""', "line 1: .* is no range of characters"),
        (r'start: "\xZZ"', "line 1: .* is no string"),
        (r'start: "\ud800"', "rule start has a literal with a lone surrogate"),
        ("start: b", "rule start calls rule b, which is not defined"),
        ('start: "a"\nc: "b" B', "rule c calls rule B, which is not defined"),
        ("start: A\nA: B\nB: A", "line 2: terminal A is defined by itself"),
        ('start: A\nA: "x" A?', "line 2: terminal A is defined by itself"),
        ('start: "a"~5..3', "rule start repeats an item 5 to 3 times"),
        ('start: "a"~1000000', "rule start repeats .* the bound is 10000"),
        ('start: "a"~1..1000000', "rule start repeats .* the bound is 10000"),
        ("start: /(/", r"a `\(` without its `\)`"),
        ("start: /^a/", "asserts a place by"),
        (r"start: /a(?=b)|c/", "looks further than what it matches"),
        (r"start: /(?=b.*c)b.*/", "looks further than what it matches"),
        (r"start: /a(?=b)/", "looks further than what it matches"),
        (r"start: /a(?!b)/", "looks further than what it matches"),
        (r"start: /(?<=b)a/", "a look behind"),
        (r"start: /(a)\1/", "a back-reference"),
        (r"start: /a\b/", "asserts a place by"),
        ("start: /[^\\x00-\U0010ffff]/", "pattern"),
        ('start: start "a" | "b"', "rule start begins with itself"),
        ('start: a\na: "x"? b\nb: a "y" | "z"', "rule a begins with itself"),
        ('start: "x" start', "allows no text"),
    ],
)
def test_what_is_declined_names_its_place(lark: str, message: str) -> None:
    with pytest.raises(GrammarError, match=message):
        compile_lark(lark)


def test_grammars_past_the_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GrammarTooLargeError, match="characters; the bound"):
        read_lark("//" + "x" * MAX_LARK_CHARS)
    with pytest.raises(GrammarTooLargeError, match="nested"):
        read_lark("start: " + "(" * 5_000 + '"a"' + ")" * 5_000)
    with pytest.raises(GrammarTooLargeError, match="nested more than 200 deep"):
        read_lark("start: " + "(" * 250 + '"a"' + "?)" * 250)
    monkeypatch.setattr(tree, "MAX_NODES", 1_000)
    with pytest.raises(GrammarTooLargeError, match="more than 1000 nodes"):
        read_lark("start: " + '"a"? ' * 1_000)


def test_what_only_a_parser_could_tell_apart_is_an_error() -> None:
    with pytest.raises(GrammarTooLargeError, match="rule p calls itself and can be read in too many ways; vLLM's own guidance"):
        compile_lark('start: p\np: "a" p "a" | "b" p "b" | "a"? | "b"')
    common_beginnings = compile_lark('start: many\nmany: atom~1..3 | atom "*" many\natom: /[a-z]+/ | "(" many ")"')
    assert common_beginnings.accepts("a*b*(c*d)e(f)")
    assert not common_beginnings.accepts("ab(c)(d)(e)")


def test_long_chains_and_circles_of_rules_are_read_in_time() -> None:
    unclear = "start: r0 /a/?\n" + "".join(f'r{n}: "x" r{n + 1} | /a+/ r{n + 1}?\n' for n in range(1_200)) + 'r1200: "x"\n'
    with pytest.raises(GrammarTooLargeError, match="nested too deep in rules"):
        compile_lark(unclear).accepts("x")
    chain = "start: r0\n" + "".join(f'r{n}: "x" r{n + 1} | /a+/ "b" r{n + 1}\n' for n in range(1_200)) + 'r1200: "x"\n'
    assert compile_lark(chain).accepts("x" * 1_201)
    circle = "start: r0\n" + "".join(f'r{n}: "x" r{n + 1} "y" | "z"\n' for n in range(1_200)) + "r1200: r0\n"
    grammar = compile_lark(circle)
    assert grammar.accepts("xxzyy")
    assert not grammar.accepts("xxzy")


def test_calls_are_written_by_name() -> None:
    lark = grammar_to_lark(Grammar(Sequence((Call("a"), Optional(Call("b")))), {"a": Literal("x"), "b": Leaf("B", "[0-9]")}))
    assert lark == 'start: a b?\na: "x"\nb: B\nB: /[0-9]/\n'
