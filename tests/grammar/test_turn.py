"""What may be said at a position: judged by `re`, by llguidance and by Lark on the demo's turns, then rule by rule."""

from __future__ import annotations

import json
import random
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import cycle
from typing import Any

import lark
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from routine_grammar import MemoryKey, Routine, Tool, Vocabulary, compile_routine
from routine_grammar.api import CompiledRoutine, Turn
from routine_grammar.automaton.automaton import Automaton
from routine_grammar.demo.model import demo_model_path
from routine_grammar.errors import GrammarTooLargeError, MemoryKeyError, RoutineError, SchemaError, UnsupportedSchemaError
from routine_grammar.grammar import turn as turn_module
from routine_grammar.grammar.dialects import Dialect
from routine_grammar.grammar.lark_reader import read_lark
from routine_grammar.grammar.turn import THOUGHT, position_rule, turn_grammar
from routine_grammar.routine import (
    AnyKey,
    Branch,
    Constant,
    Graph,
    Header,
    Key,
    Literal,
    Omit,
    Source,
    Step,
    Thought,
    Variable,
    header_of,
)
from routine_grammar.routine.checks import key_types
from routine_grammar.routine.types import assignable
from tests.grammar.json_instances import instance
from tests.grammar.peer import PeerMatcher, peer_tokenizer
from tests.grammar.samples import Sampler
from tests.grammar.test_json_schema import begins_like_a_key, closed, unrepeated
from tests.scale import SCALE
from tests.vocabularies import byte_vocabulary

TEXT: dict[str, Any] = {"type": "string"}
MARKER = re.compile(rb"(</?tool_call>)")


# The demo's turns: 1,000 texts of theirs and 1,000 edits, and four judges


@dataclass(frozen=True)
class Said:
    """Bytes said at a turn; `drawn`: they are a text of its grammar, not an edit of one."""

    turn: Turn
    data: bytes
    drawn: bool

    @property
    def text(self) -> str | None:
        """The text that the bytes are; None where they are not UTF-8."""
        try:
            return self.data.decode()
        except UnicodeDecodeError:
            return None


EXTRA = (
    MemoryKey("memory_9_note", TEXT, "a note"),
    MemoryKey("memory_9_count", {"type": "integer"}),
    MemoryKey("memory_9_office", None, "Europe/Berlin"),
    MemoryKey("memory_9_unknown"),
)


def turns_of(compiled: CompiledRoutine) -> Iterable[Turn]:
    """The turns at every position: with the keys written on every path, on some path, and with others beside them."""
    for position in compiled.graph.positions:
        always, sometimes = compiled.graph.keys_before(position)
        yield compiled.turn(position, always)
        yield compiled.turn(position, sometimes)
        yield compiled.turn(position, [*sometimes, *EXTRA])


@pytest.fixture(scope="module")
def said(demo: dict[str, CompiledRoutine]) -> list[Said]:
    """Distinct texts of all turns, round and round, each followed by an edit of one byte."""
    samplers = [
        (turn, Sampler(turn.tree, number)) for compiled in demo.values() for number, turn in enumerate(turns_of(compiled))
    ]
    rng, seen, found = random.Random(1), set[tuple[int, str]](), list[Said]()
    for turn, sampler in cycle(samplers):
        if len(found) == 2_000 * SCALE:
            break
        text = sampler.text()
        if (id(turn), text) not in seen:
            seen.add((id(turn), text))
            found += [Said(turn, text.encode(), True), Said(turn, edited(text.encode(), rng), False)]
    return found


def edited(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one replaced, added, removed, or swapped with the next; they may be UTF-8 no longer."""
    place = rng.randrange(len(data))
    byte = bytes((rng.choice((rng.randrange(256), rng.choice(b'"\\<>{}[],: 01aeu_\n'), rng.choice(data))),))
    before, here, after = data[:place], data[place : place + 1], data[place + 1 :]
    return rng.choice(
        (before + byte + after, before + byte + here + after, before + after, before + after[:1] + here + after[1:])
    )


def agreed(said: list[Said], judge: Callable[[Said], bool]) -> None:
    """Hold a judge against `accepts` on all that was said, and see that there was enough of every kind."""
    counts: Counter[str] = Counter()
    for each in said:
        accepted = each.turn._automaton.accepts(each.data)
        assert accepted == (each.text is not None and each.turn.accepts(each.text))
        assert judge(each) == accepted, (each.turn.position, each.data)
        counts[f"{'drawn' if each.drawn else 'edited'}, {'valid' if accepted else 'invalid'}"] += 1
        counts["no UTF-8"] += each.text is None
    assert counts["drawn, valid"] == 1_000 * SCALE
    assert counts["edited, valid"] + counts["edited, invalid"] == 1_000 * SCALE
    assert min(counts["edited, valid"], counts["edited, invalid"], counts["no UTF-8"]) > 50 * SCALE, counts


def test_the_regular_expression_of_a_turn_matches_what_it_accepts(said: list[Said]) -> None:
    patterns = cache(re.compile)
    agreed(said, lambda each: each.text is not None and bool(patterns(each.turn.regex).fullmatch(each.text)))


def test_llguidance_over_bytes_accepts_what_a_turn_accepts(said: list[Said]) -> None:
    vocabulary = byte_vocabulary()
    tokenizer = peer_tokenizer(vocabulary)
    peers = cache(lambda lark_text: PeerMatcher(tokenizer, lark_text))
    agreed(said, lambda each: peers(each.turn.lark_for("llguidance", vocabulary)).accepts(list(each.data)))


@pytest.fixture(scope="module")
def demo_vocabulary() -> Vocabulary:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoTokenizer

        return Vocabulary.from_tokenizer(AutoTokenizer.from_pretrained(str(demo_model_path())))


def test_llguidance_over_tokens_accepts_what_a_turn_accepts(said: list[Said], demo_vocabulary: Vocabulary) -> None:
    """Some spelling of the text in tokens, the markers as their own; with markers spelled by other tokens, none."""
    tokenizer = peer_tokenizer(demo_vocabulary)
    peers = cache(lambda lark_text: PeerMatcher(tokenizer, lark_text))
    tokens_by_text = {token: number for number, token in enumerate(demo_vocabulary.tokens) if token}
    rng, spelled_markers = random.Random(2), 0

    def judge(each: Said) -> bool:
        nonlocal spelled_markers
        peer = peers(each.turn.lark_for("llguidance", demo_vocabulary))
        if MARKER.search(each.data):
            spelled_markers += 1
            assert not peer.accepts(spelling(each.data, tokens_by_text, rng))
        tokens = [
            token
            for part in MARKER.split(each.data)
            for token in (
                [demo_vocabulary.special[part.decode()]] if MARKER.fullmatch(part) else spelling(part, tokens_by_text, rng)
            )
        ]
        accepted = peer.accepts(tokens)
        matcher = each.turn.matcher(demo_vocabulary)
        assert (all(map(matcher.advance, tokens)) and matcher.may_end) == accepted
        return accepted

    agreed(said, judge)
    assert spelled_markers > 1_000 * SCALE


def test_the_bounds_of_lists_and_thoughts_are_the_same_to_all_judges(demo: dict[str, CompiledRoutine]) -> None:
    office = "memory_input_first_office"
    convert = call("convert_time", source_timezone="Asia/Tokyo", time="09:30", target_timezone=office)
    policy = demo["expense_approval"].turn("1", demo["expense_approval"].graph.keys_before("1")[0])
    branch = demo["meeting_times"].turn("1", demo["meeting_times"].graph.keys_before("1")[0])
    texts = [
        (policy, call("check_policy", report="memory_1_report", rules=["limits"] * count), 1 <= count <= 4)
        for count in range(7)
    ]
    texts += [(branch, f"Thought: {'é' * chars}\nStep 2\n{convert}", 1 <= chars <= 60) for chars in (0, 1, 59, 60, 61, 90)]
    vocabulary = byte_vocabulary()
    tokenizer = peer_tokenizer(vocabulary)
    for turn, text, expected in texts:
        assert turn.accepts(text) == expected, text
        assert bool(re.fullmatch(turn.regex, text)) == expected, text
        peer = PeerMatcher(tokenizer, turn.lark_for("llguidance", vocabulary))
        assert peer.accepts(list(text.encode())) == expected, text


def spelling(data: bytes, tokens: dict[bytes, int], rng: random.Random) -> list[int]:
    """Tokens that spell the bytes: at each place the longest, or any other one."""
    spelled = []
    while data:
        fitting = [data[:length] for length in range(min(len(data), 24), 0, -1) if data[:length] in tokens]
        token = fitting[0] if rng.random() < 0.7 else rng.choice(fitting)
        spelled.append(tokens[token])
        data = data[len(token) :]
    return spelled


def test_the_whole_routine_is_one_grammar_with_a_rule_for_each_position(demo: dict[str, CompiledRoutine]) -> None:
    verdicts: Counter[bool] = Counter()
    for compiled in demo.values():
        rules = {position: position_rule(position) for position in compiled.graph.positions}
        assert len(set(rules.values())) == len(rules)
        judge = lark.Lark(compiled.lark, start=list(rules.values()), parser="earley")
        read = read_lark(compiled.lark)
        for position, rule in rules.items():
            turn = compiled.turn(position, compiled.graph.keys_before(position)[1])
            ours, sampler = Automaton(replace(read, root=read.rules[rule])), Sampler(turn.tree, 3)
            for _ in range(4 * SCALE):
                text = sampler.text()
                for candidate in (text, sampler.edited(text)):
                    accepted = turn.accepts(candidate)
                    assert parses(judge, candidate, rule) == ours.accepts(candidate.encode()) == accepted, candidate
                    verdicts[accepted] += 1
    assert min(verdicts.values()) > 40 * SCALE, verdicts
    assert position_rule("2-1_10-1_1") == "at_2_1_10_1_1"


def parses(judge: lark.Lark, text: str, start: str) -> bool:
    try:
        judge.parse(text, start=start)
    except lark.exceptions.UnexpectedInput:
        return False
    return True


# Rule by rule


def tool(name: str, required: Sequence[str] = (), output: Any = None, **parameters: Any) -> Tool:
    return Tool(name, "", {"type": "object", "properties": parameters, "required": list(required)}, output)


ORDER = {"type": "object", "properties": {"total": {"type": "number"}, "customer": TEXT, "paid": {"type": "boolean"}}}
REASON = {"type": "object", "properties": {"code": {"type": "integer"}, "text": TEXT}, "required": ["code"]}
TOOLS = (
    tool("get_order", ["order_id"], ORDER, order_id=TEXT),
    tool(
        "refund",
        ["order_id", "percent"],
        order_id=TEXT,
        percent={"type": "integer"},
        note=TEXT,
        reason=REASON,
        fast={"type": "boolean"},
    ),
    tool("send", ["text"], text=TEXT),
)
INPUTS = "inputs: {order_id: {type: string}, percent: {type: integer}}\n"
ORDER_KEY, PERCENT_KEY = "memory_input_order_id", "memory_input_percent"


def routine(steps: str, head: str = "", **options: Any) -> CompiledRoutine:
    return compile_routine(Routine.parse(f"name: test\n{head}{INPUTS}steps:\n{steps}"), TOOLS, **options)


def refund(arguments: str, **options: Any) -> CompiledRoutine:
    """A Routine of one refund with these arguments."""
    return routine(f"  - {{name: Pay back, tool: refund, arguments: {{{arguments}}}}}\n", **options)


def call(name: str, **arguments: Any) -> str:
    return written(name, json.dumps(arguments, ensure_ascii=False))


def written(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def test_a_parameter_without_a_source_takes_a_literal_or_a_live_key_of_its_type() -> None:
    compiled = routine("  - {name: Pay back, tool: refund}\n")
    turn = compiled.turn(memory=[ORDER_KEY, PERCENT_KEY])
    assert turn.accepts(call("refund", order_id="A-7", percent=50))
    assert turn.accepts(call("refund", order_id=ORDER_KEY, percent=PERCENT_KEY, note=ORDER_KEY))
    assert not turn.accepts(call("refund", order_id=PERCENT_KEY, percent=50))
    assert not turn.accepts(call("refund", order_id="A-7", percent=ORDER_KEY))
    assert not turn.accepts(call("refund", order_id="memory_input_other", percent=50))
    assert not turn.accepts(call("refund", order_id="A-7", percent=50, reason={"code": 1, "text": ORDER_KEY}))
    forgetful = compiled.turn(memory=[PERCENT_KEY])
    assert not forgetful.accepts(call("refund", order_id=ORDER_KEY, percent=50))
    assert forgetful.accepts(call("refund", order_id="A-7", percent=PERCENT_KEY))


def test_a_key_whose_value_is_known_fits_by_its_value() -> None:
    compiled = routine("  - {name: Pay back, tool: refund}\n")
    turn = compiled.turn(memory=[MemoryKey("memory_9_a", None, 30), MemoryKey("memory_9_b", {"type": "integer"}, "thirty")])
    assert turn.accepts(call("refund", order_id="memory_9_b", percent="memory_9_a"))
    assert not turn.accepts(call("refund", order_id="memory_9_a", percent=1))
    assert not turn.accepts(call("refund", order_id="x", percent="memory_9_b"))


def test_a_parameter_that_takes_a_key_takes_no_literal() -> None:
    turn = refund("order_id: key, percent: key").turn(memory=[ORDER_KEY, PERCENT_KEY, MemoryKey("memory_9_id", TEXT)])
    assert turn.accepts(call("refund", order_id=ORDER_KEY, percent=PERCENT_KEY))
    assert turn.accepts(call("refund", order_id="memory_9_id", percent=PERCENT_KEY))
    assert not turn.accepts(call("refund", order_id=PERCENT_KEY, percent=PERCENT_KEY))
    assert not turn.accepts(call("refund", order_id="A-7", percent=PERCENT_KEY))
    assert not turn.accepts(call("refund", order_id=ORDER_KEY, percent=50))


def test_a_parameter_of_one_key_takes_no_other() -> None:
    arguments = f"order_id: {{key: {ORDER_KEY}}}, note: {{key: {ORDER_KEY}}}"
    turn = refund(arguments).turn(memory=[ORDER_KEY, MemoryKey("memory_9_id", TEXT)])
    assert turn.accepts(call("refund", order_id=ORDER_KEY, percent=50, note=ORDER_KEY))
    assert not turn.accepts(call("refund", order_id="memory_9_id", percent=50, note=ORDER_KEY))
    assert not turn.accepts(call("refund", order_id="A-7", percent=50, note=ORDER_KEY))
    assert not turn.accepts(call("refund", order_id=ORDER_KEY, percent=50))


def test_a_literal_parameter_takes_no_key() -> None:
    turn = refund("order_id: literal, percent: literal").turn(memory=[ORDER_KEY, PERCENT_KEY])
    assert turn.accepts(call("refund", order_id="A-7", percent=50, note=ORDER_KEY))
    assert not turn.accepts(call("refund", order_id=ORDER_KEY, percent=50))
    assert not turn.accepts(call("refund", order_id="A-7", percent=PERCENT_KEY))


def test_a_constant_is_exactly_that_and_always_there() -> None:
    turn = refund("percent: {const: 50}, reason: {const: {code: 3, text: é}}, fast: {const: true}").turn()
    reason = {"code": 3, "text": "é"}
    assert turn.accepts(call("refund", order_id="A-7", percent=50, reason=reason, fast=True))
    assert turn.accepts(call("refund", order_id="A-7", percent=50, reason=reason, fast=True).replace("é", "\\u00e9"))
    for wrong in ({"percent": 51}, {"percent": 5}, {"percent": "50"}, {"reason": {"code": 3}}, {"fast": False}):
        assert not turn.accepts(call("refund", **{"order_id": "A-7", "percent": 50, "reason": reason, "fast": True, **wrong}))
    assert not turn.accepts(call("refund", order_id="A-7", percent=50, fast=True))
    assert not turn.accepts(call("refund", order_id="A-7", percent=50, reason=reason))


def test_parameters_are_required_optional_or_left_out() -> None:
    turn = refund(f"note: omit, fast: {{const: false}}, order_id: {{key: {ORDER_KEY}}}").turn(memory=[ORDER_KEY])
    assert turn.accepts(call("refund", order_id=ORDER_KEY, percent=5, fast=False))
    assert turn.accepts(call("refund", order_id=ORDER_KEY, percent=5, reason={"code": 1}, fast=False))
    assert not turn.accepts(call("refund", order_id=ORDER_KEY, percent=5))
    assert not turn.accepts(call("refund", order_id=ORDER_KEY, fast=False))
    assert not turn.accepts(call("refund", order_id=ORDER_KEY, percent=5, note="x", fast=False))


def test_objects_are_closed_and_in_the_order_of_the_schema() -> None:
    turn = routine("  - {name: Pay back, tool: refund}\n").turn()
    assert turn.accepts(call("refund", order_id="A-7", percent=5, reason={"code": 1, "text": "late"}))
    assert not turn.accepts(call("refund", order_id="A-7", percent=5, reason={"code": 1, "other": "late"}))
    assert not turn.accepts(call("refund", order_id="A-7", percent=5, other=1))
    assert not turn.accepts(call("refund", percent=5, order_id="A-7"))
    assert not turn.accepts(written("refund", '{"order_id": "A-7","percent": 5}'))


SPELLINGS = (
    ORDER_KEY,
    "memory_",
    "\\u006demory_",
    "m\\u0065mory_x",
    "memory\\u005fx",
    "\\u006d\\u0065\\u006D\\u006f\\u0072\\u0079_",
)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_spelling_of_a_literal_begins_with_the_sigil(spelling: str) -> None:
    turn = refund("order_id: literal, percent: {const: 5}").turn(memory=[ORDER_KEY])
    arguments = '{"order_id": "%s", "percent": 5}'
    assert not turn.accepts(written("refund", arguments % spelling))
    for other in (f" {spelling}", f"\\\\{spelling}", f"x{spelling}", "memor", "memory-"):
        assert turn.accepts(written("refund", arguments % other)), other
        assert json.loads(arguments % other)["order_id"]


def test_a_key_is_spelled_in_one_way_only() -> None:
    turn = refund("order_id: key, percent: {const: 5}").turn(memory=[ORDER_KEY])
    assert turn.accepts(call("refund", order_id=ORDER_KEY, percent=5))
    assert not turn.accepts(call("refund", order_id=ORDER_KEY, percent=5).replace('"memory', '"\\u006demory'))


def test_another_sigil_frees_the_texts_of_the_first() -> None:
    compiled = refund(f"order_id: {{key: {ORDER_KEY}}}", sigil="key_")
    turn = compiled.turn(memory=["key_input_order_id"])
    assert turn.accepts(call("refund", order_id="key_input_order_id", percent=5, note="memory_lane"))
    assert not turn.accepts(call("refund", order_id=ORDER_KEY, percent=5))
    assert not turn.accepts(call("refund", order_id="key_input_order_id", percent=5, note="key_lane"))
    assert "key_input_order_id" in compiled.lark
    with pytest.raises(MemoryKeyError, match="does not begin with the sigil 'key_'"):
        compiled.turn(memory=[ORDER_KEY])


@pytest.mark.parametrize("value", ["memory_lane", "\\\\memory_lane"])
def test_a_constant_that_reads_as_a_key_proposes_another_sigil(value: str) -> None:
    arguments = f'order_id: {{const: "{value}"}}'
    with pytest.raises(RoutineError, match="reads as a memory key of sigil 'memory_': choose another sigil"):
        refund(arguments)
    assert refund(arguments, sigil="key_").turn().accepts(call("refund", order_id=json.loads(f'"{value}"'), percent=5))


def test_no_string_spells_a_marker_and_its_characters_stay_reachable() -> None:
    turn = refund('percent: {const: 5}, note: {const: "a <tool_call> b"}').turn()
    note = r'"a \u003ctool_call> b"'
    arguments = '{"order_id": "%s", "percent": 5, "note": %s}'
    for literal in ("x", "<", "<tool_call", "</tool_call ", r"\u003ctool_call>", r"\u003c/tool_call>", "tool_call>"):
        assert turn.accepts(written("refund", arguments % (literal, note))), literal
    for literal in ("<tool_call>", "</tool_call>", "<<tool_call>", "x</tool_call>y"):
        assert not turn.accepts(written("refund", arguments % (literal, note))), literal
    assert not turn.accepts(written("refund", arguments % ("x", '"a <tool_call> b"')))


BRANCHES = """
  - name: Look up
    tool: get_order
    arguments: {order_id: {key: memory_input_order_id}}
    outputs: {total: {pointer: /total}, customer: {pointer: /customer}}
    branches:
      - if: it was late
        steps: [{name: Say sorry, tool: send, arguments: {text: {const: sorry}}}]
  - {name: Say thanks, tool: %s, arguments: {text: {const: thanks}}}
"""
SORRY, THANKS = call("send", text="sorry"), call("send", text="thanks")


def test_a_header_stands_where_two_steps_share_a_tool() -> None:
    compiled = routine(BRANCHES % "send", "thought: {linear: 0, branch: 0}\n")
    turn = compiled.turn("1", [ORDER_KEY])
    assert turn.tools == ("send",)
    assert turn.accepts(f"Branch 1-1 Step 1\n{SORRY}")
    assert turn.accepts(f"Step 2\n{THANKS}")
    for wrong in (f"Step 2\n{SORRY}", f"Branch 1-1 Step 1\n{THANKS}", SORRY, f"Step 1\n{THANKS}", f"Step 2 {THANKS}"):
        assert not turn.accepts(wrong), wrong
    after = compiled.turn("1-1_1", [ORDER_KEY])
    assert after.accepts(THANKS)
    assert not after.accepts(f"Step 2\n{THANKS}")


def test_headers_stand_everywhere_where_they_are_asked_for() -> None:
    compiled = routine(BRANCHES % "send", "header: always\n")
    look = call("get_order", order_id=ORDER_KEY)
    assert compiled.turn(memory=[ORDER_KEY]).accepts(f"Step 1\n{look}")
    assert not compiled.turn(memory=[ORDER_KEY]).accepts(look)
    assert compiled.turn("1-1_1").accepts(f"Step 2\n{THANKS}")


def test_a_thought_is_one_line_of_bounded_length_where_the_routine_allows_it() -> None:
    compiled = routine(BRANCHES % "send", "thought: {linear: 0, branch: 5}\n")
    turn = compiled.turn("1", [ORDER_KEY])
    for thought in ("x", "12345", "ÄÖ😀é!", ": : ", "Step "):
        assert turn.accepts(f"Thought: {thought}\nStep 2\n{THANKS}"), thought
    for thought in ("", "123456", "a\nb", "a\tb", "a<b", "\x00"):
        assert not turn.accepts(f"Thought: {thought}\nStep 2\n{THANKS}"), thought
    assert turn.accepts(f"Step 2\n{THANKS}")
    for wrong in (
        f"Thought: x\nThought: x\nStep 2\n{THANKS}",
        f"Step 2\nThought: x\n{THANKS}",
        f"thought: x\nStep 2\n{THANKS}",
    ):
        assert not turn.accepts(wrong), wrong
    assert not turn.accepts(f"Step 2\n{THANKS}\nThought: x\n")
    linear = routine(BRANCHES % "send", "thought: {linear: 5, branch: 0}\n")
    assert linear.turn("1-1_1").accepts(f"Thought: 12345\n{THANKS}")
    assert not linear.turn("1").accepts(f"Thought: x\nStep 2\n{THANKS}")
    assert not compiled.turn("1-1_1").accepts(f"Thought: x\n{THANKS}")


MAY_END = """
  - name: Look up
    tool: get_order
    branches:
      - if: it was late
        steps: [{name: Say sorry, tool: send, arguments: {text: {const: sorry}}, finish: true}]
"""


def test_a_final_answer_is_given_only_where_the_routine_may_end() -> None:
    compiled = routine(MAY_END, "thought: {linear: 0, branch: 5}\n")
    assert not compiled.turn().accepts("Done.")
    turn = compiled.turn("1")
    assert turn.may_end
    for text in ("Done.", "x", "Step 2\nand more\n", "Thought: hm", SORRY, f"Thought: hm\n{SORRY}"):
        assert turn.accepts(text), text
    for text in ("", "a < b", f"Done.\n{SORRY}", f"Thought: too long\n{SORRY}", f"{SORRY} Done.", THANKS):
        assert not turn.accepts(text), text
    end = compiled.turn("1-1_1")
    assert (end.steps, end.may_end) == ((), True)
    assert end.accepts("Done.")
    assert not end.accepts(SORRY)


def test_a_key_that_a_step_needs_and_that_is_not_live_is_an_error() -> None:
    exact = refund(f"order_id: {{key: {ORDER_KEY}}}")
    with pytest.raises(MemoryKeyError, match=f"routine 'test', step 1, argument 'order_id': key {ORDER_KEY} is not live"):
        exact.turn(memory=[PERCENT_KEY])
    with pytest.raises(MemoryKeyError, match=r"routine 'test', step 1, argument 'percent': no live key fits .*integer"):
        refund("percent: key").turn(memory=[ORDER_KEY])


@pytest.mark.parametrize("memory", [[7], [b"memory_input_order_id"], ["order_id"], ["Memory_x"], [MemoryKey("x")], [""]])
def test_what_is_no_key_is_no_memory(memory: list[Any]) -> None:
    with pytest.raises(MemoryKeyError):
        refund("").turn(memory=memory)


@pytest.mark.parametrize("position", ["2", "Start", "", "1-1_2", "end"])
def test_an_unknown_position_is_an_error(position: str) -> None:
    with pytest.raises(RoutineError, match=f"routine 'test' has no position '{position}'"):
        routine(MAY_END).turn(position)


def test_a_turn_at_the_start_is_the_default_and_keys_come_in_any_order() -> None:
    compiled = routine("  - {name: Pay back, tool: refund}\n")
    turns = [compiled.turn(), compiled.turn("start"), compiled.turn(None, iter(()))]
    assert len({turn.payload for turn in turns}) == 1
    keys = [MemoryKey(name, TEXT) for name in (ORDER_KEY, "memory_9_a", "memory_9_b")]
    assert len({compiled.turn(memory=some).payload for some in (keys, keys[::-1], keys * 2)}) == 1


def test_tools_whose_arguments_cannot_be_enforced_are_declined_by_name() -> None:
    steps = (Step("", "Use it", tool="odd"),)
    for schema, error, message in (
        ({"minProperties": 1}, UnsupportedSchemaError, "'minProperties' over the arguments of tool 'odd'"),
        ({"required": ["x"]}, SchemaError, "tool 'odd' requires the parameter 'x'"),
        ({"properties": {"a": {"type": "string", "pattern": "x"}}}, UnsupportedSchemaError, "'pattern' is not supported"),
        ({"properties": {"a": {"enum": ["memory_x"]}}}, SchemaError, "choose another sigil"),
    ):
        with pytest.raises(error, match=message) as caught:
            compile_routine(Routine("test", steps=steps), [Tool("odd", "", {"type": "object", **schema})])
        if "properties" in schema:
            assert caught.value.__notes__ == ["routine 'test', step 1, tool 'odd', argument 'a'"]
            assert caught.value.pointer.startswith("/properties/a")


def test_names_of_tools_and_parameters_are_spelled_whatever_they_are() -> None:
    odd = Tool('<tool_call> "é"', "", {"type": "object", "properties": {'a "b"': {}, "<tool_call>": TEXT, "memory_x": TEXT}})
    compiled = compile_routine(Routine("test", steps=(Step("", "Use it", tool=odd.name),)), [odd])
    name = json.dumps(odd.name, ensure_ascii=False).replace("<", "\\u003c")
    body = f'{{"name": {name}, "arguments": {{"a \\"b\\"": [1], "\\u003ctool_call>": "x", "memory_x": "y"}}}}'
    assert compiled.turn().accepts(f"<tool_call>\n{body}\n</tool_call>")
    assert not compiled.turn().accepts(f"<tool_call>\n{body.replace('u003c', 'u003d')}\n</tool_call>")
    assert json.loads(body)["name"] == odd.name


def test_a_dialect_without_text_before_a_call_holds_neither_header_nor_thought() -> None:
    compiled = routine(BRANCHES % "send", "thought: {linear: 5, branch: 5}\n")
    bare = read_lark('start: "CALL " name arguments', frozenset(("name", "arguments")))
    scope = replace(compiled.scope, dialect=Dialect("bare", bare))
    with pytest.raises(RoutineError, match=r"at position '1' a step's header is needed .* dialect 'bare' lets no text"):
        turn_grammar(scope, "1", ())
    automaton = Automaton(turn_grammar(scope, "1-1_1", ()))
    assert automaton.accepts(b'CALL send{"text": "thanks"}')
    assert not automaton.accepts(b'Thought: x\nCALL send{"text": "thanks"}')


def test_turns_past_the_bounds_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = routine(BRANCHES % "send")
    monkeypatch.setattr(turn_module, "MAX_KEYS", 3)
    with pytest.raises(GrammarTooLargeError, match="4 live keys and 2 steps; the bounds are 3 and"):
        compiled.turn("1", [f"memory_9_{letter}" for letter in "abcd"])
    monkeypatch.setattr(turn_module, "MAX_STEPS_PER_TURN", 1)
    with pytest.raises(GrammarTooLargeError, match="the bounds are 3 and 1"):
        compiled.turn("1", [ORDER_KEY])


# Any small Routine


SCHEMAS: tuple[Any, ...] = (
    TEXT,
    {"type": "integer"},
    {"type": "number"},
    {"type": "boolean"},
    {"enum": ["a", "ab", 1, None]},
    {"type": ["string", "null"]},
    {"anyOf": [{"type": "integer"}, {"type": "array", "items": TEXT, "minItems": 1}]},
    REASON,
    {"type": "array", "items": REASON, "maxItems": 2},
    {"$ref": "#/$defs/level"},
)
DEFINITIONS = {"level": {"enum": ["low", "high"]}}
OUTPUTS: tuple[Any, ...] = (None, TEXT, {"type": "integer"}, {"type": "boolean"}, {"enum": ["low"]}, REASON)


@st.composite
def small_tools(draw: st.DrawFn) -> tuple[Tool, ...]:
    tools = []
    for name in draw(st.lists(st.sampled_from(("get", 'se"t', "é", "3<tool_call>")), min_size=1, max_size=2, unique=True)):
        parameters = draw(
            st.dictionaries(st.sampled_from(("a", "b", "ab", "é", "memory_c")), st.sampled_from(SCHEMAS), max_size=4)
        )
        required = [parameter for parameter in parameters if draw(st.booleans())]
        schema = {"type": "object", "properties": parameters, "required": required, "$defs": DEFINITIONS}
        tools.append(Tool(name, "", schema, draw(st.sampled_from(OUTPUTS))))
    return tuple(tools)


def small_steps(tools: Sequence[Tool], nesting: int) -> st.SearchStrategy[tuple[Step, ...]]:
    branches: st.SearchStrategy[tuple[Branch, ...]] = st.just(())
    if nesting:
        inner = small_steps(tools, nesting - 1)
        branch = st.builds(Branch, st.just("it is so"), steps=inner)
        otherwise = st.builds(Branch, st.none(), st.just(True), inner)
        branches = st.one_of(branches, st.tuples(branch), st.tuples(branch, branch), st.tuples(branch, otherwise))
    named = st.sampled_from([tool.name for tool in tools])
    step = st.builds(Step, st.just(""), st.just("Do it"), tool=named, branches=branches)
    return st.lists(step, min_size=1, max_size=2).map(tuple)


@st.composite
def small_routines(draw: st.DrawFn) -> CompiledRoutine:
    """A Routine that passes its checks: every argument gets one of the sources that it may have."""
    tools = draw(small_tools())
    by_name = {tool.name: tool for tool in tools}
    inputs = tuple(Variable(name, draw(st.sampled_from(OUTPUTS))) for name in draw(st.sampled_from(((), ("x",), ("x", "y")))))
    thought = Thought(draw(st.sampled_from((0, 3))), draw(st.sampled_from((0, 9))))
    bare = Routine("small", "", inputs, draw(small_steps(tools, 1)), thought, draw(st.sampled_from(Header)))
    graph = Graph.of(bare)
    types = key_types(graph, tools)

    def with_sources(step: Step) -> Step:
        tool, arguments = by_name[str(step.tool)], dict[str, Source]()
        before = graph.keys_before(step.id)[0] - {f"memory_{step.id}_result"}
        for name in tool.parameters:
            schema = tool.parameter_schema(name)
            keys = sorted(key for key in before if assignable(types[key], schema))
            constant = instance(tool.parameters[name], tool.input_schema, random.Random(draw(st.integers(0, 99))))
            options: list[Source | None] = [None, Literal(), *map(Key, keys)]
            options += [AnyKey()] * bool(keys) + [Omit()] * (name not in tool.input_schema["required"])
            options += [] if begins_like_a_key(constant) or "memory_" in str(constant) else [Constant(constant)]
            source = draw(st.sampled_from(options))
            if source is not None:
                arguments[name] = source
        branches = tuple(replace(branch, steps=tuple(map(with_sources, branch.steps))) for branch in step.branches)
        return replace(step, arguments=arguments, branches=branches)

    return compile_routine(replace(bare, steps=tuple(map(with_sources, bare.steps))), tools)


@settings(max_examples=120 * SCALE, deadline=None)
@given(small_routines(), st.data())
def test_any_text_of_a_turn_is_a_valid_call_of_a_permitted_tool(compiled: CompiledRoutine, data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 1 << 30))
    position = data.draw(st.sampled_from(compiled.graph.positions))
    always, sometimes = compiled.graph.keys_before(position)
    live = sorted(always | data.draw(st.sets(st.sampled_from(sorted(sometimes or {""})))) - {""})
    rng = random.Random(seed)
    values = {key: value_of(compiled.key_types[key], rng) for key in live}
    known = data.draw(st.booleans())
    turn = compiled.turn(position, [MemoryKey(key, compiled.key_types[key], values[key]) if known else key for key in live])
    assert set(turn.tools) == {step.tool for step in compiled.graph.successors(position).steps}
    sampler = Sampler(turn.tree, seed)
    for _ in range(5):
        text = sampler.text()
        assert turn.accepts(text)
        if "<tool_call>" in text:
            is_valid_call(compiled, turn, text, values)
        else:
            assert turn.may_end


def value_of(schema: Any, rng: random.Random) -> Any:
    return "anything" if schema is None else instance(schema, schema, rng)


def is_valid_call(compiled: CompiledRoutine, turn: Turn, text: str, values: dict[str, Any]) -> None:
    leading, _, rest = text.partition("<tool_call>\n")
    assert rest.endswith("\n</tool_call>")
    said = json.loads(rest.removesuffix("\n</tool_call>"), object_pairs_hook=unrepeated)
    assert said.keys() == {"name", "arguments"}
    step = compiled.graph.step_taken(turn.position, leading, said["name"])
    assert step in turn.steps
    header = f"{header_of(step.id)}\n" if compiled.graph.is_headed(turn.position) else ""
    thought = leading.removesuffix(header) if header else leading
    limit = compiled.scope.thought_limit(compiled.graph.successors(turn.position))
    assert leading.endswith(header)
    assert not thought or (thought.startswith(THOUGHT) and 0 < len(thought) - len(f"{THOUGHT}\n") <= limit)
    tool = compiled.scope.tools[said["name"]]
    resolved = {}
    for name, value in said["arguments"].items():
        is_key = isinstance(value, str) and value.startswith("memory_")
        assert fits(step.arguments.get(name), value, is_key), (name, value)
        resolved[name] = values[value] if is_key else value
        assert is_key or not begins_like_a_key(value)
    for name, source in step.arguments.items():
        assert name in said["arguments"] or not isinstance(source, Constant | Key)
    Draft202012Validator(closed(tool.input_schema)).validate(resolved)


def fits(source: Source | None, value: Any, is_key: bool) -> bool:
    match source:
        case Constant(constant):
            return json.dumps(value) == json.dumps(constant)
        case Key(key):
            return bool(value == key)
        case AnyKey():
            return is_key
        case Literal():
            return not is_key
        case Omit():
            return False
        case None:
            return True
