"""Routines as pictures."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from hypothesis import HealthCheck, given, settings

from routine_grammar.routine import START, Graph, Problem, Routine, check, to_mermaid, to_svg
from routine_grammar.routine.drawing import edges
from tests.routine.strategies import routines
from tests.routine.test_written_forms import YAML

SVG = "{http://www.w3.org/2000/svg}"


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(routines())
def test_edges_lead_where_the_graph_does(routine: Routine) -> None:
    following: dict[str, set[str]] = {}
    for edge in edges(routine):
        following.setdefault(edge.source, set()).add(edge.target)
    graph = Graph.of(routine)
    checks = {step.id for step in routine if step.tool is None} | set(graph.loops)
    parallel = {call.id for step in routine for branch in step.branches if branch.parallel for call in branch.steps}
    for position in (START, *(step.id for step in routine if step.tool is not None and step.id not in parallel)):
        reached, todo = set[str](), list(following[position])
        while todo:
            target = todo.pop()
            if target not in reached:
                reached.add(target)
                todo += following[target] if target in checks else ()
        successors = graph.successors(position)
        assert reached - checks - {"end"} == {step.id for step in successors.steps}
        assert ("end" in reached) == successors.may_end


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(routines())
def test_every_step_is_drawn_once_and_inside_the_picture(routine: Routine) -> None:
    root = ElementTree.fromstring(to_svg(routine))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    background, *frames = root.iter(f"{SVG}rect")
    assert background.attrib["width"] == "100%"
    boxes = [{name: float(box.attrib[name]) for name in ("x", "y", "width", "height")} for box in frames]
    assert len(boxes) == len(list(routine))
    for number, box in enumerate(boxes):
        assert box["x"] >= 0 <= box["y"]
        assert box["x"] + box["width"] <= width
        assert box["y"] + box["height"] <= height
        for other in boxes[:number]:
            apart = (
                box["x"] >= other["x"] + other["width"]
                or other["x"] >= box["x"] + box["width"]
                or box["y"] >= other["y"] + other["height"]
                or other["y"] >= box["y"] + box["height"]
            )
            assert apart
    texts = "".join(text.text or "" for text in root.iter(f"{SVG}text"))
    for step in routine:
        assert "".join(step.name.split()) in "".join(texts.split())


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(routines())
def test_no_text_means_anything_to_mermaid(routine: Routine) -> None:
    bare = re.sub(r'"[^"\n]*"', '""', to_mermaid(routine))
    for line in bare.splitlines()[1:]:
        assert re.fullmatch(r'    p_\w+ -->(\|""\|)? p_\w+|    p_\w+(\[""\]|\{\{""\}\}|\(\[""\]\)|\(\( \)\))', line), line


def test_problems_are_marked_on_their_steps() -> None:
    routine = Routine.parse(YAML)
    problems = check(routine, [])
    mermaid = to_mermaid(routine, problems)
    assert mermaid.count(":::problem") == 4
    assert "tool: unknown tool 'git_diff'" in mermaid
    svg = ElementTree.fromstring(to_svg(routine, [*problems, Problem(routine.name, None, "tools", "two are named <x>")]))
    assert sum("bad" in box.attrib.get("class", "") for box in svg.iter(f"{SVG}rect")) == 4
    assert "⚠ tools: two are named <x>" in [text.text for text in svg.iter(f"{SVG}text")]
    assert ":::problem" not in to_mermaid(routine)
