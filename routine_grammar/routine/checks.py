"""Does a Routine fit its tools: every tool and argument exists, every key is written before it is read, types fit.

`check` gives all problems at once. It never runs a tool.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from routine_grammar.errors import MemoryKeyError, SchemaError, UnsupportedSchemaError
from routine_grammar.routine.graph import START, Graph
from routine_grammar.routine.ids import Path, branches_around, header_of, path_of
from routine_grammar.routine.keys import UNKNOWN, MemoryKey, ParsedKey, parse_key
from routine_grammar.routine.model import AnyKey, Constant, Key, Omit, Routine, Source, Step
from routine_grammar.routine.problems import Problem, nearest, shown
from routine_grammar.routine.structure import Finding, as_problems, structure_problems
from routine_grammar.routine.tools import Tool, schema_at
from routine_grammar.routine.types import assignable, may_share_values, misfit, value_fits

Schema = Mapping[str, Any]


def check(routine: Routine, tools: Sequence[Tool]) -> tuple[Problem, ...]:
    """Return everything that is wrong with a Routine, by itself and with these tools; nothing if all is well."""
    named = {tool.name: tool for tool in tools}
    graph = Graph.of(routine)
    checks = _Checks(routine, graph, named, key_types(graph, tools))
    return (*structure_problems(routine), *as_problems(routine, checks.findings(tools)))


def key_types(graph: Graph, tools: Sequence[Tool]) -> dict[str, Schema | None]:
    """Return the type of every memory key of a Routine (None: any value).

    Missing are keys whose step's tool is not among `tools`, or whose pointer names nothing in its output schema.
    """
    named = {tool.name: tool for tool in tools}
    types: dict[str, Schema | None] = {
        ParsedKey(None, variable.name).text(): variable.schema for variable in graph.routine.inputs
    }
    for step in graph.routine:
        if step.tool is None or step.tool not in named:
            continue
        for variable in step.written:
            try:
                types[ParsedKey(step.id, variable.name).text()] = named[step.tool].output_type(variable)
            except SchemaError:
                continue
    return types


def key_is_compatible(key: MemoryKey, parameter_schema: Schema) -> bool:
    """Tell whether a live key may stand for a parameter: by its value where known and judged, else by its declared type.

    Raises `SchemaError` where a schema can't be applied.
    """
    if key.value is not UNKNOWN:
        with suppress(UnsupportedSchemaError):  # a regular expression decides: what the type proves still holds
            return value_fits(key.value, parameter_schema)
    return assignable(key.schema, parameter_schema)


@dataclass(frozen=True, slots=True)
class _Checks:
    routine: Routine
    graph: Graph
    tools: Mapping[str, Tool]
    types: Mapping[str, Schema | None]

    def findings(self, tools: Sequence[Tool]) -> Iterator[Finding]:
        names = sorted(tool.name for tool in tools)
        for name in sorted({first for first, second in pairwise(names) if first == second}):
            yield ("tools",), f"two tools are named {name!r}", None
        for step in self.routine:
            yield from self._of_step(step)
        yield from _unreachable(self.routine.steps)

    def _of_step(self, step: Step) -> Iterator[Finding]:
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
            case Omit():
                if path[-1] in tool.input_schema.get("required", ()):
                    yield path, f"tool {tool.name!r} requires {path[-1]!r}: it can't be left out", None
            case AnyKey():
                before = sorted(self._written_before(step))
                # A key without a known type is of a step that has a finding of its own.
                if not any(key not in self.types or assignable(self.types[key], schema) for key in before):
                    keys = f"always written before: {', '.join(before[:20])}" if before else "none is always written before"
                    yield path, f"no key fits the parameter's type {shown(schema)}; {keys}", None

    def _of_key(self, step: Step, path: Path, key: str, schema: Schema) -> Iterator[Finding]:
        try:
            parsed = parse_key(key)
        except MemoryKeyError as error:
            yield path, str(error), nearest(key, self.graph.variables)
            return
        whole = ParsedKey(parsed.step, parsed.name).text()
        if whole not in self.graph.variables:
            writer = f"{header_of(parsed.step)} has no output" if parsed.step else "the Routine has no input"
            yield path, f"nothing writes {key}: {writer} {parsed.name!r}", nearest(whole, self.graph.variables)
            return
        if whole not in self._written_before(step):
            yield path, f"{key} is not written on every path before: {self._why_missing(step, parsed, whole)}", None
        if whole not in self.types:
            return
        have = self.types[whole]
        if parsed.item is not None:
            have = have or {}
            if have.get("minItems", 0) <= parsed.item:
                yield (
                    path,
                    f"{key} may not exist: its list is not declared to have {parsed.item + 1} items (minItems)",
                    None,
                )
            have = schema_at(have, f"/{parsed.item}")
        if not assignable(have, schema):
            got = "one of no declared type" if have is None else shown(have)
            yield path, f"the type of {key} does not fit the parameter: expected {shown(schema)}, got {got}", None

    def _written_before(self, step: Step) -> frozenset[str]:
        own = {ParsedKey(step.id, variable.name).text() for variable in step.written}
        return self.graph.keys_before(step.id)[0] - own

    def _why_missing(self, step: Step, key: ParsedKey, whole: str) -> str:
        writer = key.step or ""
        if writer == step.id:
            return "this very step writes it"
        if whole not in self.graph.keys_before(step.id)[1]:
            return f"{header_of(writer)} writes it, which does not come before"
        return f"{header_of(writer)} writes it, which is not done {self._way_around(writer, step.id)}"

    def _way_around(self, writer: str, reader: str) -> str:
        """Name the branch by which a run reaches `reader` without `writer`."""
        passed = self._path_around(writer, reader)
        for check, branch in branches_around(writer):
            if (check, branch) in branches_around(reader):
                continue
            branches = self.routine.step(check).branches
            taken = [n for n in range(1, len(branches) + 1) if any(p.startswith(f"{check}-{n}_") for p in passed)]
            if taken and taken[0] != branch:
                return f"when Branch {check}-{taken[0]} is taken"
            if not taken and not branches[-1].otherwise:
                return f"when no branch of {header_of(check)} is taken"
        return "on another path"

    def _path_around(self, writer: str, reader: str) -> list[str]:
        """Return the positions of a shortest path from the start to `reader` without `writer`."""
        came_from: dict[str, str] = {START: START}
        queue = deque([START])
        while queue and reader not in came_from:
            position = queue.popleft()
            for step in self.graph.successors(position).steps:
                if step.id != writer and step.id not in came_from:
                    came_from[step.id] = position
                    queue.append(step.id)
        path = [reader] if reader in came_from else []
        while path and path[-1] != START:
            path.append(came_from[path[-1]])
        return path


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
        goes_on = not any(branch.otherwise for branch in step.branches)
        for branch in step.branches:
            goes_on |= yield from _unreachable(branch.steps)
        if goes_on and not step.finish:
            continue
        if index + 1 < len(steps):
            cause = "finishes the Routine" if step.finish else "has an otherwise, and all its branches finish"
            yield path_of(steps[index + 1].id), f"can never be reached: {header_of(step.id)} {cause}", None
        return False
    return True
