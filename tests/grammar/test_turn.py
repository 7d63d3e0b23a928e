"""What may be said at a position, rule by rule."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from routine_grammar import MemoryKey, Routine, Tool, compile_routine
from routine_grammar.api import CompiledRoutine
from routine_grammar.automaton.automaton import Automaton
from routine_grammar.errors import GrammarTooLargeError, MemoryKeyError, RoutineError, SchemaError, UnsupportedSchemaError
from routine_grammar.grammar import faults as faults_module
from routine_grammar.grammar import tree as tree_module
from routine_grammar.grammar import turn as turn_module
from routine_grammar.grammar.dialects import Dialect
from routine_grammar.grammar.lark_reader import read_lark
from routine_grammar.grammar.turn import turn_grammar
from routine_grammar.routine import (
    AnyKey,
    Constant,
    Omit,
    Step,
    Variable,
    header_of,
)
from tests.grammar.calls import REASON, TEXT, call, written

MARKER = re.compile(rb"(</?tool_call>)")


def tool(name: str, required: Sequence[str] = (), output: Any = None, **parameters: Any) -> Tool:
    return Tool(name, "", {"type": "object", "properties": parameters, "required": list(required)}, output)


ORDER = {"type": "object", "properties": {"total": {"type": "number"}, "customer": TEXT, "paid": {"type": "boolean"}}}
OPEN: dict[str, Any] = {"properties": {"b": TEXT}, "additionalProperties": True}
ENDLESS = {"$defs": {"A": {"type": "object", "properties": {"n": {"$ref": "#/$defs/A"}}, "required": ["n"]}}}
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


def test_a_final_answer_begins_with_no_header_that_leads_to_a_call() -> None:
    compiled = routine(MAY_END, "thought: {linear: 0, branch: 0}\nheader: always\n")
    turn = compiled.turn("1")
    header = header_of(turn.steps[0].id) + "\n"
    assert turn.accepts(header + SORRY)
    assert turn.accepts(f"{header.strip()} was left out.")
    assert turn.accepts("Step 9\n")
    assert not turn.accepts(header)
    assert not turn.accepts(f"{header}Done.")


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
    for text in ("Done.", "x", "Step 2\nand more\n", "Thoughts: many", "Thought:", SORRY, f"Thought: hm\n{SORRY}"):
        assert turn.accepts(text), text
    for text in ("", "a < b", "Thought: hm", f"Done.\n{SORRY}", f"Thought: too long\n{SORRY}", f"{SORRY} Done.", THANKS):
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
        ({"propertyNames": {"maxLength": 3}}, UnsupportedSchemaError, "'propertyNames' over the arguments of tool 'odd'"),
        ({"minProperties": 1}, SchemaError, "no arguments that its schema allows"),
        ({"required": ["x"]}, SchemaError, "tool 'odd' requires the parameter 'x'"),
        ({"properties": {"a": {"$ref": "#/$defs/A"}}, "required": ["a"], **ENDLESS}, SchemaError, "no value of finite size"),
        ({"properties": {"a": {"type": "array", "minItems": 20_000}}}, UnsupportedSchemaError, "the bound is 10000"),
        (
            {"properties": {"a": {"type": "array", "uniqueItems": True, "minItems": 9}}},
            UnsupportedSchemaError,
            "'uniqueItems' is not supported",
        ),
        ({"properties": {"a": {"enum": ["memory_x"]}}}, SchemaError, "choose another sigil"),
    ):
        with pytest.raises(error, match=message) as caught:
            compile_routine(Routine("test", steps=steps), [Tool("odd", "", {"type": "object", **schema})])
        if "properties" in schema and schema.get("additionalProperties", False) is False:
            assert caught.value.__notes__ == ["routine 'test', step 1, tool 'odd', argument 'a'"]
            assert caught.value.pointer.startswith("/properties/a")


AB = {"a": {"enum": ["x"]}, "b": {"enum": ["y"]}, "c": {"enum": ["z"]}}


@pytest.mark.parametrize(
    "over_all",
    [
        {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        {"oneOf": [{"required": ["a"]}, {"required": ["b"]}], "required": ["c"]},
        {"dependentRequired": {"a": ["b"]}},
        {"not": {"required": ["a", "b"]}},
        {"minProperties": 1},
        {"maxProperties": 2},
        {"minProperties": 2, "maxProperties": 2},
        {"if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": {"required": ["c"]}},
        {"anyOf": [{"properties": {"a": False}}, {"required": ["b", "undeclared"]}]},
    ],
)
@pytest.mark.parametrize("leaves_out", [(), ("a",)])
def test_arguments_are_there_together_as_the_schema_over_them_says(
    over_all: dict[str, Any], leaves_out: tuple[str, ...]
) -> None:
    schema = {"type": "object", "properties": AB, **over_all}
    step = Step("", "Use it", tool="odd", arguments=dict.fromkeys(leaves_out, Omit()))
    turn = compile_routine(Routine("test", steps=(step,)), [Tool("odd", "", schema)]).turn()
    for count in range(4):
        for names in itertools.combinations("abc", count):
            arguments = {name: AB[name]["enum"][0] for name in names}
            expected = Draft202012Validator(schema).is_valid(arguments) and not set(names) & set(leaves_out)
            assert turn.accepts(call("odd", **arguments)) is expected, names


@pytest.mark.parametrize("more", [{}, {"additionalProperties": TEXT}, {"maxProperties": 2}, {"minProperties": 2}])
def test_further_arguments_stand_behind_the_declared_ones_where_the_schema_takes_them(more: dict[str, Any]) -> None:
    schema = {"type": "object", **OPEN, "required": ["b"], **more}
    turn = compile_routine(Routine("test", steps=(Step("", "Use it", tool="odd"),)), [Tool("odd", "", schema)]).turn()
    for arguments in ({"b": "x"}, {"b": "x", "c": "y"}, {"b": "x", "c": 1}, {"b": "x", "c": "y", "d": "z"}, {"c": "y"}, {}):
        expected = Draft202012Validator(schema).is_valid(arguments)
        assert turn.accepts(call("odd", **arguments)) is expected, arguments
    assert not turn.accepts(call("odd", b="x", c="memory_9_result"))  # a literal is never like a key
    assert not turn.accepts(call("odd", b="x", c="y").replace('"c"', '"b"'))


def test_what_a_step_leaves_out_though_the_others_need_it_is_told() -> None:
    schema = {"type": "object", "properties": AB, "dependentRequired": {"b": ["a"]}}
    step = Step("", "Use it", tool="odd", arguments={"a": Omit(), "b": Constant("y")})
    with pytest.raises(SchemaError, match="not those that tool 'odd' takes together"):
        compile_routine(Routine("test", steps=(step,)), [Tool("odd", "", schema)])
    either = [{"properties": {"a": {"const": "q"}}}, {"required": ["b"]}]
    narrowing = {"type": "object", "properties": {**AB, "a": {"type": "string"}}, "anyOf": either}
    with pytest.raises(UnsupportedSchemaError, match="'anyOf' over the arguments of tool 'odd' says more"):
        compile_routine(Routine("test", steps=(Step("", "Use it", tool="odd"),)), [Tool("odd", "", narrowing)])


def test_a_tool_that_declares_nothing_may_say_that_it_takes_anything() -> None:
    steps = (Step("", "Use it", tool="odd"),)
    turn = compile_routine(
        Routine("test", steps=steps), [Tool("odd", "", {"type": "object", "additionalProperties": True})]
    ).turn()
    assert turn.accepts(call("odd"))


@pytest.mark.parametrize("sigil", ["", "memory-", "1_", "é_", "a b"])
def test_a_sigil_that_is_no_identifier_is_refused(sigil: str) -> None:
    with pytest.raises(RoutineError, match="expected an identifier"):
        refund("", sigil=sigil)


@pytest.mark.parametrize("name", ["memory_a b", "memory_", "memory_9", "memory_input_", "memory_9_a\n"])
def test_a_live_key_that_no_step_could_write_is_refused(name: str) -> None:
    with pytest.raises(MemoryKeyError, match="is no memory key"):
        refund("").turn(memory=[MemoryKey(name, TEXT)])


@pytest.mark.parametrize(("pattern", "key"), [("^(a+)+$", "memory_9_good"), (r"^(a)\1$", "memory_input_code")])
def test_a_key_fits_a_pattern_by_its_value_and_where_that_is_not_judged_by_its_type(pattern: str, key: str) -> None:
    code = {"type": "string", "pattern": pattern}
    steps = (Step("", "Use it", tool="odd", arguments={"code": AnyKey()}),)
    plan = Routine("test", inputs=(Variable("code", code),), steps=steps)
    turn = compile_routine(plan, [tool("odd", ["code"], code=code)]).turn(
        memory=[
            MemoryKey("memory_input_code", code, "a" * 40 + "!"),
            MemoryKey("memory_9_bad", TEXT, "a" * 40 + "!"),
            MemoryKey("memory_9_good", TEXT, "a" * 40),
        ]
    )
    assert turn.forced == call("odd", code=key)


def test_the_types_of_all_keys_that_may_be_live_are_compared_at_once() -> None:
    broken = {"$ref": "#/$defs/missing"}
    reads, writes = Step("", "Read", tool="reads"), Step("", "Write", tool="writes")
    tools = [tool("reads", ["a"], a=TEXT), tool("writes", output=broken)]
    with pytest.raises(SchemaError, match="missing") as caught:
        compile_routine(Routine("test", steps=(writes, reads)), tools)
    assert caught.value.__notes__ == ["routine 'test', step 2, tool 'reads', argument 'a'"]
    assert compile_routine(Routine("test", steps=(reads, writes)), tools).turn("1").tools == ("writes",)


def test_a_turn_that_its_keys_make_too_large_is_found_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = "".join(f"  - {{name: s{n}, tool: send}}\n" for n in range(60))
    assert len(routine(plan).turn("59", [f"memory_{n}_result" for n in range(1, 60)]).steps) == 1
    for module in (faults_module, tree_module):
        monkeypatch.setattr(module, "MAX_NODES", 60)
    with pytest.raises(GrammarTooLargeError, match="the bound is 60"):
        routine(plan)
    assert routine("  - {name: s, tool: send}\n").turn().tools == ("send",)


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
    bare = read_lark('start: call\ncall: "CALL " name arguments', frozenset(("name", "arguments")))
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
