"""What keeps a Routine's turns from being made, found when it is compiled.

In: the scope of a Routine's turns, the types of its keys. Out: faults, each with its step and argument.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from routine_grammar.errors import (
    GrammarError,
    MemoryKeyError,
    RoutineError,
    RoutineGrammarError,
    SchemaError,
    UnsupportedSchemaError,
)
from routine_grammar.grammar.schema.compiler import declining
from routine_grammar.grammar.schema.documents import escaped
from routine_grammar.grammar.tree import MAX_NODES, Choice, Grammar, Literal, reachable
from routine_grammar.grammar.turn import FIXED, MAX_KEYS, TurnMaker, TurnScope, possible_keys, turn_grammar
from routine_grammar.routine import model
from routine_grammar.routine.checks import key_is_compatible
from routine_grammar.routine.graph import START
from routine_grammar.routine.keys import MemoryKey, ParsedKey, parse_key
from routine_grammar.routine.tools import Tool


@dataclass(frozen=True, slots=True)
class Fault:
    """What keeps a turn from being made, and where: `step` None is the start, `argument` None all of the call."""

    step: str | None
    argument: str | None
    error: RoutineGrammarError


def faults(scope: TurnScope, key_types: Mapping[str, Any], check: Callable[[Grammar], None]) -> Iterator[Fault]:
    """Everything for which some turn of the Routine would raise, whichever of its keys are live by then.

    `check` raises `GrammarError` or `UnsupportedSchemaError` where no automaton can hold a grammar: it is given those of all
    parameters that a text is decoded for.

    Steps are met one by one and each parameter of a tool once, not at every position: linear in the Routine. What `check` of
    `routine.checks` tells of (unknown tools, keys that are not live) is passed over.
    """
    trial = _Trial(scope, key_types, check)
    for step in scope.graph.routine:
        if step.tool is not None:
            yield from trial.of_step(step, scope.tools.get(step.tool))
    yield from trial.of_positions()


class _Trial:
    """Looks for faults; it makes each schema and each shape of a call once."""

    def __init__(self, scope: TurnScope, key_types: Mapping[str, Any], check: Callable[[Grammar], None]) -> None:
        self._scope = scope
        self._check = check
        self._types = key_types
        self._texts = {key: json.dumps(schema, sort_keys=True) for key, schema in key_types.items()}
        self._maker = TurnMaker(scope, {})
        self._bounded: set[tuple[str, str]] = set()  # parameters whose literals are within the bounds
        self._broken: dict[tuple[str, str], list[str]] = {}
        self._sizes: dict[tuple[Any, ...], int] = {}
        self._of_keys: set[tuple[str, str]] = set()  # parameters that take keys
        self._sound = True

    def of_step(self, step: model.Step, tool: Tool | None) -> Iterator[Fault]:
        """What is wrong with a step's call: with its tool, each of its arguments, and the bounds of all together."""
        if tool is None:
            self._sound = False
            return
        found = list(self._of_call(step, tool))
        if not found:
            try:
                self._measure(step, tool)
            except (SchemaError, GrammarError) as error:
                found = [Fault(step.id, None, error)]
        self._sound = self._sound and not found
        yield from found

    def _of_call(self, step: model.Step, tool: Tool) -> Iterator[Fault]:
        try:
            self._maker.presences(tool)
        except SchemaError as error:
            yield Fault(step.id, None, error)
        for name in tool.parameters:
            source = step.arguments.get(name)
            try:
                if not isinstance(source, model.Key | model.Item | model.AnyKey | model.Omit):
                    self._try_text(step, tool, name, source)
                if source is None or isinstance(source, model.AnyKey):
                    self._try_keys(step, tool, name)
            except (SchemaError, GrammarError, RoutineError) as error:
                yield Fault(step.id, name, error)

    def _try_text(self, step: model.Step, tool: Tool, name: str, source: model.Source | None) -> None:
        node = self._maker.argument(step, tool, name, ())
        if isinstance(source, model.Constant) or (tool.name, name) in self._bounded:
            return
        try:
            with declining(tool.input_schema, f"/properties/{escaped(name)}"):
                self._check(Grammar(node, reachable(node, self._maker.rules)))
        except UnsupportedSchemaError as error:
            self._maker.note(error, step, tool, name)
            raise
        self._bounded.add((tool.name, name))

    def _try_keys(self, step: model.Step, tool: Tool, name: str) -> None:
        """Compare a parameter with the types of all keys that may be live; only a reference can make that fail."""
        schema = tool.parameter_schema(name)
        self._of_keys.add((tool.name, name))
        if (tool.name, name) not in self._broken:
            refers = '"$ref"' in json.dumps(schema)
            suspects = {text: key for key, text in self._texts.items() if refers or '"$ref"' in text}
            broken = {text for text, key in suspects.items() if not _compares(self._types[key], schema)}
            self._broken[tool.name, name] = [key for key, text in self._texts.items() if text in broken]
        if broken_keys := self._broken[tool.name, name]:
            _, sometimes = self._scope.graph.keys_at(step.id)
            for key in broken_keys:
                if _whole_key(key) in sometimes:
                    try:
                        key_is_compatible(MemoryKey(key, self._types[key]), schema)
                    except SchemaError as error:
                        self._maker.note(error, step, tool, name)
                        raise

    def _measure(self, step: model.Step, tool: Tool) -> None:
        """Count the nodes of a step's call without keys. Raises where a bound is passed."""
        sources = [(name, step.arguments.get(name)) for name in tool.parameters]
        shape = tuple(
            (name, isinstance(source, (*FIXED, model.AnyKey)), isinstance(source, FIXED))
            for name, source in sources
            if not isinstance(source, model.Omit)
        )
        if (tool.name, shape) in self._sizes:
            return
        values = {
            name: Choice((Literal("0"), Literal("1"))) if known else self._maker.literal(tool, name) for name, known, _ in shape
        }
        fixed = [name for name, _, is_fixed in shape if is_fixed]
        node = self._maker.call_of(tool, self._maker.arguments_of(tool, values, fixed))
        grammar = Grammar(node, reachable(node, self._maker.rules))
        self._sizes[tool.name, shape] = sum(1 for _ in grammar.nodes()) + 4 * len(values)

    def of_positions(self) -> Iterator[Fault]:
        """What is wrong with the turn at a position as a whole; turns are made only where they may be too large."""
        largest, taking = max(self._sizes.values(), default=0), len(self._of_keys)
        for position in self._scope.graph.positions:
            try:
                keys = len(self._types)
                if keys > MAX_KEYS:
                    keys = len(possible_keys(self._scope, self._types, position))
                self._maker.require_room(position, keys)
                steps = len(self._scope.graph.successors(position).steps)
                if self._sound and 8 + steps * (largest + 1) + taking * (keys + 4) > MAX_NODES:
                    turn_grammar(self._scope, position, possible_keys(self._scope, self._types, position))
            except MemoryKeyError:
                continue  # a key of which `check` tells
            except (SchemaError, GrammarError, RoutineError) as error:
                yield Fault(None if position == START else position, None, error)


def _compares(source: Any, target: Mapping[str, Any]) -> bool:
    try:
        key_is_compatible(MemoryKey("", source), target)
    except SchemaError:
        return False
    return True


def _whole_key(key: str) -> str:
    """The key of the list that a key names an item of; else the key itself."""
    parsed = parse_key(key)
    return ParsedKey(parsed.step, parsed.name).text()
