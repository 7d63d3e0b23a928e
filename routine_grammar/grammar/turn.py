"""What may be said at a position of a Routine: thought, header, and a call of a legal step with its legal arguments.

In: a Routine's graph, its tools, a position, the live memory keys. Out: a grammar; `whole_grammar` has one rule a position.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from routine_grammar.errors import (
    GrammarError,
    GrammarTooLargeError,
    MemoryKeyError,
    RoutineError,
    SchemaError,
    UnsupportedSchemaError,
)
from routine_grammar.grammar.dialects import Dialect
from routine_grammar.grammar.json_schema import ANNOTATIONS, SchemaCompiler
from routine_grammar.grammar.json_text import JsonForm, begins_with_sigil, turn_form, value_literal
from routine_grammar.grammar.regex import beginning_otherwise
from routine_grammar.grammar.tree import EMPTY, Call, Choice, Grammar, Leaf, Literal, Node, Optional, choice, sequence
from routine_grammar.routine import model
from routine_grammar.routine.checks import key_is_compatible
from routine_grammar.routine.graph import Graph, Successors
from routine_grammar.routine.ids import header_of
from routine_grammar.routine.keys import SIGIL, MemoryKey
from routine_grammar.routine.tools import Tool

MAX_KEYS = 10_000
MAX_STEPS_PER_TURN = 1_000
THOUGHT = "Thought: "  # begins the line of a thought, so that it never reads as a header


@dataclass(frozen=True, slots=True)
class TurnScope:
    """What all turns of a Routine share: its graph, its tools by name, the dialect, and the sigil of its keys."""

    graph: Graph
    tools: Mapping[str, Tool]
    dialect: Dialect
    sigil: str

    @property
    def form(self) -> JsonForm:
        """The JSON terminals of these turns."""
        return turn_form(self.dialect.markers, self.sigil)

    def thought_limit(self, successors: Successors) -> int:
        """The most characters of thought before the call."""
        thought = self.graph.routine.thought
        options = len(successors.steps) + successors.may_end
        return 0 if not successors.steps or not self.dialect.leading_text else thought.branch if options > 1 else thought.linear


def turn_grammar(scope: TurnScope, position: str, keys: Sequence[MemoryKey]) -> Grammar:
    """The grammar of one turn at a position, with these live keys.

    Raises `RoutineError` for an unknown position or what the dialect can't hold, `MemoryKeyError` where a step needs a key
    that is not live, `SchemaError` for a tool whose schema can't be enforced.
    """
    maker = _TurnMaker(scope, {})
    root = maker.turn(position, keys)
    return Grammar(root, maker.rules)


def whole_grammar(scope: TurnScope, keys_at: Mapping[str, Sequence[MemoryKey]]) -> Grammar:
    """The whole Routine as one grammar: rule `at_<position>` for every position, beginning with `at_start`."""
    rules: dict[str, Node] = {position_rule(position): EMPTY for position in keys_at}  # these names are taken
    maker = _TurnMaker(scope, rules)
    for position, keys in keys_at.items():
        rules[position_rule(position)] = maker.turn(position, keys)
    return Grammar(Call(position_rule("start")), rules)


def _header_line(step: model.Step) -> str:
    return f"{header_of(step.id)}\n"


def position_rule(position: str) -> str:
    """The name of a position's rule: `at_start`, `at_2`, `at_2_1_1` for step 2-1_1."""
    return f"at_{_rule_name(position)}"


def _rule_name(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


@dataclass(slots=True)
class _TurnMaker:
    scope: TurnScope
    rules: dict[str, Node]
    form: JsonForm = field(init=False)
    _calls: dict[tuple[str, tuple[str, ...], bool], str] = field(default_factory=dict)
    _key_rules: dict[tuple[str, ...], str] = field(default_factory=dict)
    _value_rules: dict[Node, str] = field(default_factory=dict)
    _schemas: dict[str, SchemaCompiler] = field(default_factory=dict)
    _answers: dict[str, int] = field(default_factory=dict)
    _last_number: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.form = self.scope.form

    def turn(self, position: str, keys: Sequence[MemoryKey]) -> Node:
        """All that may be said at a position."""
        successors = self.scope.graph.successors(position)
        if len(keys) > MAX_KEYS or len(successors.steps) > MAX_STEPS_PER_TURN:
            counts = f"{len(keys)} live keys and {len(successors.steps)} steps"
            raise GrammarTooLargeError(f"a turn with {counts}; the bounds are {MAX_KEYS} and {MAX_STEPS_PER_TURN}")
        headed = self.scope.graph.is_headed(position)
        if headed and not self.scope.dialect.leading_text:
            raise RoutineError(
                f"at position {position!r} a step's header is needed before its call, and dialect "
                f"{self.scope.dialect.name!r} lets no text stand there"
            )
        ways: list[Node] = []
        leading: list[str] = []
        if successors.steps:
            calls = choice(*(Call(self._call(step, keys, headed)) for step in successors.steps))
            limit = self.scope.thought_limit(successors)
            ways.append(sequence(Optional(self._thought(limit)), calls) if limit else calls)
            leading += [THOUGHT] if limit else []
            leading += [_header_line(step) for step in successors.steps] if headed else []
        if successors.may_end:
            ways.append(self._answer(leading))
        return choice(*ways)

    def _leads(self) -> str:
        """The characters that begin a marker: free text does without them."""
        return "".join(dict.fromkeys(marker[0] for marker in self.scope.dialect.markers))

    def _thought(self, limit: int) -> Node:
        """One line of free text."""
        text = Leaf(f"THOUGHT_{limit}", rf"[^\x00-\x1f{re.escape(self._leads())}]{{1,{limit}}}")
        return sequence(Literal(THOUGHT), text, Literal("\n"))

    def _answer(self, leading: Sequence[str]) -> Leaf:
        """A final answer, where the Routine may end: free text that begins with nothing that leads to a call."""
        pattern = beginning_otherwise(leading, self._leads())
        number = self._answers.setdefault(pattern, len(self._answers) + 1)
        return Leaf("ANSWER" if number == 1 else f"ANSWER_{number}", pattern)

    def _call(self, step: model.Step, keys: Sequence[MemoryKey], headed: bool) -> str:
        """The rule of a step's call under these keys."""
        memo = (step.id, tuple(key.name for key in keys), headed)
        if memo not in self._calls:
            assert step.tool is not None
            tool = self.scope.tools[step.tool]
            name = value_literal(tool.name, self.form)
            spelled = name.items[0] if isinstance(name, Choice) else name
            assert isinstance(spelled, Literal)
            arguments = self._arguments(step, tool, keys)
            leading = Literal(_header_line(step) if headed else "")
            rule = self._fresh(f"step_{_rule_name(step.id)}")
            self.rules[rule] = self.scope.dialect.call(Literal(spelled.text[1:-1]), arguments, leading)
            self._calls[memo] = rule
        return self._calls[memo]

    def _arguments(self, step: model.Step, tool: Tool, keys: Sequence[MemoryKey]) -> Node:
        compiler = self._schema_compiler(tool)
        required = set(tool.input_schema.get("required", ()))
        for keyword in sorted(tool.input_schema.keys() - {"type", "properties", "required", "additionalProperties"}):
            self._refuse_keyword(tool, keyword)
        if undeclared := sorted(required - tool.parameters.keys()):
            message = f"tool {tool.name!r} requires the parameter {undeclared[0]!r:.80}, which it does not declare"
            raise SchemaError(message, pointer="/required")
        members = []
        for name in tool.parameters:
            source = step.arguments.get(name)
            if isinstance(source, model.Omit):
                continue
            try:
                value = self._value(tool, name, source, keys, compiler)
            except MemoryKeyError as error:
                raise MemoryKeyError(f"{self._where(step)}, argument {name!r}: {error}") from error
            except (SchemaError, GrammarError) as error:
                error.add_note(f"{self._where(step)}, tool {tool.name!r}, argument {name!r}")
                raise
            members.append((name, value, name in required or isinstance(source, model.Constant | model.Key)))
        return compiler.object_of(members)

    def _refuse_keyword(self, tool: Tool, keyword: str) -> None:
        if keyword not in ANNOTATIONS:
            message = f"keyword {keyword!r} over the arguments of tool {tool.name!r} is not supported"
            raise UnsupportedSchemaError(message, pointer=f"/{keyword}", keyword=keyword)

    def _where(self, step: model.Step) -> str:
        return f"routine {self.scope.graph.routine.name!r}, step {step.id}"

    def _schema_compiler(self, tool: Tool) -> SchemaCompiler:
        if tool.name not in self._schemas:
            prefix = f"{_rule_name(tool.name)}_"
            self._schemas[tool.name] = SchemaCompiler(tool.input_schema, self.form, self.rules, prefix)
        return self._schemas[tool.name]

    def _value(
        self, tool: Tool, name: str, source: model.Source | None, keys: Sequence[MemoryKey], compiler: SchemaCompiler
    ) -> Node:
        """What may be written for a parameter: its constant, its key, or a literal of its schema or a compatible key."""
        pointer = f"/properties/{name.replace('~', '~0').replace('/', '~1')}"
        match source:
            case model.Constant(value):
                if begins_with_sigil(value, self.form.sigil):
                    raise RoutineError(
                        f"the constant {value!r:.80} reads as a memory key of sigil {self.form.sigil!r}: choose another sigil"
                    )
                return value_literal(value, self.form)
            case model.Key(key):
                live = [known for known in keys if known.name == self._spelled_key(key)]
                return self._keys(live, f"key {key} is not live")
            case model.Literal():
                return compiler.node(tool.parameters[name], pointer)
        schema = tool.parameter_schema(name)
        compatible = [key for key in keys if key_is_compatible(key, schema)]
        if isinstance(source, model.AnyKey):
            return self._keys(compatible, f"no live key fits {dict(schema)!r:.120}")
        literal = compiler.node(tool.parameters[name], pointer)
        return self._either(literal, compatible) if compatible else literal

    def _spelled_key(self, key: str) -> str:
        """A key as this scope's sigil writes it; Routines are written with the default sigil."""
        return self.scope.sigil + key.removeprefix(SIGIL)

    def _keys(self, keys: Sequence[MemoryKey], missing: str) -> Node:
        """Any of these keys, as a JSON string."""
        names = tuple(dict.fromkeys(key.name for key in keys))
        if not names:
            raise MemoryKeyError(missing)
        if len(names) == 1:
            return value_literal(names[0], self.form)
        if names not in self._key_rules:
            rule = self._key_rules[names] = self._fresh("keys")
            self.rules[rule] = choice(*(value_literal(name, self.form) for name in names))
        return Call(self._key_rules[names])

    def _either(self, literal: Node, keys: Sequence[MemoryKey]) -> Node:
        """A literal or a key, as one shared rule."""
        node = choice(literal, self._keys(keys, ""))
        if node not in self._value_rules:
            rule = self._value_rules[node] = self._fresh("value")
            self.rules[rule] = node
        return Call(self._value_rules[node])

    def _fresh(self, name: str) -> str:
        fresh, number = name, self._last_number.get(name, 1)
        while fresh in self.rules:
            number += 1
            fresh = f"{name}_{number}"
        self._last_number[name] = number
        return fresh


def live_keys(names: Iterable[Any], declared: Mapping[str, Any], default_sigil: str, sigil: str) -> tuple[MemoryKey, ...]:
    """Live keys from keys or their names; a bare name has the type that the Routine declares for it."""
    keys = []
    for item in names:
        if isinstance(item, MemoryKey):
            keys.append(item)
        elif isinstance(item, str):
            canonical = default_sigil + item.removeprefix(sigil)
            keys.append(MemoryKey(item, declared.get(canonical)))
        else:
            raise MemoryKeyError(f"expected a memory key or its name, got {type(item).__name__}")
    for key in keys:
        if not key.name.startswith(sigil):
            raise MemoryKeyError(f"memory key {key.name!r:.80} does not begin with the sigil {sigil!r}")
    return tuple(sorted({key.name: key for key in keys}.values(), key=lambda key: key.name))
