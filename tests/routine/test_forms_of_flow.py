"""Repetitions, calls in parallel, other Routines and errors: the graph agrees with an interpreter of the nested steps."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from itertools import product

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routine_grammar.routine import Branch, Graph, Routine, Step, branches_around, read_position
from routine_grammar.routine.graph import Loop
from routine_grammar.routine.positions import place_name
from tests.routine.interpreter import Option, World, beginning
from tests.routine.random_routines import random_routine
from tests.routine.strategies import routines
from tests.scale import SCALE

KINDS = (*("repeated", "again", "left a repetition", "in parallel", "in parallel, repeated", "of another routine", "failed"),)


def branches_of(routine: Routine, step: Step) -> list[Branch]:
    """The branches that a step stands in."""
    return [routine.step(check).branches[number - 1] for check, number in branches_around(step.id)]


def kinds(graph: Graph, chosen: Option, position: str) -> set[str]:
    """What a call that was chosen shows."""
    assert chosen.step is not None
    return {
        *(["repeated"] if chosen.item is not None else []),
        *(["again"] if chosen.item else []),
        *(["left a repetition"] if chosen.left else []),
        *(["in parallel"] if len(graph.position(position).done) > 1 else []),
        *(["in parallel, repeated"] if graph.position(position).done and chosen.item is not None else []),
        *(["of another routine"] if any(branch.runs for branch in branches_of(graph.routine, chosen.step)) else []),
    }


def world_of(routine: Routine, rng: random.Random) -> World:
    """Lists as long as their repetitions allow, and calls that fail."""
    lengths: dict[str, int] = {}
    for step in routine:
        for branch in step.branches:
            if branch.for_each is not None:
                longest = min(branch.for_each.most, 3, lengths.get(branch.for_each.over, 3))
                lengths[branch.for_each.over] = rng.randint(0, longest)
    places = product((step.id for step in routine), (None, 0, 1, 2))
    return World(lengths, frozenset(place for place in places if rng.random() < 0.3))


def keys_of_call(step: Step, item: int | None, failed: bool) -> set[str]:
    suffix = "" if item is None else f"_{item}"
    names = ["error"] if failed else [variable.name for variable in step.written]
    return {f"memory_{step.id}_{name}{suffix}" for name in names}


def lists_of(routine: Routine, loop: str, length: int, live: set[str]) -> set[str]:
    """The keys of the lists that a repetition leaves behind."""
    inside = [step for step in routine if step.id.startswith(f"{loop}_")]
    keys = {f"memory_{step.id}_{variable.name}" for step in inside for variable in step.written}
    return {key for key in keys if all(f"{key}_{item}" in live for item in range(length))}


def surely_left(chosen: Option, ways: list[Option]) -> set[str]:
    """The repetitions that are done however the call was come to: which way was taken past no call at all, nobody can tell."""
    alike = [way for way in ways if (way.step, way.item) == (chosen.step, chosen.item)]
    return set.intersection(*(set(way.left) for way in alike))


@settings(max_examples=150 * SCALE, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(routines(), st.integers(0, 1 << 30))
def test_every_run_is_one_that_the_interpreter_allows(routine: Routine, seed: int) -> None:
    carried_out(routine, seed)


def test_every_run_of_routines_of_every_form_is_one_that_the_interpreter_allows() -> None:
    seen: Counter[str] = Counter()
    for seed in range(300 * SCALE):
        routine = random_routine(random.Random(seed))
        seen.update(carried_out(routine, seed))
    assert min(seen[kind] for kind in KINDS) > 20, seen


def carried_out(routine: Routine, seed: int) -> Counter[str]:
    """Carry a Routine out at random, holding the graph against the interpreter; return what was met."""
    seen: Counter[str] = Counter()
    rng = random.Random(seed)
    world, graph = world_of(routine, rng), Graph.of(routine)
    loops = {loop.branch: loop for loop in graph.loops.values()}
    items = {f"{over}_{item}" for over, length in world.lengths.items() for item in range(length)}
    live = {f"memory_input_{variable.name}" for variable in routine.inputs} | items
    position, options = "start", beginning(routine, world)
    for _ in range(40):
        written(graph, position, live, loops)
        found = graph.successors(position, live)
        calls = {(step.id, move.item) for move in found.moves for step in move.callable}
        assert calls == {(option.step.id, option.item) for option in options if option.step is not None}
        assert found.may_end == any(option.step is None for option in options)
        ways = [option for option in options if option.step is not None]
        if not ways:
            break
        chosen: Option = rng.choice(ways)
        assert chosen.step is not None
        for loop in surely_left(chosen, ways):
            live |= lists_of(routine, loop, world.lengths[loops[loop].over], live)
        (move,) = [move for move in found.moves if chosen.step in move.callable and move.item == chosen.item]
        position = str(move.after(chosen.step))
        assert str(graph.position(position)) == position == str(read_position(position)) or "_" in position
        assert place_name(position)
        seen.update(kinds(graph, chosen, position))
        failed = chosen.step.handles_errors and (chosen.step.id, chosen.item) in world.failing
        seen["failed"] += failed
        live |= keys_of_call(chosen.step, chosen.item, failed)
        options = chosen.behind()
    return seen


def written(graph: Graph, position: str, live: set[str], loops: Mapping[str, Loop]) -> None:
    """What the graph says is always written is live, and what is live is sometimes written."""
    always, sometimes = graph.keys_before(position)
    around = graph.loop_of(graph.position(position).node)
    item = graph.position(position).item
    for key in always:
        step = key.removeprefix("memory_")
        is_own = around is not None and around.has(step)
        assert (f"{key}_{item}" if is_own else key) in live, (position, key)
    assert live <= {*graph.names_before(position), *(key for key in live if key.rpartition("_")[2].isdecimal())}, position
    assert always <= sometimes


def test_a_list_without_items_leaves_the_empty_lists_of_what_only_ends_the_routine() -> None:
    steps = (
        "{name: a, tool: t, branches: [{for_each: {over: memory_input_x, most: 2}, steps: ["
        "{name: b, tool: t, branches: [{if: x, steps: [{name: stop, tool: t, finish: true}]}]}]}]}"
    )
    graph = Graph.of(Routine.parse(f"name: r\ninputs: {{x: {{type: array}}}}\nsteps: [{steps}, {{name: c, tool: t}}]\n"))
    assert [outputs for _, outputs in graph.lists_left("1", set())] == [["memory_1-1_1_result", "memory_1-1_1-1_1_result"]]
    always, sometimes = graph.keys_before("2")
    assert sometimes - always == {"memory_1-1_1-1_1_result"}
