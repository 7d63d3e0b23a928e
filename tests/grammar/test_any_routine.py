"""Any text of any turn of any small Routine is a valid call."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from routine_grammar import MemoryKey, Routine, Tool, compile_routine
from routine_grammar.api import CompiledRoutine, Turn
from routine_grammar.grammar.turn import THOUGHT
from routine_grammar.routine import (
    AnyKey,
    Branch,
    Constant,
    Graph,
    Header,
    Item,
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
from tests.grammar.calls import REASON, TEXT
from tests.grammar.json_instances import instance
from tests.grammar.samples import Sampler
from tests.grammar.test_json_schema import begins_like_a_key, closed, unrepeated
from tests.scale import SCALE

MARKER = re.compile(rb"(</?tool_call>)")


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
    step = compiled.graph.call_taken(turn.position, leading, said["name"]).step
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
        case Item():
            raise AssertionError("drawn by no strategy")
