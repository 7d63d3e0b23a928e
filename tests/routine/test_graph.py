"""The position graph agrees with a brute-force interpreter of the nested steps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routine_grammar.errors import RoutineError
from routine_grammar.routine import MAX_NESTING, Branch, Graph, Routine, Step, Variable

Run = tuple[Step, ...]

TOOL_STEPS = st.builds(Step, id=st.just(""), name=st.just("s"), tool=st.just("t"), finish=st.booleans())


def branching(blocks: st.SearchStrategy[tuple[Step, ...]]) -> st.SearchStrategy[Step]:
    branches = st.builds(
        lambda steps, last: (
            tuple(Branch("c", steps=each) for each in steps) + ((Branch(otherwise=True, steps=last),) if last else ())
        ),
        st.lists(blocks, max_size=2),
        st.none() | blocks,
    ).filter(bool)
    return st.builds(Step, id=st.just(""), name=st.just("b"), tool=st.sampled_from([None, "t"]), branches=branches)


def blocks(nesting: int) -> st.SearchStrategy[tuple[Step, ...]]:
    steps = TOOL_STEPS if not nesting else TOOL_STEPS | branching(blocks(nesting - 1))
    return st.lists(steps, min_size=1, max_size=3 if nesting == 2 else 2).map(tuple)


ROUTINES = st.builds(Routine, name=st.just("r"), inputs=st.just((Variable("x"),)), steps=blocks(2))


def runs(steps: tuple[Step, ...]) -> Iterator[tuple[Run, bool]]:
    """Yield every run of a block: the steps done with a tool, and whether the Routine was finished."""
    if not steps:
        yield (), False
        return
    first, rest = steps[0], steps[1:]
    done = (first,) if first.tool else ()
    if first.finish:
        yield done, True
        return
    choices = [branch.steps for branch in first.branches]
    if not any(branch.otherwise for branch in first.branches):
        choices.append(())
    for chosen in choices:
        for inner, finished in runs(chosen):
            if finished:
                yield done + inner, True
            else:
                for after, ended in runs(rest):
                    yield done + inner + after, ended


def keys_of(run: Run) -> set[str]:
    return {"memory_input_x"} | {f"memory_{step.id}_result" for step in run}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ROUTINES)
def test_the_graph_agrees_with_every_run(routine: Routine) -> None:
    graph = Graph.of(routine)
    following: dict[str, set[str]] = {"start": set()}
    ends: set[str] = set()
    prefixes: dict[str, list[set[str]]] = {"start": [keys_of(())]}
    for run, _ in runs(routine.steps):
        positions = ["start", *(step.id for step in run)]
        for index, position in enumerate(positions[1:]):
            following.setdefault(positions[index], set()).add(position)
            prefixes.setdefault(position, []).append(keys_of(run[: index + 1]))
        ends.add(positions[-1])
    for position, written in prefixes.items():
        found = graph.successors(position)
        assert {step.id for step in found.steps} == following.get(position, set())
        assert found.may_end == (position in ends)
        assert graph.keys_before(position) == (
            frozenset.intersection(*map(frozenset, written)),
            frozenset().union(*written),
        )


def step(name: str, *branches: Branch, tool: str | None = "t", finish: bool = False) -> Step:
    return Step("", name, tool=tool, branches=branches, finish=finish)


TRIAGE = Routine(
    "triage",
    inputs=(Variable("x"),),
    steps=(
        step("look"),
        step(
            "check",
            Branch("dirty", steps=(step("show"), step("stop", finish=True))),
            Branch("odd", steps=(step("ask"),)),
            tool=None,
        ),
        step("report"),
    ),
)


def successors(position: str) -> tuple[list[str], bool]:
    found = Graph.of(TRIAGE).successors(position)
    return [each.id for each in found.steps], found.may_end


def test_a_check_is_passed_through() -> None:
    assert Graph.of(TRIAGE).positions == ("start", "1", "2-1_1", "2-1_2", "2-2_1", "3")
    assert successors("start") == (["1"], False)
    assert successors("1") == (["2-1_1", "2-2_1", "3"], False)
    assert successors("2-1_2") == ([], True)
    assert successors("2-2_1") == (["3"], False)
    assert successors("3") == ([], True)


def test_keys_on_every_and_on_some_path() -> None:
    always, sometimes = Graph.of(TRIAGE).keys_before("3")
    assert always == {"memory_input_x", "memory_1_result", "memory_3_result"}
    assert sometimes == always | {"memory_2-2_1_result"}


def test_variables_are_the_inputs_and_all_outputs() -> None:
    routine = Routine("r", inputs=(Variable("x"),), steps=(Step("", "a", tool="t", outputs=(Variable("y"),)), step("b")))
    assert list(Graph.of(routine).variables) == ["memory_input_x", "memory_1_y", "memory_2_result"]


def test_an_unreachable_step_keeps_a_position() -> None:
    graph = Graph.of(Routine("r", steps=(step("a", finish=True), step("b"))))
    assert graph.successors("2").may_end
    assert graph.keys_before("2") == (frozenset({"memory_2_result"}), frozenset({"memory_2_result"}))


@pytest.mark.parametrize("position", ["2", "4", "", "2-1_3", "x" * 1000])
def test_an_unknown_position_names_the_known_ones(position: str) -> None:
    graph = Graph.of(TRIAGE)
    with pytest.raises(RoutineError, match="its positions are start, 1, 2-1_1"):
        graph.successors(position)
    with pytest.raises(RoutineError, match="has no position"):
        graph.keys_before(position)


def test_a_routine_that_only_checks_may_end_at_once() -> None:
    routine = Routine("r", steps=(step("c", Branch("x", steps=(step("a"),)), tool=None),))
    found = Graph.of(routine).successors("start")
    assert ([each.id for each in found.steps], found.may_end) == (["1-1_1"], True)


def nested(depth: int) -> Routine:
    block = (step("inner"),)
    for _ in range(depth):
        block = (step("outer", Branch("c", steps=block)),)
    return Routine("r", steps=block)


def test_nesting_is_bounded() -> None:
    assert len(Graph.of(nested(MAX_NESTING)).positions) == MAX_NESTING + 2
    with pytest.raises(RoutineError, match=f"branches are nested deeper than {MAX_NESTING}"):
        nested(MAX_NESTING + 1)


def test_1000_steps() -> None:
    routine = Routine("r", steps=tuple(step(f"s{i}", Branch("c", steps=(step("x"),)), tool="t") for i in range(500)))
    graph = Graph.of(routine)
    assert len(graph.keys_before("500")[0]) == 500
    assert len(graph.keys_before("500")[1]) == 999


def test_steps_are_numbered_whatever_ids_they_are_given() -> None:
    routine = Routine("r", steps=(Step("9", "a", branches=(Branch("c", steps=(Step("a", "b", tool="t"),)),)),))
    assert [each.id for each in routine] == ["1", "1-1_1"]
    assert routine.step("1-1_1").name == "b"
    with pytest.raises(RoutineError, match=r"no step '1-1_2'; did you mean '1-1_1'"):
        routine.step("1-1_2")


def test_a_list_that_is_too_long_is_told_before_anything_of_it_is_done() -> None:
    text = "name: a\nsteps:\n  - {name: l, tool: l, outputs: {ids: {pointer: /ids, type: array}}, branches: [{for_each: "
    graph = Graph.of(Routine.parse(text + "{over: memory_1_ids, most: 2}, steps: [{name: t, tool: t}]}]}\n"))
    live = {"memory_1_ids", "memory_1_ids_0", "memory_1_ids_1"}
    assert graph.successors("1", live).steps[0].tool == "t"
    with pytest.raises(RoutineError, match="memory_1_ids has more than 2 items"):
        graph.successors("1", live | {"memory_1_ids_2"})
