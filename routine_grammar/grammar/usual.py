"""The terminals that most grammars have: those of turns in every dialect, and of JSON that may be spelled in any way."""

from __future__ import annotations

from functools import cache

from routine_grammar.grammar.dialects import dialect_names, load_dialect
from routine_grammar.grammar.json_text import EXACT, turn_form
from routine_grammar.grammar.terminals import Terminal
from routine_grammar.routine.keys import SIGIL


@cache
def usual_terminals() -> tuple[Terminal, ...]:
    """Their patterns, each once."""
    dialects = [load_dialect(name) for name in dialect_names()]
    forms = [EXACT, *(turn_form(each.markers, SIGIL, each.escaped, each.number) for each in dialects)]
    leaves = [leaf for form in forms for leaf in (form.string, form.name, form.integer, form.number)]
    return tuple(dict.fromkeys(leaf.pattern for leaf in leaves))
