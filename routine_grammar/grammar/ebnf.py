"""Grammar tree to the EBNF of xgrammar, in the writing that it is fastest with.

Leaves become one rule a state of their automaton over characters and escapes, each ending in a call of the next:
right-recursive, never a group under a star, and never two ways to read the same text. A marker is its text.
"""

from __future__ import annotations

from routine_grammar.errors import GrammarError
from routine_grammar.grammar.terminals import JsonString, Terminal, automaton_of_terminal
from routine_grammar.grammar.tree import Call, Choice, Grammar, Leaf, Literal, Marker, Node, Optional, Repeat, Sequence
from routine_grammar.patterns.automaton import UnitAutomaton, automaton_of, quoted
from routine_grammar.patterns.charset import CHARS, CharSet
from routine_grammar.patterns.json_escapes import escapes_of
from routine_grammar.patterns.pattern import Chars, Concat, Either, Pattern, Times

ROOT = "root"


def grammar_to_ebnf(grammar: Grammar) -> str:
    """The grammar as xgrammar's EBNF, beginning at `root`.

    Raises `GrammarError` for a leaf that can't be read and for lists of distinct elements, `GrammarTooLargeError` for a leaf
    of too many states.
    """
    grammar.require_plain("EBNF")
    names = {name: name for name in grammar.rules}
    if ROOT in names:
        names[ROOT] = next(name for number in range(2, len(names) + 3) if (name := f"{ROOT}_{number}") not in names)
    writer = _Writer(names)
    lines = [f"{ROOT} ::= {writer.alternatives(grammar.root)}"]
    lines += [f"{names[name]} ::= {writer.alternatives(tree)}" for name, tree in grammar.rules.items()]
    for name, terminal in grammar.leaves().items():
        lines += _leaf_rules(name, _automaton(terminal))
    return "\n".join(lines) + "\n"


def _automaton(terminal: Terminal) -> UnitAutomaton:
    if isinstance(terminal, JsonString):
        return quoted(automaton_of(terminal.inner()))
    return automaton_of_terminal(terminal)


class _Writer:
    def __init__(self, names: dict[str, str]) -> None:
        self._names = names

    def alternatives(self, node: Node) -> str:
        if node == Choice(()):
            raise GrammarError("a choice without alternatives can't be written: it allows nothing")
        return " | ".join(map(self._sequence, node.items)) if isinstance(node, Choice) else self._sequence(node)

    def _sequence(self, node: Node) -> str:
        if isinstance(node, Sequence):
            return " ".join(map(self._atom, node.items)) or '""'
        return self._atom(node)

    def _atom(self, node: Node) -> str:
        match node:
            case Literal(text) | Marker(text):
                return _quoted(text)
            case Leaf(name, _):
                return name
            case Call(rule):
                return self._names[rule]
            case Optional(item):
                return f"({self.alternatives(item)})?"
            case Repeat(item, low, None) if low < 2:
                return f"({self.alternatives(item)}){'*+'[low]}"
            case Repeat(item, low, high):
                return f"({self.alternatives(item)}){{{low},{'' if high is None else high}}}"
            case _:
                return f"({self.alternatives(node)})"


def _leaf_rules(name: str, automaton: UnitAutomaton) -> list[str]:
    """One rule a state; a state that only ends is written where it is reached."""
    moves = [automaton.moves(state) for state in range(len(automaton.accepting))]
    ends = {state for state, ways in enumerate(moves) if not ways}
    called = [name if state == 0 else f"{name}_state_{state}" for state in range(len(moves))]
    rules = []
    for state, ways in enumerate(moves):
        if state in ends and state:
            continue
        targets: dict[int, list[tuple[int, int]]] = {}
        for low, high, target in ways:
            targets.setdefault(target, []).append((low, high))
        written = [_unit(CharSet.of(*ranges), "" if to in ends else f" {called[to]}") for to, ranges in targets.items()]
        rules.append(f"{called[state]} ::= " + " | ".join(['""'] * bool(automaton.accepting[state]) + written))
    return rules


def _unit(units: CharSet, then: str) -> str:
    """One unit of a set, and what follows."""
    ways = [_class(units.as_is)] if units.as_is else []
    if units.escaped:
        ways.append(_expression(escapes_of(units.escaped)))
    return (ways[0] if len(ways) == 1 else f"({' | '.join(ways)})") + then


def _expression(pattern: Pattern) -> str:
    match pattern:
        case Chars(chars):
            return _class(chars)
        case Concat(items):
            return " ".join(map(_expression, items)) or '""'
        case Either(items):
            return f"({' | '.join(map(_expression, items))})"
        case Times(item, low, high) if low == high:
            return " ".join([_expression(item)] * low)
    raise GrammarError(f"a {type(pattern).__name__.lower()} has no place in EBNF")


def _class(chars: CharSet) -> str:
    """A character, or a class; one that has more characters than it lacks is written by what it lacks."""
    if len(chars) == 1:
        return _quoted(chr(chars.ranges[0][0]))
    lacking = CHARS - chars
    return f"[^{_spans(lacking)}]" if len(lacking) < len(chars) else f"[{_spans(chars)}]"


def _spans(chars: CharSet) -> str:
    return "".join(_in_class(low) if low == high else f"{_in_class(low)}-{_in_class(high)}" for low, high in chars.ranges)


def _in_class(code: int) -> str:
    char = chr(code)
    return char if char.isascii() and char.isalnum() else f"\\U{code:08x}" if code > 0xFFFF else f"\\u{code:04x}"


def _quoted(text: str) -> str:
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(escapes.get(char) or (char if char >= " " else f"\\x{ord(char):02x}") for char in text) + '"'
