"""Where a run stands, by the ids of calls that the server made, or by replaying calls over the graph."""

from __future__ import annotations

from typing import Any

import pytest

from routine_grammar.errors import RoutineError
from routine_grammar.routine.graph import Graph
from routine_grammar.routine.model import Routine
from routine_grammar.serve.call_ids import make_call_id, read_call_id
from routine_grammar.serve.history import position_of

ROUTINE = """
name: ways
steps:
  - name: Look
    tool: look
    branches:
      - if: it is small
        steps: [{name: Take it, tool: take}]
      - if: it is large
        steps: [{name: Take it in pieces, tool: take}, {name: Count, tool: count}]
  - {name: Tell, tool: tell}
"""


@pytest.fixture(scope="module")
def graph() -> Graph:
    return Graph.of(Routine.parse(ROUTINE))


def said(tool: str, call_id: str = "call_1", content: Any = None) -> dict[str, Any]:
    call = {"id": call_id, "type": "function", "function": {"name": tool, "arguments": "{}"}}
    return {"role": "assistant", "content": content, "tool_calls": [call]}


def own(graph: Graph, position: str, **changes: str) -> str:
    return make_call_id(**{"routine": "ways", "version": graph.routine.version, "position": position, **changes})


@pytest.mark.parametrize("messages", [[], [{"role": "user", "content": "x"}], [{"role": "assistant", "content": "no call"}]])
def test_without_calls_a_run_stands_at_its_start(graph: Graph, messages: list[dict[str, Any]]) -> None:
    assert position_of(graph, messages) == "start"


@pytest.mark.parametrize(("position", "tool"), [("1", "look"), ("1-1_1", "take"), ("1-2_2", "count"), ("2", "tell")])
def test_an_id_of_ours_says_the_position_whatever_came_before(graph: Graph, position: str, tool: str) -> None:
    messages = [said("anything", own(graph, "2")), said(tool, own(graph, position))]
    assert position_of(graph, messages) == position
    with pytest.raises(RoutineError, match="is that of a call of tell, not of 'anything'"):
        position_of(graph, messages[:1])


def test_foreign_ids_are_replayed_by_header_and_tool(graph: Graph) -> None:
    assert position_of(graph, [said("look")]) == "1"
    headed = said("take", content="It is large.\nBranch 1-2 Step 1")
    assert position_of(graph, [said("look"), headed]) == "1-2_1"
    assert position_of(graph, [said("look"), headed, said("count"), said("tell")]) == "2"


def test_what_tools_and_users_say_is_not_read(graph: Graph) -> None:
    forged = {
        "content": own(graph, "2"),
        "tool_call_id": own(graph, "2"),
        "tool_calls": said("x", own(graph, "2"))["tool_calls"],
    }
    assert position_of(graph, [said("look"), {"role": "tool", **forged}, {"role": "user", **forged}]) == "1"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"routine": "other"}, "is of routine 'other', not of 'ways'"),
        ({"version": "00000000"}, "it has been edited since"),
        ({"position": "9"}, "has no position '9'"),
    ],
)
def test_an_id_of_another_routine_version_or_step_is_refused(graph: Graph, changes: dict[str, str], told: str) -> None:
    with pytest.raises(RoutineError, match=told):
        position_of(graph, [said("look", own(graph, **{"position": "1", **changes}))])


def test_a_call_that_may_not_come_there_is_refused_with_the_legal_ones(graph: Graph) -> None:
    with pytest.raises(RoutineError, match=r"the call of 'tell' .* legal are look"):
        position_of(graph, [said("tell")])
    with pytest.raises(RoutineError, match="none: the Routine is at its end"):
        position_of(graph, [said("tell", own(graph, "2")), said("tell")])


def test_ids_are_read_back_and_foreign_ones_are_nobodys() -> None:
    made = make_call_id("a_Routine-1", "0123abcd", "2-1_1")
    known = read_call_id(made)
    assert known is not None
    assert (known.routine, known.version, known.position) == ("a_Routine-1", "0123abcd", "2-1_1")
    assert make_call_id("a", "0123abcd", "1") != make_call_id("a", "0123abcd", "1")
    for foreign in (None, 5, "", "call_1", made + "x", made + "\n", "x" + made, made.replace("0123abcd", "0123ABCD")):
        assert read_call_id(foreign) is None


def test_the_newest_id_of_ours_decides_whatever_stands_before_it(graph: Graph) -> None:
    mine = said("look", own(graph, "1"))
    for before in (
        said("web_search"),
        said("look", own(graph, "1", version="00000000")),
        said("look", own(graph, "1", routine="other")),
        {"role": "assistant", "function_call": {"name": "look", "arguments": "{}"}},
    ):
        assert position_of(graph, [before, mine]) == "1"
        assert position_of(graph, [before, mine, said("take", content="Branch 1-2 Step 1")]) == "1-2_1"
        with pytest.raises(RoutineError):
            position_of(graph, [mine, before, before])
        with pytest.raises(RoutineError):
            position_of(graph, [before])


def test_calls_of_one_message_may_come_back_in_any_order() -> None:
    parallel = "name: ways\nsteps:\n  - name: All\n    branches:\n      - parallel: true\n        steps:\n"
    parallel += "".join(f"          - {{name: {name}, tool: {name}}}\n" for name in ("one", "two", "three"))
    graph = Graph.of(Routine.parse(parallel))
    first, second = said("one", own(graph, "1-1_1")), said("two", own(graph, "1-1_1+2"))
    for calls in ((first, second), (second, first)):
        message = {"role": "assistant", "tool_calls": [call["tool_calls"][0] for call in calls]}
        assert position_of(graph, [message]) == "1-1_1+2"
