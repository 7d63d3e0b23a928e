"""Shapes to grammar trees: one spelling of space, properties in order, those that no schema declares behind all others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from routine_grammar.effort import A_COMPOUND, A_VALUE, spend
from routine_grammar.errors import GrammarError, GrammarTooLargeError, SchemaError, UnsupportedSchemaError
from routine_grammar.grammar.json_number import least_common, number_spellings
from routine_grammar.grammar.json_text import JsonForm, begins_with_sigil, value_literal
from routine_grammar.grammar.schema.algebra import Algebra
from routine_grammar.grammar.schema.containing import array_of, require_few
from routine_grammar.grammar.schema.denying import flattened, is_nested
from routine_grammar.grammar.schema.excluding import ExcludingObject, with_names_of_others
from routine_grammar.grammar.schema.meeting import is_none
from routine_grammar.grammar.schema.objects import counted_object, plain_object
from routine_grammar.grammar.schema.refusals import NothingAllowed, Undecided
from routine_grammar.grammar.schema.shapes import (
    ANYTHING,
    Anything,
    Array,
    Kind,
    Named,
    Number,
    Object,
    Shape,
    String,
    Value,
)
from routine_grammar.grammar.terminals import JsonNumber, JsonString, Terminal, automaton_of_terminal
from routine_grammar.grammar.tree import (
    EMPTY,
    Call,
    Distinct,
    Element,
    Leaf,
    Literal,
    Node,
    Optional,
    Repeat,
    choice,
    cut,
    listed,
    separated,
    sequence,
)
from routine_grammar.patterns.automaton import automaton_of
from routine_grammar.patterns.finite import texts_found

MAX_LEAST = 8  # distinct items that have to be there
MAX_LENGTH_TOLD = 64  # of a string whose length is looked at together with its expressions, to tell whether there is one
_MEMBERS_A_RULE = 32  # optional members are nested: rules keep the tree shallow
_COMMA = Literal(", ")
_PLAIN = Number(is_integer=True, plain=True)
_FINITE = r"[^eE]*|.*[eE](?:-.*|\+?0*(?:[0-9]{1,2}|[12][0-9]{2}|30[0-7]))|-?1(?:\.(?:0+|[0-6][0-9]*))?[eE]\+?0*308"
_SPELLED = {None: "", True: "-?[0-9]+", False: "[^.eE]*[.eE].*"}  # numbers by whether they have a fraction or an exponent

Properties = Sequence[tuple[str, Node, bool]]  # name, value, whether it is required


class LeafNames:
    """Names of the leaves of one grammar: each terminal has one, and no two the same."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, Terminal], Leaf] = {}
        self._counts: dict[str, int] = {}

    def leaf(self, kind: str, terminal: Terminal, pointer: str | None = None) -> Leaf:
        """The leaf of a terminal, named by its kind and a number; `pointer` as a leaf has it."""
        key = (kind, terminal)
        if key not in self._names:
            number = self._counts[kind] = self._counts.get(kind, 1) + 1
            self._names[key] = Leaf(f"{kind}_{number}", terminal, pointer)
        return self._names[key]


class Layout:
    """Lays out shapes in a form of JSON. `rules` takes the rules that nodes call, named with `prefix`."""

    def __init__(self, algebra: Algebra, form: JsonForm, rules: dict[str, Node], prefix: str, leaves: LeafNames) -> None:
        self._algebra = algebra
        self._form = form
        self._rules = rules
        self._prefix = prefix if prefix[:1].isalpha() or not prefix else f"tool_{prefix}"
        self._leaves = leaves
        self._of_name: dict[str, str] = {}
        self._nothing: dict[str, NothingAllowed] = {}  # names that turned out to have no value, and why
        self._pending: list[str] = []
        self._under_way: set[Array | Object] = set()
        self._any: dict[str, str] = {}
        self._last_number: dict[str, int] = {}
        self._scalars: dict[Kind, Node] = {}
        self._shared: dict[tuple[str, Node], Call] = {}

    def finish(self, node: Node) -> tuple[Node, list[str]]:
        """Make the rules of all names that were called; returns a node without what turned out to be nothing, and the rules.

        Raises `NothingAllowed` where nothing is left.
        """
        made = list[str]()
        nothing: dict[str, NothingAllowed] = {}
        while self._pending:
            name = self._pending.pop()
            made.append(self._of_name[name])
            try:
                self._rules[self._of_name[name]] = self.node(self._algebra.shape(name))
            except NothingAllowed as error:
                nothing[name] = error
        if nothing:
            node = self._without(nothing, node)
        return node, [rule for rule in made if rule in self._rules]

    def _without(self, nothing: Mapping[str, NothingAllowed], node: Node) -> Node:
        """A node, and all rules, without names that turned out to have no value."""
        error, whole = next(iter(nothing.values())), self.fresh_rule("whole")
        left = cut({**self._rules, whole: node}, [self._of_name[name] for name in nothing])
        gone = self._rules.keys() - left.keys()
        self._nothing |= {name: nothing.get(name, error) for name, rule in self._of_name.items() if rule in gone}
        self._shared = {key: call for key, call in self._shared.items() if call.rule not in gone}
        if whole not in left:
            raise error
        node = left.pop(whole)
        self._rules.clear()
        self._rules |= left
        return node

    def node(self, shape: Shape) -> Node:
        """The texts of a shape's values. Raises `NothingAllowed` where there are none."""
        self._require_clear(shape)
        ways: list[Node] = []
        nothing = NothingAllowed("no value is left that the schema allows")
        for kind in shape.kinds:
            if self._algebra.may_be(Shape((kind,))):
                try:
                    ways.append(self._kind(kind))
                except NothingAllowed as error:
                    nothing = error
        if not ways:
            raise nothing
        return choice(*ways)

    def _require_clear(self, shape: Shape) -> None:
        """Names that are watched are so from their object's bracket on: no other object may stand there."""
        if len(shape.kinds) > 1 and any(isinstance(kind, Object) and _is_watched(kind) for kind in shape.kinds):
            objects = [kind for kind in self._algebra.opened(shape).kinds if isinstance(kind, Object)]
            if len(objects) > 1:
                raise _declined("beside other objects", next(filter(_is_watched, objects)))

    def node_if_any(self, shape: Shape) -> Node | None:
        """The texts of a shape's values; None where there are none."""
        try:
            return self.node(shape)
        except NothingAllowed:
            return None

    def _kind(self, kind: Kind) -> Node:
        match kind:
            case Anything():
                return self._any_value()
            case Named(name):
                return self._named(name)
            case Value():
                return self.value(kind)
            case Number() | String():
                if kind not in self._scalars:
                    self._scalars[kind] = self._number(kind) if isinstance(kind, Number) else self.string(kind)
                return self._scalars[kind]
            case Array() | Object():
                return self._compound(kind)

    def _compound(self, kind: Array | Object) -> Node:
        """An array or object; one within itself, as meetings of recursive shapes come to be, is called by a name."""
        if kind in self._under_way:
            return self._named(self._algebra.name_of(kind))
        spend(A_COMPOUND)
        self._under_way.add(kind)
        try:
            return self._array(kind) if isinstance(kind, Array) else self._object(kind)
        finally:
            self._under_way.discard(kind)

    def _named(self, name: str) -> Node:
        if name in self._nothing:
            raise self._nothing[name]
        if name not in self._of_name:
            word = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "whole"
            rule = self._of_name[name] = self.fresh_rule(word[:60])
            self._rules[rule] = Call(rule)  # holds the name until the rule is made
            self._pending.append(name)
        return Call(self._of_name[name])

    def fresh_rule(self, name: str) -> str:
        """A rule's name that is not taken, as Lark wants it: beginning with a letter, and not `start`."""
        wanted = f"{self._prefix}{name}"
        wanted = wanted if wanted[0].isalpha() else f"rule_{wanted}"
        number = self._last_number.get(wanted, 0)
        fresh = "start"
        while fresh == "start" or fresh in self._rules:
            number += 1
            fresh = wanted if number == 1 else f"{wanted}_{number}"
        self._last_number[wanted] = number
        return fresh

    def called(self, name: str, node: Node) -> Node:
        """A node that is used often: itself where it is a terminal or a call, else a call of a rule of its own."""
        return node if isinstance(node, Literal | Leaf | Call) else self._rule(name, node)

    def _rule(self, name: str, node: Node) -> Call:
        """A call of a rule that is this node."""
        if (name, node) not in self._shared:
            rule = self.fresh_rule(name)
            self._rules[rule] = node
            self._shared[name, node] = Call(rule)
        return self._shared[name, node]

    # Scalars

    def value(self, kind: Value) -> Node:
        """The spellings of one value."""
        if begins_with_sigil(kind.value, self._form.sigil):
            message = f"{kind.value!r:.80} begins with the sigil {self._form.sigil!r}: choose another sigil, such as 'key_'"
            raise SchemaError(message, pointer=kind.pointer)
        try:
            return value_literal(kind.value, self._form) if self._form.closed else self._any_spelling(kind.value)
        except GrammarTooLargeError as error:
            if not kind.pointer:
                raise
            raise _unsupported(kind.pointer.rpartition("/")[2], str(error), kind.pointer) from error
        except GrammarError as error:
            raise SchemaError(str(error), pointer=kind.pointer) from error

    def _any_spelling(self, value: Any) -> Node:
        """The spellings of one value, those of the numbers in it too."""
        spend(A_VALUE)
        match value:
            case bool():
                return value_literal(value, self._form)
            case int() | float():
                return choice(*map(Literal, number_spellings(value)))
            case list() if value:
                return sequence(Literal("["), *separated(_COMMA, map(self._any_spelling, value)), Literal("]"))
            case dict() if value:
                named = (
                    sequence(value_literal(name, self._form), Literal(": "), self._any_spelling(item))
                    for name, item in value.items()
                )
                return sequence(Literal("{"), *separated(_COMMA, named), Literal("}"))
        return value_literal(value, self._form)

    def string(self, kind: String) -> Node:
        """The spellings of some strings."""
        if not (kind.found or kind.never or kind.low or kind.high is not None):
            return self._form.string
        terminal = self._string_terminal(kind, self._form.sigil)
        self._refuse_none(terminal, kind.pointer)
        return self._leaves.leaf("STRING", terminal, kind.pointer)

    def _string_terminal(self, kind: String, sigil: str) -> JsonString:
        never = kind.never | ({f"^{sigil}"} if sigil else frozenset())
        found, never_sorted = tuple(sorted(kind.found)), tuple(sorted(never))
        return JsonString(found, never_sorted, kind.low, kind.high, self._form.markers, self._form.escaped)

    def _refuse_none(self, terminal: JsonString, pointer: str) -> None:
        """Raise where there is no such string, at once and not where it is decoded."""
        is_free = not (terminal.found or terminal.low or terminal.high is not None)
        if is_free and all(texts_found(text) is not None for text in terminal.never):
            return
        is_short = terminal.high is not None and terminal.high <= MAX_LENGTH_TOLD
        try:
            automaton = automaton_of(terminal.inner(with_length=is_short))
        except GrammarError as error:
            raise _unsupported("pattern", str(error), pointer) from error
        is_none = automaton.is_empty or (terminal.high is not None and automaton.fewest()[0] > terminal.high)
        if is_none or (terminal.low and not is_short and automaton.most() < terminal.low):
            raise NothingAllowed("there is no string that the schema allows", pointer=pointer)

    def _number(self, kind: Number) -> Node:
        usual = self._form.integer if kind.is_integer else self._form.number
        if kind == Number(is_integer=kind.is_integer) or (kind == _PLAIN and self._form.closed):
            return usual
        as_usual = self._form.closed or (kind.is_integer and kind.plain is None)  # what floats can't hold is no integer
        form = usual.pattern if as_usual else _FINITE if kind.multiples and kind.plain is None else _SPELLED[kind.plain]
        assert isinstance(form, str)
        if self._form.closed and kind.plain is False:
            raise _unsupported("type", "integers with a fraction, which are none in this draft", kind.pointer)
        low, high = kind.low, kind.high
        terminal = JsonNumber(
            low=str(low.value) if low is not None else "",
            high=str(high.value) if high is not None else "",
            low_is_open=low is not None and low.is_open,
            high_is_open=high is not None and high.is_open,
            multiple=str(least_common(kind.multiples)) if kind.multiples else "",
            is_integer=kind.is_integer,
            never=tuple(map(str, sorted(kind.never))),
            form=form,
        )
        try:
            is_empty = automaton_of_terminal(terminal).is_empty
        except GrammarError as error:
            raise _unsupported("multipleOf", str(error), kind.pointer) from error
        if is_empty:
            raise NothingAllowed("there is no number that the schema allows", pointer=kind.pointer)
        return self._leaves.leaf("INTEGER" if kind.is_integer else "NUMBER", terminal, kind.pointer)

    # Arrays and objects

    def _array(self, kind: Array) -> Node:
        if kind.high == 0:
            return Literal("[]")
        if _is_watched(kind):
            return self._distinct(kind)
        if kind.contained:
            return array_of(kind, self._algebra, self)
        if not kind.prefix and kind.rest == ANYTHING and not kind.low and kind.high is None:
            self._any_value()
            return Call(self._any["array"])
        own = len(kind.prefix)
        most = None if kind.high is None else max(kind.high - own, 0)
        require_few(kind)
        tail: Node = EMPTY
        each = self.node_if_any(kind.rest) if most != 0 else None
        if each is None and kind.low > own:
            raise NothingAllowed("there is no item that the schema allows", pointer=kind.pointer)
        if each is None and not own:
            return Literal("[]")
        if each is not None:
            item = self.called("item", each)
            if not own:
                more = Repeat(sequence(_COMMA, item), max(kind.low - 1, 0), None if most is None else most - 1)
                filled = sequence(item, more)
                return sequence(Literal("["), filled if kind.low else Optional(filled), Literal("]"))
            tail = Repeat(sequence(_COMMA, item), max(kind.low - own, 0), most)
        for place in range(own - 1, -1, -1):
            first = self.node_if_any(kind.prefix[place])
            if first is None:
                if place < kind.low:
                    raise NothingAllowed("there is no item that the schema allows", pointer=kind.pointer)
                tail = EMPTY
                continue
            tail = sequence(_COMMA, first, tail) if place else sequence(first, tail)
            if place >= kind.low:
                tail = Optional(tail)
            if place % _MEMBERS_A_RULE == _MEMBERS_A_RULE - 1:
                tail = self.called("items", tail)
        return sequence(Literal("["), tail, Literal("]"))

    def _distinct(self, kind: Array) -> Node:
        """An array of which no two items are equal."""
        if kind.low > MAX_LEAST:
            raise _declined(f"with more than {MAX_LEAST} items that have to be there", kind)
        if kind.contained:
            raise _declined("beside `contains`", kind)

        def element(shape: Shape) -> Node | None:
            node = self.node_if_any(shape)
            return None if node is None else self._rule("element", Element(node))

        own = len(kind.prefix)
        most = None if kind.high is None else max(kind.high - own, 0)
        more = element(kind.rest) if most != 0 else None
        tail: Node = EMPTY if more is None else Repeat(sequence(_COMMA, more), max(kind.low - max(own, 1), 0), most)
        if not own and most is not None and isinstance(tail, Repeat):
            tail = replace(tail, high=most - 1)
        for place in range(own - 1, 0, -1):
            item = element(kind.prefix[place])
            tail = EMPTY if item is None else sequence(_COMMA, item, tail)
            tail = tail if place < kind.low else Optional(tail)
        first = element(kind.prefix[0]) if own else more
        if first is None and kind.low:
            raise NothingAllowed("there is no item that the schema allows", pointer=kind.pointer)
        if first is None:
            return Literal("[]")
        # The list begins at its first item, which may tell it from other arrays.
        filled = Distinct(sequence(first, tail, Literal("]")), f"{kind.pointer}/uniqueItems", kind.low)
        rest = self._rule("distinct", filled)
        return sequence(Literal("["), rest if kind.low else choice(Literal("]"), rest))

    def _object(self, kind: Object) -> Node:
        free = (kind.members, kind.layers, kind.never, kind.names, kind.low, kind.high) == ((), (), (), ANYTHING, 0, None)
        if free:
            self._any_value()
            return Call(self._any["object"])
        closed = self._form.closed and not any(layer.rest is not None for layer in kind.layers)
        # An object that declares nothing is free in every form: closed, it could only ever be `{}`.
        only_patterns = closed and any(member.declared for _, member in kind.members)
        if kind.never:
            kind = with_names_of_others(kind, self._algebra, closed=only_patterns)
        try:
            groups = list(self._algebra.groups(kind))
        except (Undecided, GrammarError) as error:
            raise _unsupported("patternProperties", str(error), kind.pointer) from error
        if only_patterns:
            groups = [group for group in groups if group[0].found and any(layer.patterns for layer in kind.layers)]
        if kind.never:
            try:
                return ExcludingObject(kind, groups, self._algebra, self).node()
            except Undecided as error:
                if is_nested(kind):
                    return self.node(Shape(tuple(flattened(self._algebra, kind))))
                raise _unsupported("not", str(error), kind.pointer) from error
        members = []
        for name, member in kind.members:
            if member.required:
                members.append((name, self.node(member.shape), True))
            elif (node := self.node_if_any(member.shape)) is not None:
                members.append((name, node, False))
        others = self._others(kind, groups)
        if others is None or not _is_watched(kind):
            return self.object_of(members, others, kind.low, kind.high, kind.pointer)
        if kind.low > MAX_LEAST:
            raise _declined(f"with {kind.low} properties that are not named, more than {MAX_LEAST}", kind)
        node = self.object_of(members, others, kind.low, kind.high, kind.pointer)
        return self.distinct(node, f"{kind.pointer}/minProperties", max(kind.low - len(members), 0))

    def others(self, kind: Object) -> Node | None:
        """A property of an object that is not declared; None where there is none."""
        return self._others(kind, self._algebra.groups(kind))

    def _others(self, kind: Object, groups: Iterable[tuple[String, Shape]]) -> Node | None:
        once = _is_watched(kind)
        found = (self.property(names, shape, kind.pointer, once=once) for names, shape in groups)
        ways = [way for way in found if way is not None]
        return self.called("property", choice(*ways)) if ways else None

    def distinct(self, node: Node, pointer: str, least: int = 0) -> Node:
        """An object of which no name that is not declared comes twice, as a reader takes the two for one."""
        return self._rule("distinct", Distinct(node, pointer, least))

    def property(self, names: String, shape: Shape, pointer: str, *, once: bool = False) -> Node | None:
        """A property of any of these names, no name twice within `distinct` where asked for; None where there is none."""
        try:
            there_is_none = is_none(names)
        except GrammarError as error:
            raise _unsupported("patternProperties", str(error), pointer) from error
        value = None if there_is_none else self.node_if_any(shape)
        if value is None:
            return None
        name = self._name(names)
        return sequence(self._rule("name", Element(name)) if once else name, Literal(": "), value)

    def _name(self, names: String) -> Node:
        terminal = self._string_terminal(names, "")
        return self._form.name if terminal == self._form.name.pattern else self._leaves.leaf("NAME", terminal, names.pointer)

    def member(self, name: str, shape: Shape, pointer: str) -> Node | None:
        """A property of this name; None where there is no value."""
        value = self.node_if_any(shape)
        return None if value is None else self._member(name, value, pointer)

    def object_of(
        self, properties: Properties, others: Node | None = None, low: int = 0, high: int | None = None, pointer: str = ""
    ) -> Node:
        """An object of properties in order, and others behind them, `low` to `high` in all."""
        members = [(self._member(name, value, pointer), required) for name, value, required in properties]
        most = len(members) if others is None else None
        if low > sum(each for _, each in members) or (high is not None and (most is None or high < most)):
            return counted_object(members, others, low, high, self, pointer)
        return plain_object(members, others, self, pointer)

    def _member(self, name: str, value: Node, pointer: str) -> Node:
        """`"name": value`."""
        spend(A_VALUE)
        try:
            return sequence(value_literal(name, self._form), Literal(": "), value)
        except GrammarError as error:
            raise SchemaError(str(error), pointer=f"{pointer}/properties") from error

    def _any_value(self) -> Node:
        """Any JSON value at all."""
        if not self._any:
            self._any = {kind: self.fresh_rule(f"any_{kind}") for kind in ("value", "object", "array")}
            value, obj, array = (Call(rule) for rule in self._any.values())
            form = self._form
            member = sequence(form.name, Literal(": "), value)
            self._rules[obj.rule] = sequence(Literal("{"), Optional(listed(_COMMA, member)), Literal("}"))
            self._rules[array.rule] = sequence(Literal("["), Optional(listed(_COMMA, value)), Literal("]"))
            constants = (Literal("true"), Literal("false"), Literal("null"))
            self._rules[value.rule] = choice(obj, array, form.string, form.number, *constants)
        return Call(self._any["value"])


def _unsupported(keyword: str, told: str, pointer: str) -> UnsupportedSchemaError:
    return UnsupportedSchemaError(f"{keyword!r} is not supported here: {told}", pointer=pointer, keyword=keyword)


def _is_watched(kind: Kind) -> bool:
    """Whether elements have to be told apart that no automaton can: items, or names of properties that are not declared."""
    if isinstance(kind, Object):
        return kind.low > sum(member.required for _, member in kind.members) + 1
    return isinstance(kind, Array) and kind.is_distinct and kind.high != 1


def _declined(told: str, kind: Kind) -> UnsupportedSchemaError:
    assert isinstance(kind, Array | Object)
    keyword = "minProperties" if isinstance(kind, Object) else "uniqueItems"
    message = f"{keyword!r} is not supported {told}"
    return UnsupportedSchemaError(message, pointer=f"{kind.pointer}/{keyword}", keyword=keyword)
