"""Grammar tree to the EBNF of xgrammar, in the writing that it is fastest with.

Leaves become one rule a state of their smallest automaton, each ending in a call of the next: right-recursive, never a group
under a star, and never two ways to read the same text. A marker is its text.
"""

from __future__ import annotations

from benchmarks.patterns import LAST_CHARACTER, CharacterAutomaton, Ranges, pattern_to_automaton
from routine_grammar.errors import GrammarError
from routine_grammar.grammar.tree import Call, Choice, Grammar, Leaf, Literal, Marker, Node, Optional, Repeat, Sequence

ROOT = "root"


def grammar_to_ebnf(grammar: Grammar) -> str:
    """The grammar as xgrammar's EBNF, beginning at `root`.

    Raises `ValueError` for a leaf outside the subset that `pattern_to_automaton` reads, `GrammarError` for a rule of that name.
    """
    if ROOT in grammar.rules:
        raise GrammarError(f"a rule is named {ROOT!r}, which is where EBNF begins")
    lines = [f"{ROOT} ::= {_alternatives(grammar.root)}"]
    lines += [f"{name} ::= {_alternatives(tree)}" for name, tree in grammar.rules.items()]
    for name, pattern in grammar.leaves().items():
        lines += _leaf_rules(name, pattern_to_automaton(pattern))
    return "\n".join(lines) + "\n"


def _alternatives(node: Node) -> str:
    return " | ".join(map(_sequence, node.items)) if isinstance(node, Choice) else _sequence(node)


def _sequence(node: Node) -> str:
    if isinstance(node, Sequence):
        return " ".join(map(_atom, node.items)) or '""'
    return _atom(node)


def _atom(node: Node) -> str:
    match node:
        case Literal(text) | Marker(text):
            return _quoted(text)
        case Leaf(name, _):
            return name
        case Call(rule):
            return rule
        case Optional(item):
            return f"({_alternatives(item)})?"
        case Repeat(item, low, None) if low < 2:
            return f"({_alternatives(item)}){'*+'[low]}"
        case Repeat(item, low, high):
            return f"({_alternatives(item)}){{{low},{'' if high is None else high}}}"
        case _:
            return f"({_alternatives(node)})"


def _leaf_rules(name: str, automaton: CharacterAutomaton) -> list[str]:
    """One rule a state; a state that only ends is written where it is reached."""
    ends = {state for state in automaton.accepting if not automaton.edges[state]}
    called = [name if state == 0 else f"{name}_state_{state}" for state in range(len(automaton.edges))]
    rules = []
    for state, edges in enumerate(automaton.edges):
        if state in ends:
            continue
        ways = [_class(ranges) + ("" if to in ends else f" {called[to]}") for to, ranges in edges.items()]
        rules.append(f"{called[state]} ::= " + " | ".join(['""'] * (state in automaton.accepting) + ways))
    return rules


def _class(ranges: Ranges) -> str:
    """A character, or a class; one that reaches to the last character is written by what it leaves out."""
    if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
        return _quoted(chr(ranges[0][0]))
    if ranges[-1][1] < LAST_CHARACTER:
        return f"[{_spans(ranges)}]"
    bounds = [-1, *(bound for span in ranges for bound in span)]
    gaps = [(high + 1, low - 1) for high, low in zip(bounds[::2], bounds[1::2], strict=False)]
    return f"[^{_spans(tuple(gap for gap in gaps if gap[0] <= gap[1]))}]"


def _spans(ranges: Ranges) -> str:
    return "".join(_in_class(low) if low == high else f"{_in_class(low)}-{_in_class(high)}" for low, high in ranges)


def _in_class(char: int) -> str:
    return (
        chr(char) if chr(char).isascii() and chr(char).isalnum() else f"\\u{{{char:x}}}" if char > 0xFFFF else f"\\u{char:04x}"
    )


def _quoted(text: str) -> str:
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(escapes.get(char) or (char if char >= " " else f"\\x{ord(char):02x}") for char in text) + '"'
