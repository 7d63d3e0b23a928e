"""The workload: one turn of a Routine that offers tools and memory keys, in three sizes, with texts inside and outside of it.

Everything is drawn from a seed and built through the public API, so that every arm gets the same turn. The plain variant of
a case has JSON strings that may spell anything: what other tools' grammars usually say.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from routine_grammar.api import Grammar, compile_routine
from routine_grammar.grammar import tree
from routine_grammar.grammar.json_text import EXACT
from routine_grammar.routine.keys import SIGIL
from routine_grammar.routine.model import AnyKey, Branch, Literal, Routine, Source, Step, Thought, Variable
from routine_grammar.routine.tools import Tool

SEED = 4
PLAIN = "{}, plain strings"


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


@dataclass(frozen=True, slots=True)
class Size:
    """How many tools a turn offers, how many parameters each has (from, to), and how many keys are live."""

    tools: int
    parameters: tuple[int, int]
    keys: int


SIZES: Mapping[str, Size] = {
    "small": Size(1, (2, 2), 4),
    "medium": Size(3, (4, 4), 8),
    "large": Size(20, (3, 6), 40),
}
XL = "xl"
COMPILED: Mapping[str, Size] = {**SIZES, XL: Size(100, (3, 6), 200)}  # too many to be told a model of

QUICK = ("small", "medium")

# Kinds of parameters with their weights: mostly references to what is known, as in written procedures.
KINDS = {"key": 7, "enum": 3, "string": 3, "integer": 2, "boolean": 2, "number": 1, "strings": 1}
SCHEMAS: Mapping[str, Mapping[str, Any]] = {
    "key": {"type": "string"},
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "boolean": {"type": "boolean"},
    "number": {"type": "number"},
    "strings": {"type": "array", "items": {"type": "string"}},
}
STRING_CHARS = 20  # where a case is bounded
DIGITS = 9
ITEMS = 3
_UNIT = r'[^"\\\x00-\x1f<]|\\["\\/bfnrt]'
# Neither `<`, with which markers begin, nor `m` in first place, with which keys begin.
BOUNDED: Mapping[str, tree.Leaf] = {
    leaf.name: leaf
    for leaf in (
        tree.Leaf("STRING", rf'"(?:(?:[^"\\\x00-\x1f<m]|\\["\\/bfnrt])(?:{_UNIT}){{0,{STRING_CHARS - 1}}})?"'),
        tree.Leaf("INTEGER", f"-?(?:0|[1-9][0-9]{{0,{DIGITS - 1}}})"),
        tree.Leaf("NUMBER", rf"-?(?:0|[1-9][0-9]{{0,{DIGITS - 1}}})(?:\.[0-9]{{1,4}})?(?:[eE][+-]?[0-9]{{1,2}})?"),
    )
}
CHOICES = (
    ("economy", "premium", "business"),
    ("draft", "open", "blocked", "done"),
    ("Berlin", "Osaka", "Nairobi", "Lima", "Toronto"),
    ("daily", "weekly", "monthly"),
    ("read_only", "read_write"),
)
ACTIONS = _words("open close fetch store book move merge split count check order refund ship track label index")
OBJECTS = _words("parcel room ledger flight sample device recipe badge permit survey lesson vehicle sensor folder")
FIELDS = _words("""
title target origin owner amount unit weight span count level reason note colour tags topic deadline retries mode label
place audience channel
""")
WORDS = _words("""
the second delivery arrived late again so please ask our warehouse to check every crate before Monday and tell Zoë that
her new desk stands upstairs while rain kept most visitors inside near 40 lamps still need wiring
""")
RARE = ("naïve", "東京", "Größe", "🙂", 'so-called "fix"', "C:\\temp", "line\nbreak", "a < b", "m")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a tool; `choices` are those of an enum."""

    name: str
    kind: str
    required: bool
    choices: tuple[str, ...] = ()

    @property
    def schema(self) -> Mapping[str, Any]:
        """Its JSON Schema."""
        return {"enum": list(self.choices)} if self.choices else SCHEMAS[self.kind]

    @property
    def source(self) -> Source:
        """Where a Routine says its value comes from."""
        return AnyKey() if self.kind == "key" else Literal()


@dataclass(frozen=True)
class Case:
    """A grammar to decode under, texts that it allows and texts that it refuses."""

    name: str
    grammar: Grammar
    samples: tuple[str, ...]
    invalid: tuple[str, ...]
    tools: tuple[Mapping[str, Any], ...] = ()

    def plain(self, name: str) -> Case:
        """The case with strings that may spell anything."""
        return replace(self, name=name, grammar=_with_leaves(self.grammar, {"STRING": EXACT.string}))


def make_cases(samples: int, sizes: Iterable[str] = COMPILED, seed: int = SEED) -> list[Case]:
    """The cases of some sizes, and these with plain strings; raises `ValueError` where a text is on the wrong side."""
    cases = {size: make_case(size, samples, seed) for size in sizes}
    return [*cases.values(), *(case.plain(PLAIN.format(size)) for size, case in cases.items())]


def make_bounded_case(size: str | Size, samples: int, seed: int = SEED) -> Case:
    """The case of a size whose texts are bounded, so that a model of random weights ends them: what servers are measured on.

    Strings have at most STRING_CHARS characters, integers nine digits, lists ITEMS items. `tools` are the same calls as
    OpenAI's tools, with each key as a value of an enum.
    """
    case = make_case(size, samples, seed, bounded=True)
    turn = replace(case, grammar=_with_leaves(case.grammar, BOUNDED, ITEMS - 1))
    _check_sides(turn)
    return turn


def make_case(size: str | Size, samples: int, seed: int = SEED, *, bounded: bool = False) -> Case:
    """The case of a size, with as many texts allowed and refused; `bounded`: texts that bounded grammars allow too."""
    rng = random.Random(f"{size} {seed}")
    name, size = (size, COMPILED[size]) if isinstance(size, str) else (f"tools_{size.tools}_keys_{size.keys}", size)
    tools = _draw_tools(size, rng)
    inputs = rng.sample(_at_least(size.keys, [f"{thing}_{field}" for thing in OBJECTS for field in FIELDS]), size.keys)
    keys = [f"{SIGIL}input_{name}" for name in inputs]
    routine = _routine(name, tools, inputs)
    turn = compile_routine(routine, [_tool(name, parameters) for name, parameters in tools.items()]).turn(memory=keys)
    draw = _Draw(tools, keys, rng, bounded)
    texts = tuple(draw.sample() for _ in range(samples))
    spoiled = tuple(draw.spoiled(number) for number in range(samples))
    offered = tuple(_offered(name, parameters, keys) for name, parameters in tools.items())
    case = Case(name, turn, texts, spoiled, offered)
    _check_sides(case)
    return case


def _check_sides(case: Case) -> None:
    for text, expected in [*((text, True) for text in case.samples), *((text, False) for text in case.invalid)]:
        if case.grammar.accepts(text) is not expected:
            raise ValueError(f"case {case.name}: expected the turn to {'allow' if expected else 'refuse'} {text!r}")


def _routine(name: str, tools: Mapping[str, Sequence[Parameter]], inputs: Sequence[str]) -> Routine:
    """A Routine whose first turn offers all the tools: under a choice of branches, where there are several."""
    steps = [
        Step("", f"Use {tool}", tool=tool, arguments={parameter.name: parameter.source for parameter in parameters})
        for tool, parameters in tools.items()
    ]
    branches = [Branch(f"{step.name} fits", steps=(step,)) for step in steps[:-1]] + [Branch(None, True, (steps[-1],))]
    first = steps[0] if len(steps) == 1 else Step("", "Choose", branches=tuple(branches))
    variables = tuple(Variable(name, {"type": "string"}) for name in inputs)
    return Routine(name, inputs=variables, steps=(first,), thought=Thought(0, 0))


def _draw_tools(size: Size, rng: random.Random) -> dict[str, list[Parameter]]:
    names = rng.sample(_at_least(size.tools, [f"{action}_{thing}" for action in ACTIONS for thing in OBJECTS]), size.tools)
    return {name: _draw_parameters(size, rng) for name in names}


def _at_least(count: int, names: list[str]) -> list[str]:
    """As many names at least: numbered ones behind those that there are."""
    numbers = range(2, 2 + (count - 1) // len(names))
    return [*names, *(f"{name}{number}" for number in numbers for name in names)]


def _draw_parameters(size: Size, rng: random.Random) -> list[Parameter]:
    """Parameters of a tool; in a turn of few tools a key comes first and a string last, so that no turn lacks them."""
    count = rng.randint(*size.parameters)
    names = rng.sample(_at_least(count, list(FIELDS)), count)
    kinds = rng.choices(list(KINDS), list(KINDS.values()), k=len(names))
    if size.tools <= 3:
        kinds[-1] = "string"
        kinds[0] = "key"
    return [
        Parameter(name, kind, place == 0 or rng.random() < 0.7, rng.choice(CHOICES) if kind == "enum" else ())
        for place, (name, kind) in enumerate(zip(names, kinds, strict=True))
    ]


def _tool(name: str, parameters: Sequence[Parameter]) -> Tool:
    schema = {
        "type": "object",
        "properties": {parameter.name: dict(parameter.schema) for parameter in parameters},
        "required": [parameter.name for parameter in parameters if parameter.required],
        "additionalProperties": False,
    }
    return Tool.from_mcp({"name": name, "inputSchema": schema})


def _offered(name: str, parameters: Sequence[Parameter], keys: Sequence[str]) -> dict[str, Any]:
    """A tool as OpenAI's requests have it, with what a bounded turn allows in its parameters."""
    bounds: dict[str, dict[str, Any]] = {
        "key": {"enum": list(keys)},
        "string": {"maxLength": STRING_CHARS},
        "integer": {"minimum": -(10**DIGITS - 1), "maximum": 10**DIGITS - 1},
        "strings": {"items": {"type": "string", "maxLength": STRING_CHARS}, "maxItems": ITEMS},
    }
    schema = {
        "type": "object",
        "properties": {each.name: {**each.schema, **bounds.get(each.kind, {})} for each in parameters},
        "required": [each.name for each in parameters if each.required],
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "parameters": schema}}


@dataclass(frozen=True, slots=True)
class _Draw:
    """Draws calls of some tools; `bounded`: with values that bounded grammars allow."""

    tools: Mapping[str, Sequence[Parameter]]
    keys: Sequence[str]
    rng: random.Random
    bounded: bool

    def sample(self) -> str:
        """A call that is right."""
        name = self.rng.choice(list(self.tools))
        given = [parameter for parameter in self.tools[name] if parameter.required or self.rng.random() < 0.6]
        return _call(name, {parameter.name: self._value(parameter) for parameter in given})

    def spoiled(self, way: int) -> str:
        """A call that is wrong in one of five ways."""
        name = self.rng.choice([name for name, parameters in self.tools.items() if any(p.kind == "key" for p in parameters)])
        values = {parameter.name: self._value(parameter) for parameter in self.tools[name]}
        match way % 5:
            case 0:
                return _call(f"{name}_now", values)
            case 1:
                key = next(parameter.name for parameter in self.tools[name] if parameter.kind == "key")
                return _call(name, values | {key: f'"{SIGIL}input_password"'})
            case 2:
                del values[next(parameter.name for parameter in self.tools[name] if parameter.required)]
                return _call(name, values)
            case 3:
                return _call(name, values | {"surprise": "1"})
            case _:
                return _call(name, values).replace("}}\n", "}\n")

    def _value(self, parameter: Parameter) -> str:
        rng = self.rng
        match parameter.kind:
            case "key":
                return json.dumps(rng.choice(self.keys))
            case "enum":
                return json.dumps(rng.choice(parameter.choices))
            case "integer":
                return str(rng.choice((0, 7, -3, 12, 480, rng.randint(0, 10**DIGITS - 1))))
            case "boolean":
                return rng.choice(("true", "false"))
            case "number":
                return rng.choice(("0.25", "-8.5", "3e8", "19", f"{rng.uniform(0, 5000):.2f}"))
            case "string":
                return json.dumps(self._sentence(), ensure_ascii=rng.random() < 0.2 and not self.bounded)
            case _:
                return json.dumps([self._sentence()[:30] for _ in range(rng.randint(0, ITEMS))], ensure_ascii=False)

    def _sentence(self) -> str:
        words = self.rng.choices(WORDS, k=self.rng.randint(2, 22))
        if self.rng.random() < 0.3:
            words.insert(self.rng.randrange(len(words)), self.rng.choice(RARE))
        text = " ".join(words).capitalize() + self.rng.choice((".", "!", "", "?"))
        return text.replace("<", "").lstrip("m")[:STRING_CHARS] if self.bounded else text


def _call(name: str, values: Mapping[str, str]) -> str:
    arguments = ", ".join(f'"{parameter}": {value}' for parameter, value in values.items())
    return f'<tool_call>\n{{"name": "{name}", "arguments": {{{arguments}}}}}\n</tool_call>'


def _with_leaves(grammar: Grammar, leaves: Mapping[str, tree.Node], items: int | None = None) -> Grammar:
    """A grammar with other leaves of these names, and with at most so many items in what it repeats without a bound."""

    def changed(node: tree.Node) -> tree.Node:
        match node:
            case tree.Leaf(name, _):
                return leaves.get(name, node)
            case tree.Sequence(parts):
                return tree.Sequence(tuple(map(changed, parts)))
            case tree.Choice(parts):
                return tree.Choice(tuple(map(changed, parts)))
            case tree.Optional(item):
                return tree.Optional(changed(item))
            case tree.Repeat(item, low, high):
                return tree.Repeat(changed(item), low, items if high is None else high)
            case _:
                return node

    rules = {name: changed(rule) for name, rule in grammar.tree.rules.items()}
    return Grammar(tree.Grammar(changed(grammar.tree.root), rules))
