"""What may be said at a position of a Routine: thought, header, and a call of a legal step with its legal arguments.

In: a Routine's graph, its tools, a position, the live memory keys. Out: a grammar; `whole_grammar` has one rule a position.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from routine_grammar.errors import (
    GrammarError,
    GrammarTooLargeError,
    MemoryKeyError,
    RoutineError,
    RoutineGrammarError,
    SchemaError,
)
from routine_grammar.grammar.arguments import Arguments, arguments_of
from routine_grammar.grammar.dialects import Dialect
from routine_grammar.grammar.json_text import JsonForm, begins_with_sigil, turn_form, value_literal
from routine_grammar.grammar.presence import Presence, presences
from routine_grammar.grammar.schema.compiler import SchemaCompiler
from routine_grammar.grammar.schema.layout import LeafNames
from routine_grammar.grammar.tree import (
    EMPTY,
    Call,
    Choice,
    Grammar,
    Leaf,
    Literal,
    Node,
    Optional,
    choice,
    sequence,
)
from routine_grammar.patterns.text import beginning_otherwise
from routine_grammar.routine import model
from routine_grammar.routine.checks import key_is_compatible
from routine_grammar.routine.graph import Graph, Move, Successors
from routine_grammar.routine.keys import SIGIL, UNKNOWN, MemoryKey, parse_key
from routine_grammar.routine.tools import Tool

MAX_KEYS = 10_000
MAX_STEPS_PER_TURN = 1_000
FIXED = (model.Constant, model.Key, model.Item)  # sources that leave the model no choice
BARE_NAME = re.compile(r"[A-Za-z0-9_.:/-]+")  # of a tool whose name is written outside of JSON
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
        return turn_form(self.dialect.markers, self.sigil, self.dialect.escaped, self.dialect.number)

    def thought_limit(self, successors: Successors) -> int:
        """The most characters of thought before the call."""
        thought = self.graph.routine.thought
        options = len(successors.moves) + successors.may_end
        return 0 if not successors.moves or not self.dialect.leading_text else thought.branch if options > 1 else thought.linear

    def default_key(self, key: str) -> str:
        """A key of this scope's sigil as Routines write it."""
        return SIGIL + key.removeprefix(self.sigil)

    def spelled_key(self, key: str) -> str:
        """A key as this scope's sigil writes it; Routines are written with the default sigil."""
        return self.sigil + key.removeprefix(SIGIL)


def turn_grammar(scope: TurnScope, position: str, keys: Sequence[MemoryKey], *, parallel: bool = True) -> Grammar:
    """The grammar of one turn at a position, with these live keys; `parallel`: it may have several calls where allowed.

    Raises `RoutineError` for an unknown position or what the dialect can't hold, `MemoryKeyError` where a step needs a key
    that is not live, `SchemaError` for a tool whose schema can't be enforced.
    """
    maker = TurnMaker(scope, {}, parallel)
    root = maker.turn(position, keys, {scope.default_key(key.name) for key in keys})
    return Grammar(root, maker.rules)


def whole_grammar(scope: TurnScope, keys_at: Mapping[str, Sequence[MemoryKey]]) -> Grammar:
    """A Routine as one grammar: rule `at_<position>` for each of the positions, beginning with the first.

    A position inside a repetition stands for those at all items, with all keys that may be live at any.
    """
    rules: dict[str, Node] = {position_rule(position): EMPTY for position in keys_at}  # these names are taken
    maker = TurnMaker(scope, rules)
    for position, keys in keys_at.items():
        rules[position_rule(position)] = maker.turn(position, keys, None)
    return Grammar(Call(position_rule(next(iter(keys_at)))), rules)


def possible_keys(scope: TurnScope, key_types: Mapping[str, Any], position: str) -> tuple[MemoryKey, ...]:
    """All keys of the Routine that may be live at a position."""
    names = [scope.spelled_key(key) for key in scope.graph.names_before(position)]
    return live_keys(names, key_types, SIGIL, scope.sigil)


def position_rule(position: str) -> str:
    """The name of a position's rule: `at_start`, `at_2`, `at_2_1_1` for step 2-1_1."""
    return f"at_{_rule_name(position)}"


def _pointer(name: str) -> str:
    """The JSON pointer of a parameter's schema."""
    return f"/properties/{name.replace('~', '~0').replace('/', '~1')}"


def _rule_name(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower().replace("+", "_and_")).strip("_")


@dataclass(slots=True)
class TurnMaker:
    """Makes the trees of turns; `rules` takes those that they share."""

    scope: TurnScope
    rules: dict[str, Node]
    parallel: bool = True
    form: JsonForm = field(init=False)
    written: Arguments = field(init=False)
    _calls: dict[tuple[str, int | None, tuple[str, ...]], str] = field(default_factory=dict)
    _several: dict[tuple[str, int | None, tuple[int, ...], tuple[str, ...]], str] = field(default_factory=dict)
    _call_rules: dict[tuple[str, Node], str] = field(default_factory=dict)
    _key_rules: dict[tuple[str, ...], str] = field(default_factory=dict)
    _value_rules: dict[Node, str] = field(default_factory=dict)
    _literals: dict[tuple[str, str], Node] = field(default_factory=dict)
    _assignable: dict[tuple[str, str, str], bool] = field(default_factory=dict)
    _presences: dict[str, list[Presence]] = field(default_factory=dict)
    _schemas: dict[str, SchemaCompiler] = field(default_factory=dict)
    _leaves: LeafNames = field(default_factory=LeafNames)
    _answers: dict[str, int] = field(default_factory=dict)
    _last_number: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.form = self.scope.form
        self.written = arguments_of(self.scope.dialect, self.form)

    def turn(self, position: str, keys: Sequence[MemoryKey], live: Set[str] | None) -> Node:
        """All that may be said at a position; `live` None: whichever of the keys are live."""
        self.require_room(position, len(keys))
        successors = self.scope.graph.successors(position, live)
        headed = self.scope.graph.is_headed(position)
        ways: list[Node] = []
        leading: list[str] = []
        if successors.moves:
            calls = choice(*(self._move(move, keys, headed) for move in successors.moves))
            limit = self.scope.thought_limit(successors)
            if live is None:  # what is live may leave only one way open
                limit = max(limit, self.scope.thought_limit(Successors(successors.moves[:1], False)))
            ways.append(sequence(Optional(self._thought(limit)), calls) if limit else calls)
            leading += [THOUGHT] if limit else []
            leading += [f"{move.header}\n" for move in successors.moves] if headed else []
        if successors.may_end:
            ways.append(self._answer(leading))
        return choice(*ways)

    def require_room(self, position: str, keys: int) -> None:
        """Raise where a turn at a position passes a bound, or needs what the dialect has no place for."""
        successors = self.scope.graph.successors(position)
        steps = len(successors.steps)
        if keys > MAX_KEYS or steps > MAX_STEPS_PER_TURN:
            counts = f"{keys} live keys and {steps} steps"
            raise GrammarTooLargeError(f"a turn with {counts}; the bounds are {MAX_KEYS} and {MAX_STEPS_PER_TURN}")
        if not self.scope.dialect.leading_text and self.scope.graph.is_headed(position):
            raise RoutineError(
                f"at position {position!r} a step's header is needed before its call, and dialect "
                f"{self.scope.dialect.name!r} lets no text stand there"
            )

    def _thought(self, limit: int) -> Node:
        """One line of free text."""
        text = Leaf(f"THOUGHT_{limit}", rf"[^\x00-\x1f{re.escape(self.scope.dialect.free_text_lacks)}]{{1,{limit}}}")
        return sequence(Literal(THOUGHT), text, Literal("\n"))

    def _answer(self, leading: Sequence[str]) -> Leaf:
        """A final answer, where the Routine may end: free text that begins with nothing that leads to a call."""
        pattern = beginning_otherwise(leading, self.scope.dialect.free_text_lacks)
        number = self._answers.setdefault(pattern, len(self._answers) + 1)
        return Leaf("ANSWER" if number == 1 else f"ANSWER_{number}", pattern)

    def _move(self, move: Move, keys: Sequence[MemoryKey], headed: bool) -> Node:
        """A move's call, or its calls, behind its header where it has one."""
        header = Literal(f"{move.header}\n" if headed else "")
        return self.scope.dialect.turn(header, self._calls_of(move, keys))

    def _calls_of(self, move: Move, keys: Sequence[MemoryKey]) -> Node:
        """One of a move's calls, and behind it any of the others where several may be made."""
        between = self.scope.dialect.between if self.parallel else None
        ways: list[Node] = []
        for step in move.callable:
            call: Node = Call(self._call(step, keys, move.item))
            rest = move.without(step)
            more = Optional(sequence(between, Call(self._rest(rest, keys)))) if between is not None and rest.steps else EMPTY
            ways.append(sequence(call, more))
        return choice(*ways)

    def _rest(self, move: Move, keys: Sequence[MemoryKey]) -> str:
        """The rule of the calls of a move that may still be made."""
        memo = (move.node, move.item, move.done, tuple(key.name for key in keys))
        if memo not in self._several:
            done = "_".join(map(str, move.done))
            rule = self._several[memo] = self._fresh(f"calls_{_rule_name(move.node)}_behind_{done}")
            self.rules[rule] = EMPTY  # the name is taken
            self.rules[rule] = self._calls_of(move, keys)
        return self._several[memo]

    def _call(self, step: model.Step, keys: Sequence[MemoryKey], item: int | None) -> str:
        """The rule of a step's call under these keys."""
        memo = (step.id, item, tuple(key.name for key in keys))
        if memo not in self._calls:
            assert step.tool is not None
            tool = self.scope.tools[step.tool]
            called = step.id, self.call_of(tool, self._arguments(step, tool, keys, item))
            if called not in self._call_rules:
                rule = self._call_rules[called] = self._fresh(f"step_{_rule_name(step.id)}")
                self.rules[rule] = called[1]
            self._calls[memo] = self._call_rules[called]
        return self._calls[memo]

    def call_of(self, tool: Tool, arguments: Node) -> Node:
        """A call as the dialect writes it; raises `GrammarError` for a name that it can't write."""
        if self.scope.dialect.has_bare_names:
            if not BARE_NAME.fullmatch(tool.name):
                raise GrammarError(f"dialect {self.scope.dialect.name!r} can't write the tool name {tool.name!r:.80}")
            return self.scope.dialect.call(Literal(tool.name), arguments)
        name = value_literal(tool.name, self.form)
        spelled = name.items[0] if isinstance(name, Choice) else name
        assert isinstance(spelled, Literal)
        return self.scope.dialect.call(Literal(spelled.text[1:-1]), arguments)

    def _arguments(self, step: model.Step, tool: Tool, keys: Sequence[MemoryKey], item: int | None) -> Node:
        sources = {name: step.arguments.get(name) for name in tool.parameters}
        taken = {name: source for name, source in sources.items() if not isinstance(source, model.Omit)}
        fixed = [name for name, source in taken.items() if isinstance(source, FIXED)]
        values = {name: self.argument(step, tool, name, keys, item) for name in taken}
        return self.arguments_of(tool, values, fixed)

    def arguments_of(self, tool: Tool, values: Mapping[str, Node], fixed: Collection[str]) -> Node:
        """The arguments of a call, in each way in which those with `values` may be there, and those that are `fixed` are."""
        compiler, ways = self.schema_compiler(tool), []
        for way in self.presences(tool):
            needed = way.required.union(fixed)
            members = [(name, value, name in needed) for name, value in values.items() if name in way.allowed]
            others = compiler.layout.others(way.open_object) if way.open_object else None
            fits = way.high is None or len(needed) <= way.high
            if fits and (others or len(members) >= way.low) and way.allowed.issuperset(fixed) and values.keys() >= needed:
                ways.append(self.written.all_of(compiler, members, others, way.low, way.high))
        if not ways:
            told = f"the arguments that the step gives or leaves out are not those that tool {tool.name!r} takes together"
            raise SchemaError(told)
        return choice(*ways)

    def presences(self, tool: Tool) -> list[Presence]:
        """Which arguments of a tool may be there together. Raises where its schema over all of them can't be enforced."""
        if tool.name not in self._presences:
            self._presences[tool.name] = presences(tool, self.schema_compiler(tool))
        return self._presences[tool.name]

    def argument(self, step: model.Step, tool: Tool, name: str, keys: Sequence[MemoryKey], item: int | None = None) -> Node:
        """What may be written for an argument of a step, in a repetition at an item of its list; None: at any."""
        source = step.arguments.get(name)
        try:
            if isinstance(source, model.Key | model.Item):
                return self._key(step, source, keys, item)
            return self._value(tool, name, source, keys)
        except MemoryKeyError as error:
            raise MemoryKeyError(f"{self._where(step)}, argument {name!r}: {error}") from error
        except (SchemaError, GrammarError, RoutineError) as error:
            self.note(error, step, tool, name)
            raise

    def note(self, error: RoutineGrammarError, step: model.Step, tool: Tool, name: str) -> None:
        """Tell with an error where it is."""
        error.add_note(f"{self._where(step)}, tool {tool.name!r}, argument {name!r}")

    def _where(self, step: model.Step) -> str:
        return f"routine {self.scope.graph.routine.name!r}, step {step.id}"

    def schema_compiler(self, tool: Tool) -> SchemaCompiler:
        """The compiler of the schemas of a tool's arguments."""
        if tool.name not in self._schemas:
            prefix = f"{_rule_name(tool.name)}_"
            self._schemas[tool.name] = SchemaCompiler(tool.input_schema, self.form, self.rules, prefix, self._leaves)
        return self._schemas[tool.name]

    def literal(self, tool: Tool, name: str) -> Node:
        """The literals of a parameter's schema."""
        if (tool.name, name) not in self._literals:
            compiler = self.schema_compiler(tool)
            try:
                self._literals[tool.name, name] = self.written.literal(compiler, compiler.root.at("properties", name))
            except (SchemaError, GrammarError):
                del self._schemas[tool.name]  # it is left with references whose rules were not made
                raise
        return self._literals[tool.name, name]

    def _value(self, tool: Tool, name: str, source: model.Source | None, keys: Sequence[MemoryKey]) -> Node:
        """What may be written for a parameter: its constant, a literal of its schema, a compatible key, or either."""
        match source:
            case model.Constant(value):
                if begins_with_sigil(value, self.form.sigil):
                    raise RoutineError(
                        f"the constant {value!r:.80} reads as a memory key of sigil {self.form.sigil!r}: choose another sigil"
                    )
                return self.written.constant(value, tool.parameters[name], _pointer(name))
            case model.Literal():
                return self.literal(tool, name)
        schema = tool.parameter_schema(name)
        compatible = [key for key in keys if self._is_compatible(key, tool, name, schema)]
        if isinstance(source, model.AnyKey):
            return self._keys(compatible, f"no live key fits {dict(schema)!r:.120}")
        literal = self.literal(tool, name)
        return self._either(literal, compatible) if compatible else literal

    def _is_compatible(self, key: MemoryKey, tool: Tool, name: str, schema: Mapping[str, Any]) -> bool:
        """Whether a key may stand for a parameter; keys of one type are compared once."""
        if key.value is not UNKNOWN:
            return key_is_compatible(key, schema)
        memo = (json.dumps(key.schema, sort_keys=True), tool.name, name)
        if memo not in self._assignable:
            self._assignable[memo] = key_is_compatible(key, schema)
        return self._assignable[memo]

    def _key(self, step: model.Step, source: model.Key | model.Item, keys: Sequence[MemoryKey], item: int | None) -> Node:
        """The key that a step is bound to."""
        graph = self.scope.graph
        wanted = {graph.key_read(step, source, item)}
        if item is None and (loop := graph.loop_of(step.id)) is not None:
            wanted = {graph.key_read(step, source, each) for each in range(loop.most)}
        live = [key for key in keys if self.scope.default_key(key.name) in wanted]
        return self._keys(live, f"key {graph.key_read(step, source, item)} is not live")

    def _keys(self, keys: Sequence[MemoryKey], missing: str) -> Node:
        """Any of these keys, as a JSON string."""
        names = tuple(dict.fromkeys(key.name for key in keys))
        if not names:
            raise MemoryKeyError(missing)
        if len(names) == 1:
            return self.written.key(names[0])
        if names not in self._key_rules:
            rule = self._key_rules[names] = self._fresh("keys")
            self.rules[rule] = choice(*(self.written.key(name) for name in names))
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
        if default_sigil + key.name.removeprefix(sigil) not in declared:
            parse_key(key.name, sigil)
    return tuple(sorted({key.name: key for key in keys}.values(), key=lambda key: key.name))
