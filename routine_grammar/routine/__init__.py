"""The Routine: its model, written forms, position graph and dataflow checks. Knows no bytes and no tokens."""

from routine_grammar.routine.checks import check, key_is_compatible, key_types
from routine_grammar.routine.drawing import to_mermaid, to_svg
from routine_grammar.routine.flat import routine_to_flat, to_flat_json
from routine_grammar.routine.forms import routine_from_document, routine_to_document, to_json, to_yaml
from routine_grammar.routine.graph import START, Graph, Move, Successors, Taken
from routine_grammar.routine.ids import branches_around, header_of, step_id_of
from routine_grammar.routine.inlining import inlined
from routine_grammar.routine.keys import (
    SIGIL,
    UNKNOWN,
    MemoryKey,
    ParsedKey,
    Unknown,
    input_key,
    item_key,
    memory_key,
    parse_key,
)
from routine_grammar.routine.model import (
    MAX_NESTING,
    AnyKey,
    Branch,
    Constant,
    Header,
    Item,
    Key,
    Literal,
    Omit,
    Repetition,
    Routine,
    Source,
    Step,
    Thought,
    Variable,
)
from routine_grammar.routine.positions import Position, read_position
from routine_grammar.routine.problems import Origin, Problem
from routine_grammar.routine.structure import structure_problems
from routine_grammar.routine.text import to_text
from routine_grammar.routine.tools import Tool, load_tools
from routine_grammar.routine.types import assignable
from routine_grammar.routine.values import misfit, value_fits

__all__ = [
    "MAX_NESTING",
    "SIGIL",
    "START",
    "UNKNOWN",
    "AnyKey",
    "Branch",
    "Constant",
    "Graph",
    "Header",
    "Item",
    "Key",
    "Literal",
    "MemoryKey",
    "Move",
    "Omit",
    "Origin",
    "ParsedKey",
    "Position",
    "Problem",
    "Repetition",
    "Routine",
    "Source",
    "Step",
    "Successors",
    "Taken",
    "Thought",
    "Tool",
    "Unknown",
    "Variable",
    "assignable",
    "branches_around",
    "check",
    "header_of",
    "input_key",
    "item_key",
    "key_is_compatible",
    "key_types",
    "load_tools",
    "memory_key",
    "misfit",
    "inlined",
    "parse_key",
    "read_position",
    "routine_from_document",
    "routine_to_document",
    "routine_to_flat",
    "step_id_of",
    "structure_problems",
    "to_flat_json",
    "to_json",
    "to_mermaid",
    "to_svg",
    "to_text",
    "to_yaml",
    "value_fits",
]
