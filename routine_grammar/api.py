"""The public façade: compile a Routine or a grammar, take a turn, follow what is decoded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from routine_grammar.automaton.automaton import Automaton
from routine_grammar.automaton.distinct import Watch, require_enough
from routine_grammar.effort import bounded
from routine_grammar.errors import GrammarError, GrammarTooLargeError, RoutineError, SchemaError
from routine_grammar.explanation import Explanation, explain, with_schema, with_tool
from routine_grammar.grammar.dialects import load_dialect
from routine_grammar.grammar.ebnf import grammar_to_ebnf
from routine_grammar.grammar.faults import faults
from routine_grammar.grammar.lark_reader import read_lark
from routine_grammar.grammar.lark_text import Flavour, grammar_to_lark
from routine_grammar.grammar.payload import dump_grammar
from routine_grammar.grammar.regex import grammar_to_regex
from routine_grammar.grammar.schema.compiler import declining, schema_to_grammar
from routine_grammar.grammar.schema.formats import without_unknown_formats
from routine_grammar.grammar.terminal_text import terminal_of
from routine_grammar.grammar.tree import Grammar as Tree
from routine_grammar.grammar.tree import Leaf
from routine_grammar.grammar.turn import TurnScope, live_keys, possible_keys, turn_grammar, whole_grammar
from routine_grammar.masks.distinct import AnyRows, rows_of
from routine_grammar.masks.matcher import Matcher
from routine_grammar.masks.vocabulary import Vocabulary
from routine_grammar.routine.checks import check, item_type, key_types
from routine_grammar.routine.graph import START, Graph, Move
from routine_grammar.routine.ids import path_of
from routine_grammar.routine.inlining import inlined
from routine_grammar.routine.keys import SIGIL, MemoryKey
from routine_grammar.routine.model import Routine, Step
from routine_grammar.routine.problems import Problem, problem_at
from routine_grammar.routine.structure import as_problems
from routine_grammar.routine.tools import Tool

if TYPE_CHECKING:
    from vllm import SamplingParams


MAX_ITEM_KEYS = 100_000
XGRAMMAR = "xgrammar"


@dataclass(frozen=True)
class Grammar:
    """A compiled grammar: what texts it allows, in several writings, and matchers that follow a sequence of tokens.

    `schema` is the JSON Schema that it was made of, if it was.
    """

    tree: Tree
    schema: Any = field(default=None, kw_only=True, repr=False, compare=False)

    @cached_property
    def lark(self) -> str:
        """The grammar as Lark text."""
        return grammar_to_lark(self.tree)

    @cached_property
    def regex(self) -> str:
        """The grammar as one regular expression; raises `GrammarError` where it is recursive."""
        return grammar_to_regex(self.tree)

    @cached_property
    def payload(self) -> str:
        """What vLLM takes as `structured_outputs={"grammar": …}` where this package is installed."""
        return dump_grammar(self.tree)

    def lark_for(self, consumer: str, vocabulary: Vocabulary) -> str:
        """The grammar as another library reads it: `consumer` is "llguidance" (vLLM's guidance backend), "xgrammar" or "lark".

        Markers that are single tokens of `vocabulary` are written as the consumer wants them; xgrammar's EBNF has only their
        texts. Raises `GrammarError` for an unknown consumer.
        """
        consumers = [*(flavour.value for flavour in Flavour), XGRAMMAR]
        if consumer not in consumers:
            raise GrammarError(f"there is no consumer {consumer!r:.80}; there are {', '.join(consumers)}")
        if consumer == XGRAMMAR:
            return grammar_to_ebnf(self.tree)
        return grammar_to_lark(self.tree, Flavour(consumer), vocabulary.special)

    def accepts(self, text: str) -> bool:
        """Whether `text` is a whole text of the grammar, markers written as their characters."""
        data = text.encode(errors="surrogatepass")
        return Watch(self._automaton).accepts(data) if self._automaton.is_distinct else self._automaton.accepts(data)

    def explain(self, text: str) -> Explanation:
        """How far the grammar reads `text`, why no further, and what may come there, with the pointers of a schema; `print` it.

        Raises `GrammarTooLargeError` where there are too many ways to read it.
        """
        explanation = explain(self.tree, self._automaton, text)
        return explanation if self.schema is None else with_schema(explanation, text, self.schema)

    def matcher(self, vocabulary: Vocabulary, budget: int | None = None) -> Matcher:
        """A matcher for one sequence; with a `budget` of tokens, whatever it says ends whole within it.

        Raises `GrammarError` where the budget is too small for any text.
        """
        return Matcher(self._rows(vocabulary), budget)

    def fewest_tokens(self, vocabulary: Vocabulary) -> int:
        """How many tokens the shortest text needs, the end-of-text token not counted."""
        return self.matcher(vocabulary).fewest_tokens

    def sampling_params(self, **vllm: Any) -> SamplingParams:
        """vLLM's `SamplingParams` under this grammar, with vLLM's own arguments passed through.

        `max_tokens` is 1,024 where it is not given: vLLM's own default of 16 is less than most calls need.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        constraint = StructuredOutputsParams(grammar=self.payload)
        return SamplingParams(structured_outputs=constraint, **{"max_tokens": 1024, **vllm})

    @cached_property
    def _automaton(self) -> Automaton:
        return Automaton(self.tree)

    def _rows(self, vocabulary: Vocabulary) -> AnyRows:
        known: dict[Vocabulary, AnyRows] = self.__dict__.setdefault("_rows_of", {})
        if vocabulary not in known:
            known[vocabulary] = rows_of(Automaton(self.tree, vocabulary.special), vocabulary)
        return known[vocabulary]


@dataclass(frozen=True)
class Turn(Grammar):
    """One constrained generation at a position: an optional thought, then the call, or calls, of one of `moves`.

    `may_end`: a final answer may be given instead.
    """

    position: str
    moves: tuple[Move, ...]
    may_end: bool

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps that may come next."""
        return tuple(step for move in self.moves for step in move.steps)

    @property
    def tools(self) -> tuple[str, ...]:
        """The tools that may be called, in the Routine's order."""
        return tuple(dict.fromkeys(step.tool for step in self.steps if step.tool is not None))

    @cached_property
    def forced(self) -> str:
        """The text that the turn begins with, whatever is decoded."""
        pieces = self._automaton.forced_pieces(self._automaton.start())
        return bytes(piece for piece in pieces if isinstance(piece, int)).decode(errors="ignore")


@dataclass(frozen=True)
class CompiledRoutine:
    """A Routine checked against its tools, ready to give the grammar of any turn. Made by `compile_routine`."""

    routine: Routine
    scope: TurnScope
    key_types: Mapping[str, Mapping[str, Any] | None]

    @property
    def graph(self) -> Graph:
        """The position graph."""
        return self.scope.graph

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools that the Routine uses."""
        used = dict.fromkeys(step.tool for step in self.routine if step.tool is not None)
        return tuple(self.scope.tools[name] for name in used)

    @cached_property
    def lark(self) -> str:
        """The whole Routine as one grammar in Lark, one rule a position, with every key that may be written by then."""
        return self.lark_at(*self.graph.positions)

    def lark_at(self, *positions: str) -> str:
        """The grammar as Lark at these positions, whichever of the keys are live; raises `RoutineError` for an unknown one."""
        tree = whole_grammar(self.scope, {at: possible_keys(self.scope, self.key_types, at) for at in positions})
        note = f"Routine {self.routine.name}, version {self.routine.version}, dialect {self.scope.dialect.name}"
        return grammar_to_lark(tree, note=note)

    def turn(self, position: str | None = None, memory: Iterable[MemoryKey | str] = (), *, parallel: bool = True) -> Turn:
        """The turn at `position` (None: the start) with these live keys; a bare key has its declared type.

        `parallel`: it may have several calls where the Routine allows that; else they come one in a turn. Which items of a
        list have keys decides how often its repetition runs, and the key of a step's error that its tool failed.

        Raises `RoutineError` for an unknown position, `MemoryKeyError` where a step reads a key that is not live.
        """
        position = START if position is None else position
        keys = live_keys(memory, self.key_types, SIGIL, self.scope.sigil)
        successors = self.graph.successors(position, self.live(keys))
        tree = turn_grammar(self.scope, position, keys, parallel=parallel)
        return Turn(tree, position, successors.moves, successors.may_end)

    def explain(self, text: str, position: str | None = None, memory: Iterable[MemoryKey | str] = ()) -> Explanation:
        """What the turn at `position` with these live keys makes of `text`, with the schema of the argument that it ends in.

        Raises as `turn` and `Grammar.explain`.
        """
        explanation = self.turn(position, memory).explain(text)
        return with_tool(explanation, text, self.tools, self.scope.dialect)

    def live(self, keys: Iterable[MemoryKey]) -> frozenset[str]:
        """The names of keys as the Routine writes them, with the default sigil."""
        return frozenset(self.scope.default_key(key.name) for key in keys)


def compile_routine(
    routine: Routine,
    tools: Iterable[Tool],
    *,
    dialect: str = "hermes",
    sigil: str = SIGIL,
    routines: Iterable[Routine] = (),
) -> CompiledRoutine:
    """Check a Routine against its tools and make it ready for turns; `routines` are those that its steps may run.

    Raises `RoutineError` with all problems at once, `GrammarError` for an unknown dialect, `SchemaError` for a tool whose
    schema can't be enforced exactly: the first one, `problems_of` tells all. No turn fails on a schema or constant later.
    """
    tools = tuple(tools)
    whole = inlined(routine, {other.name: other for other in routines})
    compiled = _unchecked(whole.routine, tools, dialect, sigil)
    problems = as_problems(routine, iter(whole.findings)) or check(whole.routine, tools, whole.given)
    if problems:
        raise RoutineError(f"routine {routine.name!r} has {len(problems)} problem(s):", tuple(map(str, problems)))
    for fault in faults(compiled.scope, compiled.key_types, _require_automaton):
        raise fault.error
    return compiled


def problems_of(
    routine: Routine,
    tools: Iterable[Tool],
    *,
    dialect: str = "hermes",
    sigil: str = SIGIL,
    routines: Iterable[Routine] = (),
) -> tuple[Problem, ...]:
    """Everything for which `compile_routine` refuses a Routine, by line: what `check` finds and what no grammar can hold.

    Raises `GrammarError` for an unknown dialect, `RoutineError` for a malformed sigil.
    """
    tools = tuple(tools)
    whole = inlined(routine, {other.name: other for other in routines})
    compiled = _unchecked(whole.routine, tools, dialect, sigil)
    missing = as_problems(routine, iter(whole.findings))
    told = {(problem.step, problem.field) for problem in missing}
    checked = check(whole.routine, tools, whole.given)
    found = [*missing, *(problem for problem in checked if (problem.step, problem.field) not in told)]
    told |= {(problem.step, problem.field) for problem in found}
    for fault in faults(compiled.scope, compiled.key_types, _require_automaton):
        path = path_of(fault.step) if fault.step is not None else ()
        message = str(fault.error)
        if fault.step is not None and fault.argument is not None:
            path = (*path, "arguments", fault.argument)
            message = f"tool {whole.routine.step(fault.step).tool!r}: {message}"
        problem = problem_at(routine.name, path, message, routine.origin)
        if fault.argument is None or (problem.step, problem.field) not in told:
            found.append(problem)
    return tuple(sorted(found, key=lambda problem: problem.line or 0))


def _unchecked(routine: Routine, tools: tuple[Tool, ...], dialect: str, sigil: str) -> CompiledRoutine:
    if not (sigil.isascii() and sigil.isidentifier()):
        raise RoutineError(f"sigil {sigil!r:.80}: expected an identifier of ASCII letters, digits and '_', such as {SIGIL!r}")
    scope = TurnScope(Graph.of(routine), {tool.name: tool for tool in tools}, load_dialect(dialect), sigil)
    types = key_types(scope.graph, tools)
    return CompiledRoutine(routine, scope, {**types, **_item_types(scope.graph, types)})


def _item_types(graph: Graph, types: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Mapping[str, Any] | None]:
    """The types of the list items that may have keys of their own; raises `GrammarTooLargeError` for too many."""
    count = sum(len(graph.items_of(key)) for key in types)
    if count > MAX_ITEM_KEYS:
        raise GrammarTooLargeError(f"items of lists may have {count} memory keys; the bound is {MAX_ITEM_KEYS}")
    found = {}
    for key, whole in types.items():
        for item in graph.items_of(key):
            try:
                found[f"{key}_{item}"] = item_type(whole, item)
            except SchemaError:
                break  # a type that can't be looked into is a finding of `check`
    return found


def with_known_formats(tools: Iterable[Tool]) -> tuple[Tool, ...]:
    """Tools without the formats of their arguments that can't be enforced, with a `SchemaWarning` for each such tool."""
    return tuple(
        replace(tool, input_schema=without_unknown_formats(tool.input_schema, f"tool {tool.name!r}: ")) for tool in tools
    )


def compile_schema(schema: Any, *, ignore_unknown_formats: bool = False) -> Grammar:
    """The grammar of all JSON texts valid against a schema.

    Raises `UnsupportedSchemaError`, with keyword and pointer, for what can't be enforced exactly or passes a bound, and
    `SchemaError` for what is no schema or allows no value. A `format` that is not known is declined, or with
    `ignore_unknown_formats` not enforced and told by a `SchemaWarning`.
    """
    schema = without_unknown_formats(schema) if ignore_unknown_formats else schema
    with bounded():
        grammar = Grammar(schema_to_grammar(schema), schema=schema)
        with declining(schema):
            _require_automaton(grammar.tree, grammar._automaton)
    return grammar


def _require_automaton(tree: Tree, automaton: Automaton | None = None) -> None:
    """Raise `GrammarError` or `UnsupportedSchemaError` where no automaton holds a grammar: now, not as a text comes to it."""
    (automaton or Automaton(tree)).require_clear()
    require_enough(tree)


def compile_lark(text: str) -> Grammar:
    """A grammar from Lark text, beginning at `start`; raises `GrammarError` for what is malformed or not supported."""
    with bounded():
        grammar = Grammar(read_lark(text))
        grammar._automaton.require_clear()
    return grammar


def compile_regex(pattern: str) -> Grammar:
    """The grammar of all texts that `re.fullmatch` finds a regular expression to match.

    Raises `GrammarError` where it can't be compiled: it is no regular expression, looks around or refers back (as atomic groups
    and possessive quantifiers do), has the flag `m`, or matches nothing; `GrammarTooLargeError` past a bound.
    """
    with bounded():
        grammar = Grammar(Tree(Leaf("PATTERN", terminal_of(pattern))))
        grammar._automaton.require_clear()
    return grammar
