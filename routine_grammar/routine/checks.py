"""Does a Routine fit its tools: every tool and argument exists, every key is written before it is read, types fit.

`check` gives all problems at once. It never runs a tool.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from routine_grammar.errors import MemoryKeyError, SchemaError, UnsupportedSchemaError
from routine_grammar.routine.dataflow import written_by
from routine_grammar.routine.graph import Graph
from routine_grammar.routine.ids import Path, branches_around, header_of, path_of
from routine_grammar.routine.inlining import Given
from routine_grammar.routine.keys import ERROR_OUTPUT, UNKNOWN, MemoryKey, ParsedKey, parse_key
from routine_grammar.routine.model import AnyKey, Constant, Item, Key, Omit, Repetition, Routine, Source, Step
from routine_grammar.routine.problems import Problem, nearest, shown
from routine_grammar.routine.structure import Finding, as_problems, structure_problems
from routine_grammar.routine.tools import Tool, schema_at
from routine_grammar.routine.types import assignable, may_share_values, misfit, value_fits
from routine_grammar.routine.values import EVERY_ITEM, array_of

Schema = Mapping[str, Any]

_LIST: Schema = {"type": "array"}


def check(routine: Routine, tools: Sequence[Tool], given: Sequence[Given] = ()) -> tuple[Problem, ...]:
    """Return everything that is wrong with a Routine, by itself and with these tools; nothing if all is well.

    `given`: what its steps give the Routines that were put in where they are run.
    """
    named = {tool.name: tool for tool in tools}
    graph = Graph.of(routine)
    checks = _Checks(routine, graph, named, key_types(graph, tools))
    return (*structure_problems(routine), *as_problems(routine, checks.findings(tools, given)))


def key_types(graph: Graph, tools: Sequence[Tool]) -> dict[str, Schema | None]:
    """Return the type of every memory key of a Routine (None: any value).

    What the steps of a repetition write is a list, of one item for every pass. Missing are keys whose step's tool is not
    among `tools`, or whose pointer names nothing in its output schema.
    """
    named = {tool.name: tool for tool in tools}
    types: dict[str, Schema | None] = {
        ParsedKey(None, variable.name).text(): variable.schema for variable in graph.routine.inputs
    }
    for step in graph.routine:
        if step.tool is None or step.tool not in named:
            continue
        for key, variable in written_by(step):
            try:
                written = named[step.tool].output_type(variable)
            except SchemaError:
                continue
            types[key] = written if graph.loop_of(step.id) is None else array_of(written)
    return types


def item_type(whole: Schema | None, item: int) -> Schema | None:
    """Return the type of one item of a list; raises `SchemaError` where a reference names nothing."""
    return schema_at(whole or {}, f"/{item}")


def any_item_type(whole: Schema | None) -> Schema | None:
    """Return the type that all items of a list have; None where they may differ, or nothing is known."""
    every = schema_at(whole or {}, f"/{EVERY_ITEM}")
    return None if every is None else schema_at(every, "/0")


def key_is_compatible(key: MemoryKey, parameter_schema: Schema) -> bool:
    """Tell whether a live key may stand for a parameter: by its value where known and judged, else by its declared type.

    Raises `SchemaError` where a schema can't be applied.
    """
    if key.value is not UNKNOWN:
        with suppress(UnsupportedSchemaError):  # what the type proves still holds
            return value_fits(key.value, parameter_schema)
    return assignable(key.schema, parameter_schema)


@dataclass(frozen=True, slots=True)
class _Checks:
    routine: Routine
    graph: Graph
    tools: Mapping[str, Tool]
    types: Mapping[str, Schema | None]

    def findings(self, tools: Sequence[Tool], given: Sequence[Given]) -> Iterator[Finding]:
        names = sorted(tool.name for tool in tools)
        for name in sorted({first for first, second in pairwise(names) if first == second}):
            yield ("tools",), f"two tools are named {name!r}", None
        for step in self.routine:
            yield from self._of_step(step)
            for index, branch in enumerate(step.branches):
                if branch.for_each is not None:
                    yield from self._of_repetition(step, index, branch.for_each)
        for each in given:
            yield from self._of_given(each)
        yield from _unreachable(self.routine.steps)

    def _of_given(self, given: Given) -> Iterator[Finding]:
        """What is wrong with a key that is given for an input of a Routine: read where that begins."""
        path, schema = (*path_of(given.step), "arguments", given.name), given.schema or {}
        reader = _first_call(self.routine.step(given.step).branches[0].steps)
        if reader is None:
            return
        try:
            match given.source:
                case Key(key):
                    yield from self._of_key(reader, path, key, schema)
                case Item(key) if loop := self.graph.loop_of(reader.id):
                    yield from self._of_item(reader, path, key or loop.over, schema)
        except SchemaError as error:
            yield path, f"a schema can't be applied: {error}", None

    def _of_step(self, step: Step) -> Iterator[Finding]:
        if step.routine is not None:
            yield (*path_of(step.id), "routine"), f"routine {step.routine!r} is not at hand", None
        if step.tool is None:
            return
        path = path_of(step.id)
        tool = self.tools.get(step.tool)
        if tool is None:
            yield (*path, "tool"), f"unknown tool {step.tool!r}", nearest(step.tool, self.tools)
            return
        yield from _of_outputs(step, tool)
        for name, source in step.arguments.items():
            here = (*path, "arguments", name)
            if name not in tool.parameters:
                yield here, f"tool {tool.name!r} has no parameter {name!r}", nearest(name, tool.parameters)
                continue
            try:
                yield from self._of_argument(step, tool, here, source)
            except SchemaError as error:
                yield here, f"a schema can't be applied: {error}", None

    def _of_argument(self, step: Step, tool: Tool, path: Path, source: Source) -> Iterator[Finding]:
        schema = tool.parameter_schema(str(path[-1]))
        match source:
            case Constant(value):
                why = misfit(value, schema)
                if why:
                    yield path, f"constant {shown(value)} does not fit the parameter: {why[:200]}", None
            case Key(key):
                yield from self._of_key(step, path, key, schema)
            case Item(key):
                loop = self.graph.loop_of(step.id)
                if loop is not None:
                    yield from self._of_item(step, path, key or loop.over, schema)
            case Omit():
                if path[-1] in tool.input_schema.get("required", ()):
                    yield path, f"tool {tool.name!r} requires {path[-1]!r}: it can't be left out", None
            case AnyKey():
                before = sorted(self._written_before(step))
                # A key without a known type is of a step that has a finding of its own.
                if not any(key not in self.types or assignable(self._type_at(step, key), schema) for key in before):
                    keys = f"always written before: {', '.join(before[:20])}" if before else "none is always written before"
                    yield path, f"no key fits the parameter's type {shown(schema)}; {keys}", None

    def _of_key(self, step: Step, path: Path, key: str, schema: Schema) -> Iterator[Finding]:
        parsed = yield from self._of_written(step, path, key)
        if parsed is None:
            return
        whole = ParsedKey(parsed.step, parsed.name).text()
        have = self._type_at(step, whole)
        if parsed.item is not None:
            have = self.types[whole] or {}
            if have.get("minItems", 0) <= parsed.item:
                yield (
                    path,
                    f"{key} may not exist: its list is not declared to have {parsed.item + 1} items (minItems)",
                    None,
                )
            have = item_type(have, parsed.item)
        yield from self._of_type(path, key, have, schema)

    def _of_item(self, step: Step, path: Path, key: str, schema: Schema) -> Iterator[Finding]:
        """What is wrong with reading the current item of the list under a key."""
        parsed = yield from self._of_written(step, path, key)
        if parsed is None:
            return
        if parsed.item is not None:
            yield path, f"{key} is an item; expected the key of a whole list", None
            return
        have = self.types[key]
        if not assignable(have, _LIST):
            yield path, f"{key} is no list: its type is {shown(have)}", None
            return
        yield from self._of_type(path, f"an item of {key}", any_item_type(have), schema)

    def _of_repetition(self, step: Step, index: int, repetition: Repetition) -> Iterator[Finding]:
        path = (*path_of(step.id), "branches", index, "for_each", "over")
        before = self._written_before_branch(step, index)
        parsed = yield from self._of_written(step, path, repetition.over, before)
        if parsed is None or parsed.item is not None:
            return
        have = self.types[repetition.over]
        if not assignable(have, _LIST):
            got = "one of no declared type" if have is None else shown(have)
            yield path, f"{repetition.over} is repeated over: expected a list, got {got}", None
        elif have is not None and have.get("minItems", 0) > repetition.most:
            least = have["minItems"]
            yield path, f"{repetition.over} has {least} items or more, and is repeated over for at most {repetition.most}", None

    def _of_written(
        self, step: Step, path: Path, key: str, before: frozenset[str] | None = None
    ) -> Generator[Finding, None, ParsedKey | None]:
        """Find why a key can't be read by a step; return what it names where its type is known."""
        try:
            parsed = parse_key(key)
        except MemoryKeyError as error:
            yield path, str(error), nearest(key, self.graph.variables)
            return None
        whole = ParsedKey(parsed.step, parsed.name).text()
        if whole not in self.graph.variables:
            writer = f"{header_of(parsed.step)} has no output" if parsed.step else "the Routine has no input"
            yield path, f"nothing writes {key}: {writer} {parsed.name!r}", nearest(whole, self.graph.variables)
            return None
        if whole not in (self._written_before(step) if before is None else before):
            yield path, f"{key} is not written on every path before: {self._why_missing(step, parsed, whole)}", None
        return parsed if whole in self.types else None

    def _of_type(self, path: Path, key: str, have: Schema | None, schema: Schema) -> Iterator[Finding]:
        if not assignable(have, schema):
            got = "one of no declared type" if have is None else shown(have)
            yield path, f"the type of {key} does not fit the parameter: expected {shown(schema)}, got {got}", None

    def _type_at(self, step: Step, key: str) -> Schema | None:
        """The type of a whole key where a step reads it: inside its own repetition, that of one item."""
        loop, writer = self.graph.loop_of(step.id), parse_key(key).step
        is_own = loop is not None and writer is not None and loop.has(writer)
        return any_item_type(self.types[key]) if is_own else self.types[key]

    def _written_before(self, step: Step) -> frozenset[str]:
        return self.graph.keys_at(step.id)[0]

    def _written_before_branch(self, step: Step, index: int) -> frozenset[str]:
        """The keys that are always written where a repetition below a step begins."""
        if step.tool is not None:
            return self._written_before(step) | {ParsedKey(step.id, variable.name).text() for variable in step.written}
        return self._written_before(_first_call(step.branches[index].steps) or step)

    def _why_missing(self, step: Step, key: ParsedKey, whole: str) -> str:
        writer = key.step or ""
        if writer == step.id:
            return "this very step writes it"
        said = f"{header_of(writer)} writes it"
        if whole not in self.graph.keys_at(step.id)[1]:
            return f"{said}, which does not come before"
        if key.name == ERROR_OUTPUT and self.routine.step(writer).handles_errors:
            return f"{said} only where its tool fails"
        if self.routine.step(writer).optional:
            return f"{said}, which is optional"
        return f"{said}, which is not done {self._way_around(writer, step.id)}"

    def _way_around(self, writer: str, reader: str) -> str:
        """Name the branch by which a run reaches `reader` without `writer`."""
        passed = self.graph.path_around(writer, reader)
        if not passed and self.routine.step(writer).handles_errors:
            return "when its tool fails"
        for check, branch in branches_around(writer):
            if (check, branch) in branches_around(reader):
                continue
            branches = self.routine.step(check).branches
            taken = [n for n in range(1, len(branches) + 1) if any(f"{p}_".startswith(f"{check}-{n}_") for p in passed)]
            if taken and taken[0] != branch:
                return f"when Branch {check}-{taken[0]} is taken"
            if not taken and not branches[-1].otherwise:
                return f"when no branch of {header_of(check)} is taken"
        return "on another path"


def _first_call(steps: tuple[Step, ...]) -> Step | None:
    """The first step of a block that has a tool."""
    for step in steps:
        if step.tool is not None:
            return step
        for branch in step.branches:
            if (found := _first_call(branch.steps)) is not None:
                return found
    return None


def _of_outputs(step: Step, tool: Tool) -> Iterator[Finding]:
    for variable in step.outputs:
        path = (*path_of(step.id), "outputs", variable.name)
        if tool.output_schema is None:
            continue
        try:
            promised = schema_at(tool.output_schema, variable.pointer)
        except SchemaError as error:
            yield path, f"pointer {variable.pointer!r} names nothing in the result of tool {tool.name!r}: {error}", None
            continue
        if not may_share_values(promised, variable.schema):
            got, expected = shown(variable.schema), shown(promised)
            yield path, f"the declared type {got} is none of tool {tool.name!r}: its result is {expected}", None


def _unreachable(steps: tuple[Step, ...]) -> Generator[Finding, None, bool]:
    """Find the first unreachable step of each block; return whether the flow goes on past the block."""
    for index, step in enumerate(steps):
        goes_on = not step.finish and not any(branch.otherwise for branch in step.branches)
        for branch in step.branches:
            past = yield from _unreachable(branch.steps)
            goes_on |= past or branch.for_each is not None or branch.runs is not None
        if goes_on:
            continue
        if index + 1 < len(steps):
            cause = "finishes the Routine" if step.finish else "has an otherwise, and all its branches finish"
            yield path_of(steps[index + 1].id), f"can never be reached: {header_of(step.id)} {cause}", None
        return False
    return True
