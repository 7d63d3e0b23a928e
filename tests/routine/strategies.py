"""Hypothesis strategies for well-formed Routines, with texts that try to break the written forms."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from hypothesis import strategies as st

from routine_grammar.routine import (
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

_COIN = st.booleans()
_FRAGMENTS = [
    *("use the ", "Use the git tool.", " tool.", "tool", ", ", "; ", ": ", '"', "(", ")", "`", "\\", "\n", "\t", " "),
    *("Step 2.", "If ", "Otherwise,", "</routines>", "<routines>", "#", "- ", "null", "yes", "1e5", "~", "é", "\u2028"),
    *(
        "\x85",
        "\x00",
        "\ufeff",
        "😀",
        "a",
        "b.",
        "0",
        "{",
        "}",
        "key",
        "constant 1",
        "at /x",
        "<<",
        "=",
        "&a",
        "*a",
        "!t",
    ),
]


@cache
def texts(min_size: int = 0) -> st.SearchStrategy[str]:
    characters = st.characters(exclude_categories=["Cs"])
    fragments = st.lists(st.sampled_from(_FRAGMENTS), min_size=min_size, max_size=5).map("".join)
    return st.text(characters, min_size=min_size, max_size=8) | fragments


@cache
def step_names() -> st.SearchStrategy[str]:
    return texts(1).map(lambda text: said("".join(filter(str.isprintable, text))))


def said(text: str) -> str:
    return text if text.strip() else text + "x"


@cache
def json_values() -> st.SearchStrategy[Any]:
    scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts()
    return st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(), inner, max_size=3), max_leaves=5
    )


@cache
def schemas() -> st.SearchStrategy[dict[str, Any]]:
    leaf: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
        [
            {},
            {"type": "string"},
            {"type": "integer", "minimum": 0},
            {"type": ["string", "null"], "description": "the schema's own"},
            {"enum": ["a", 1, None]},
            {"const": {"schema": 1}},
            {"schema": "an unknown keyword"},
            {"pointer": "an unknown keyword", "type": "boolean"},
        ]
    )
    return leaf | leaf.map(lambda items: {"type": "array", "items": items})


@cache
def names() -> st.SearchStrategy[str]:
    return st.sampled_from(["status", "repo_path", "x", "top_10_files", "a1", "result", "a__b"])


@cache
def variables(*, pointers: bool) -> st.SearchStrategy[tuple[Variable, ...]]:
    pointer = st.sampled_from(["", "/x", "/a b/0", '/"(:~1'] if pointers else [""])
    variable = st.builds(Variable, names(), st.none() | schemas(), texts(), pointer)
    return st.lists(variable, max_size=2, unique_by=lambda each: each.name).map(tuple)


@cache
def sources() -> st.SearchStrategy[Source]:
    keys = st.builds(Key, st.just("memory_input_x") | texts())
    return st.builds(Constant, json_values()) | keys | st.builds(AnyKey) | st.builds(Literal) | st.builds(Omit)


@cache
def blocks(nesting: int = 2, looped: bool = False) -> st.SearchStrategy[tuple[Step, ...]]:
    return st.lists(steps(nesting, looped), min_size=1, max_size=3).map(tuple)


@st.composite
def steps(draw: st.DrawFn, nesting: int, looped: bool) -> Step:
    branches: tuple[Branch, ...] = ()
    if nesting and draw(_COIN):
        branches = draw(branch_lists(nesting, looped))
    name, description = draw(step_names()), draw(texts())
    if (draw(_COIN) and branches) or any(branch.runs is not None for branch in branches):
        return Step("", name, description, branches=branches)
    if not branches and not draw(st.integers(0, 7)):
        arguments = draw(st.dictionaries(texts(), st.builds(Constant, json_values()), max_size=2))
        return Step("", name, description, routine=draw(st.sampled_from(["other", "A-b"])), arguments=arguments)
    if not branches or all(branch.is_alternative for branch in branches):
        branches += draw(error_branches(nesting, looped))
    return draw(calls(name, description, branches, looped))


@st.composite
def calls(draw: st.DrawFn, name: str, description: str, branches: tuple[Branch, ...], looped: bool) -> Step:
    own = sources() | st.builds(Item, st.none() | st.just("memory_input_x")) if looped else sources()
    return Step(
        "",
        name,
        description,
        tool=draw(st.sampled_from(["git_status", "a.b/c-d", "odd `tool`", "x"])),
        arguments=draw(st.dictionaries(st.sampled_from(["repo_path", "a b", "k:"]) | texts(), own, max_size=2)),
        outputs=draw(variables(pointers=True)),
        branches=branches,
        finish=draw(_COIN) and all(branch.on_error for branch in branches),
    )


@st.composite
def error_branches(draw: st.DrawFn, nesting: int, looped: bool) -> tuple[Branch, ...]:
    if not nesting or draw(st.integers(0, 3)):
        return ()
    return (Branch(on_error=True, steps=draw(blocks(nesting - 1, looped))),)


@st.composite
def branch_lists(draw: st.DrawFn, nesting: int, looped: bool) -> tuple[Branch, ...]:
    match draw(st.sampled_from(["if", "if", "if", "parallel", "for_each", "runs"])):
        case "parallel":
            call = st.tuples(step_names(), texts()).flatmap(lambda said: calls(*said, (), looped))
            optional = st.builds(lambda step, is_optional: replace(step, finish=False, optional=is_optional), call, _COIN)
            return (Branch(parallel=True, steps=tuple(draw(st.lists(optional, min_size=2, max_size=3)))),)
        case "for_each" if not looped:
            first = draw(st.tuples(step_names(), texts()).flatmap(lambda said: calls(*said, (), True)))
            repetition = Repetition(draw(st.sampled_from(["memory_input_x", "memory_1_result"])), draw(st.integers(1, 9)))
            return (Branch(for_each=repetition, steps=(first, *draw(blocks(nesting - 1, True)))),)
        case "runs":
            return (Branch(runs="inner", steps=draw(blocks(nesting - 1, looped))),)
    listed = draw(st.lists(st.builds(Branch, texts().map(said), steps=blocks(nesting - 1, looped)), min_size=1, max_size=2))
    if draw(_COIN):
        listed.append(Branch(otherwise=True, steps=draw(blocks(nesting - 1, looped))))
    return tuple(listed)


@cache
def routines(nesting: int = 2) -> st.SearchStrategy[Routine]:
    return st.builds(
        Routine,
        name=st.sampled_from(["triage", "A-b_c"]),
        description=texts(),
        inputs=variables(pointers=False),
        steps=blocks(nesting),
        thought=st.builds(Thought, st.integers(0, 300), st.integers(0, 300)),
        header=st.sampled_from(Header),
    )
