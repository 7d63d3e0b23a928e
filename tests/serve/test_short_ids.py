"""Ids of nine letters and digits, as Mistral's templates want them: every position comes back, foreign ids are told apart."""

from __future__ import annotations

import random
import re
import string

import pytest

from routine_grammar import Routine, Tool
from routine_grammar.errors import RoutineError
from routine_grammar.routine.graph import Graph
from routine_grammar.serve.call_ids import MAX_PLACES, LongIds, ShortIds
from routine_grammar.serve.catalogue import load_catalogue
from routine_grammar.serve.history import position_of
from tests.serve.test_history import ROUTINE, said

LOOPS = """
name: %s
steps:
  - name: List
    tool: look
    outputs: {pages: {pointer: /pages, type: array}}
  - name: Each
    branches:
      - for_each: {over: memory_1_pages, most: 1000}
        steps:
          - name: Take
            tool: take
          - name: Both
            branches:
              - parallel: true
                steps:
                  - {name: Count, tool: count}
                  - {name: Tell, tool: tell}
  - {name: End, tool: look}
"""


def loops(name: str = "loops") -> Graph:
    return Graph.of(Routine.parse(LOOPS % name))


def exact(graph: Graph) -> list[str]:
    """Every position, at some items where it is in a repetition."""
    found = []
    for position in graph.positions:
        try:
            found.append(str(graph.position(position)))
        except RoutineError:
            found += [str(graph.position(f"{position}@{item}")) for item in (0, 1, 500, 999)]
    return found


@pytest.mark.parametrize("graph", [loops(), Graph.of(Routine.parse(ROUTINE))], ids=["loops", "ways"])
def test_every_position_comes_back(graph: Graph) -> None:
    ids, seen = ShortIds(graph), set[str]()
    positions = exact(graph)
    for position in positions:
        made = ids.make(position)
        assert re.fullmatch("[a-zA-Z0-9]{9}", made)
        known = ids.read(made)
        assert known is not None
        assert (known.routine, known.version, known.position) == (graph.routine.name, graph.routine.version, position)
        done = graph.steps_at(graph.position(position))
        for step in done:
            assert position_of(graph, [said(str(step.tool), made)], ids) == position
        with pytest.raises(RoutineError, match="is that of a call of"):
            position_of(graph, [said("anything", made)], ids)
        seen.add(made)
    assert len(seen) == len(positions)
    assert len({ids.make(positions[1]) for _ in range(200)}) > 190  # of 2**28 by the number of places there are
    assert ids.read(ids.unknown) is None


def test_foreign_ids_are_nobodys() -> None:
    ids, rng = ShortIds(loops()), random.Random(0)
    random_ids = ["".join(rng.choices(string.ascii_letters + string.digits, k=9)) for _ in range(50_000)]
    assert sum(ids.read(each) is not None for each in random_ids) < 20  # one of 8,192 is expected
    for foreign in (None, 5, "", "call_1", "é23456789", ids.make("1") + "x", LongIds(loops()).make("1")):
        assert ids.read(foreign) is None
    assert ShortIds(loops("other")).read(ids.make("1")) is None


def test_an_id_of_an_edit_that_is_not_told_leads_nowhere_that_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ShortIds, "_version", lambda ids: 7)  # as of one in 4,096 edits
    few, many = (ShortIds(Graph.of(Routine.parse((LOOPS % "loops").replace("1000", most)))) for most in ("10", "1000"))
    for position in exact(many.graph):
        known = few.read(many.make(position))
        if known is not None:
            few.graph.position(known.position)


def test_an_id_of_another_version_is_told_so() -> None:
    graph = Graph.of(Routine.parse(ROUTINE))
    edited = Graph.of(Routine.parse(ROUTINE.replace("Count", "Count them")))
    made = ShortIds(graph).make("1-1_1")
    with pytest.raises(RoutineError, match="it has been edited since"):
        position_of(edited, [said("look", made)], ShortIds(edited))


def test_foreign_ids_are_replayed() -> None:
    graph = Graph.of(Routine.parse(ROUTINE))
    assert position_of(graph, [said("look", "aB3dE6gH9")], ShortIds(graph)) == "1"


def test_too_many_positions_are_refused_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    routine = Routine.parse(LOOPS % "loops")
    tools = [Tool(name, "", {"type": "object", "properties": {}}) for name in ("look", "take", "count", "tell")]
    assert load_catalogue([routine], tools, "mistral").ids("loops").read("x") is None
    monkeypatch.setattr("routine_grammar.serve.call_ids.MAX_PLACES", 1_000)
    assert MAX_PLACES > 1_000
    with pytest.raises(RoutineError, match=r"1 problem.*\n.*'loops' has \d+ positions.* hold 1000"):
        load_catalogue([routine], tools, "mistral")
    load_catalogue([routine], tools, "hermes")
