"""A Routine as a picture: Mermaid text, and SVG drawn here, with the problems that `check` found marked on its steps."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from routine_grammar.routine.graph import START
from routine_grammar.routine.ids import branch_id, header_of
from routine_grammar.routine.model import Branch, Routine, Step
from routine_grammar.routine.problems import Problem

_END = "end"
_ELSE = "else"
_NEXT_ITEM, _NO_ITEM = "next item", "no item left"


@dataclass(frozen=True, slots=True)
class Edge:
    """A way from one step to the next, under a condition where it has a label; `start` and `end` are no steps."""

    source: str
    target: str
    label: str = ""


def edges(routine: Routine) -> tuple[Edge, ...]:
    """Return the ways through a Routine in document order, checks without a tool and repetitions among the steps."""
    first = routine.steps[0].id if routine.steps else _END
    return (Edge(START, first), *_edges(routine.steps, _END, _END))


def _edges(steps: Sequence[Step], after: str, end: str) -> Iterator[Edge]:
    for index, step in enumerate(steps):
        following = steps[index + 1].id if index + 1 < len(steps) else after
        goes_past = not step.finish
        for number, branch in enumerate(step.branches, 1):
            goes_past &= branch.on_error or (branch.is_alternative and not branch.otherwise)
            yield from _edges_of(step, branch_id(step.id, number), branch, following, end)
        if step.finish:
            yield Edge(step.id, end)
        elif goes_past:
            yield Edge(step.id, following, _ELSE if step.branches else "")


def _edges_of(step: Step, name: str, branch: Branch, following: str, end: str) -> Iterator[Edge]:
    first, label = branch.steps[0].id, _label(branch)
    if branch.for_each is not None:
        yield Edge(step.id, name)
        yield Edge(name, first, _NEXT_ITEM)
        yield from _edges(branch.steps, name, end)
        yield Edge(name, following, _NO_ITEM)
    elif branch.parallel:
        for call in branch.steps:
            yield Edge(step.id, call.id, f"{label}, optional" if call.optional else label)
            yield Edge(call.id, following)
        if all(call.optional for call in branch.steps):
            yield Edge(step.id, following, _ELSE)
    else:
        yield Edge(step.id, first, label)
        yield from _edges(branch.steps, following, following if branch.runs is not None else end)


def _label(branch: Branch) -> str:
    """When a branch is taken."""
    if branch.for_each is not None:
        return f"for each item of {branch.for_each.over}, at most {branch.for_each.most}"
    if branch.runs is not None:
        return f"routine {branch.runs}"
    if branch.condition is not None:
        return f"if {branch.condition}"
    return "otherwise" if branch.otherwise else "on error" if branch.on_error else "in parallel"


def to_mermaid(routine: Routine, problems: Sequence[Problem] = ()) -> str:
    """Return a Mermaid flowchart of a Routine; steps with problems have class `problem` and tell them."""
    told = _by_step(routine, problems)
    lines = ["flowchart TD", f'    {_node_id(START)}(["{_mermaid(routine.name)}"])']
    for step in routine:
        texts = [f"{header_of(step.id)}. {step.name}", *_used(step), *told.get(step.id, ())]
        label = "<br/>".join(_mermaid(text) for text in texts)
        opening, closing = ("{{", "}}") if step.tool is None else ("[", "]")
        mark = ":::problem" if step.id in told else ""
        lines.append(f'    {_node_id(step.id)}{opening}"{label}"{closing}{mark}')
        for number, branch in enumerate(step.branches, 1):
            if branch.for_each is not None:
                lines.append(f'    {_node_id(branch_id(step.id, number))}{{{{"{_mermaid(_label(branch))}"}}}}')
    lines.append(f"    {_node_id(_END)}(( ))")
    for edge in edges(routine):
        label = f'|"{_mermaid(edge.label)}"|' if edge.label else ""
        lines.append(f"    {_node_id(edge.source)} -->{label} {_node_id(edge.target)}")
    if told:
        lines.append("    classDef problem stroke:#c00,stroke-width:3px")
    lines += [f"    %% {_mermaid(text)}" for text in told.get("", ())]
    return "\n".join(lines) + "\n"


def _used(step: Step) -> list[str]:
    """The tool that a step uses, or the Routine that it runs."""
    return [step.tool] if step.tool else [f"routine {step.routine}"] if step.routine else []


def _by_step(routine: Routine, problems: Sequence[Problem]) -> dict[str, list[str]]:
    """The texts of problems by step id, "" for those of none; those inside a Routine that a step runs are that step's."""
    drawn, told = {step.id for step in routine}, dict[str, list[str]]()
    for problem in problems:
        place = problem.step or ""
        while place and place not in drawn:
            place = place.rpartition("-")[0]
        inside = f"{header_of(problem.step)}, " if problem.step and problem.step != place else ""
        field = f"{problem.field}: " if problem.field else ""
        told.setdefault(place, []).append(f"⚠ {inside}{field}{problem.message}")
    return told


def _node_id(step_id: str) -> str:
    return "p_" + step_id.replace("-", "_")


def _mermaid(text: str) -> str:
    """A text with all that means something to Mermaid or HTML as entities, on one line."""
    return "".join(char if char.isalnum() or char in " .,:-_/'()⚠" else f"#{ord(char)};" for char in " ".join(text.split()))


# SVG. A step's branches stand side by side below it and come together again, so that every block is a box.

_LINE, _PAD, _GAP, _COLUMN_GAP, _CHAR = 16, 10, 34, 28, 7.2
_WIDE = 30  # characters
_STYLE = """
text { font: 12px ui-sans-serif, system-ui, sans-serif; fill: #1a1a1a; }
.head { font-weight: 600; } .tool { font-family: ui-monospace, monospace; fill: #0b5cad; } .label { fill: #555; }
.step { fill: #f6f8fa; stroke: #8a9099; } .check { fill: #fff8e1; stroke: #b08900; }
.bad { stroke: #c00; stroke-width: 2.5; } .told { fill: #c00; } .way { fill: none; stroke: #8a9099; stroke-width: 1.4; }
"""


@dataclass(frozen=True, slots=True)
class _Text:
    text: str
    style: str


@dataclass(frozen=True, slots=True)
class _Card:
    """A step's box and, below it, the columns of its branches."""

    lines: tuple[_Text, ...]
    style: str
    columns: tuple[_Column, ...]
    finish: bool

    @property
    def box_width(self) -> float:
        return _width(self.lines)

    @property
    def box_height(self) -> float:
        return len(self.lines) * _LINE + 2 * _PAD

    @property
    def columns_width(self) -> float:
        return sum(column.width for column in self.columns) + _COLUMN_GAP * max(len(self.columns) - 1, 0)

    @property
    def width(self) -> float:
        return max(self.box_width, self.columns_width)

    @property
    def height(self) -> float:
        below = max((column.height for column in self.columns), default=0)
        return self.box_height + (below + _GAP if self.columns else 0)

    @property
    def goes_on(self) -> bool:
        return not self.finish and (not self.columns or any(column.goes_on for column in self.columns))


@dataclass(frozen=True, slots=True)
class _Column:
    """Cards below each other, entered under a label.

    `ends`: what has this label is the end. `comes_back`: the flow goes on behind it, even where a card finishes.
    """

    label: tuple[_Text, ...]
    cards: tuple[_Card, ...]
    ends: bool = False
    comes_back: bool = False
    repeats: bool = False

    @property
    def width(self) -> float:
        return max(_width(self.label), *(card.width for card in self.cards)) if self.cards else _width(self.label)

    @property
    def label_height(self) -> float:
        return len(self.label) * _LINE

    @property
    def height(self) -> float:
        ends = _GAP if self.cards and not self.goes_on else 0
        between = _GAP * max(len(self.cards) - 1, 0)
        return self.label_height + _GAP + sum(card.height for card in self.cards) + between + ends

    @property
    def goes_on(self) -> bool:
        return not self.ends and (self.comes_back or all(card.goes_on for card in self.cards))


def _width(lines: Sequence[_Text]) -> float:
    return max((len(line.text) for line in lines), default=2) * _CHAR + 2 * _PAD


def to_svg(routine: Routine, problems: Sequence[Problem] = ()) -> str:
    """Return a Routine as an SVG document of its own; steps with problems have a red frame and tell them."""
    told = _by_step(routine, problems)
    column = _Column((), tuple(_card(step, told) for step in routine.steps))
    notes = [_Text(line, "told") for text in told.get("", ()) for line in textwrap.wrap(text, 2 * _WIDE)]
    title = (_Text(routine.name, "head"), *notes)
    top = len(title) * _LINE + 2 * _PAD
    width = max(column.width, _width(title)) + 2 * _GAP
    drawing = _Drawing(width, top + column.height + 2 * _GAP)
    drawing.texts(title, _GAP, _PAD)
    drawing.dot(width / 2, top)
    bottom = drawing.column(column, width / 2, top)
    if column.goes_on:
        drawing.way((width / 2, bottom), (width / 2, bottom + _GAP))
        drawing.dot(width / 2, bottom + _GAP)
    return drawing.text()


def _card(step: Step, told: dict[str, list[str]]) -> _Card:
    lines = [_Text(line, "head") for line in textwrap.wrap(f"{header_of(step.id)}. {step.name}", _WIDE)]
    lines += [_Text(line, "tool") for used in _used(step) for line in textwrap.wrap(used, _WIDE) or [""]]
    lines += [_Text(line, "told") for text in told.get(step.id, ()) for line in textwrap.wrap(text, 2 * _WIDE)]
    columns = [column for branch in step.branches for column in _columns(branch, told)]
    if columns and all(branch.on_error or (branch.is_alternative and not branch.otherwise) for branch in step.branches):
        columns.append(_Column(tuple(_labelled(_END if step.finish else _ELSE)), (), ends=step.finish))
    style = ("check" if step.tool is None else "step") + (" bad" if step.id in told else "")
    return _Card(tuple(lines), style, tuple(columns), step.finish and not columns)


def _columns(branch: Branch, told: dict[str, list[str]]) -> Iterator[_Column]:
    """The columns of a branch: of calls in parallel, one each."""
    if branch.parallel:
        for call in branch.steps:
            label = f"{_label(branch)}, optional" if call.optional else _label(branch)
            yield _Column(tuple(_labelled(label)), (_card(call, told),))
        return
    cards = tuple(_card(inner, told) for inner in branch.steps)
    comes_back = branch.for_each is not None or branch.runs is not None
    yield _Column(tuple(_labelled(_label(branch))), cards, comes_back=comes_back, repeats=branch.for_each is not None)


def _labelled(text: str) -> Iterator[_Text]:
    for line in textwrap.wrap(text, _WIDE):
        yield _Text(line, "label")


class _Drawing:
    """An SVG document under way; every method draws below `top`, around the middle `x`."""

    def __init__(self, width: float, height: float) -> None:
        size = {"width": f"{width:.0f}", "height": f"{height:.0f}", "viewBox": f"0 0 {width:.0f} {height:.0f}"}
        self._root = ElementTree.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img", **size})
        ElementTree.SubElement(self._root, "style").text = _STYLE
        arrow = {"id": "arrow", "viewBox": "0 0 8 8", "refX": "7", "refY": "4", "markerWidth": "8", "markerHeight": "8"}
        marker = ElementTree.SubElement(ElementTree.SubElement(self._root, "defs"), "marker", {**arrow, "orient": "auto"})
        ElementTree.SubElement(marker, "path", {"d": "M0,0 L8,4 L0,8 z", "fill": "#8a9099"})
        self._add("rect", width="100%", height="100%", fill="#ffffff")

    def text(self) -> str:
        return ElementTree.tostring(self._root, encoding="unicode") + "\n"

    def column(self, column: _Column, x: float, top: float) -> float:
        """Draw a column and return where it ends."""
        self.texts(column.label, x - _width(column.label) / 2 + _PAD, top)
        y = top + column.label_height
        reached = True
        for card in column.cards:
            if reached:
                self.way((x, y), (x, y + _GAP), arrow=True)
            y = self.card(card, x, y + _GAP)
            if card.finish:
                self.way((x, y), (x, y + _GAP / 2))
                self.dot(x, y + _GAP / 2)
            reached = reached and card.goes_on
        return y

    def card(self, card: _Card, x: float, top: float) -> float:
        """Draw a step and its branches and return where they end."""
        left = x - card.box_width / 2
        self._add("rect", x=left, y=top, width=card.box_width, height=card.box_height, rx=6, **{"class": card.style})
        self.texts(card.lines, left + _PAD, top + _PAD)
        y = top + card.box_height
        if not card.columns:
            return y
        bottom = top + card.height
        column_left = x - card.columns_width / 2
        for column in card.columns:
            middle = column_left + column.width / 2
            self.way((x, y), (x, y + _GAP / 3), (middle, y + _GAP / 3), (middle, y + _GAP / 2))
            ends = self.column(column, middle, y + _GAP / 2)
            if column.goes_on:
                self.way((middle, ends), (middle, bottom), (x, bottom))
            if column.repeats:
                side, first = column_left - _COLUMN_GAP / 3, y + _GAP / 2 + column.label_height + _GAP / 3
                self.way((middle, ends + 4), (side, ends + 4), (side, first), (middle, first), arrow=True)
            column_left += column.width + _COLUMN_GAP
        return bottom

    def texts(self, lines: Sequence[_Text], left: float, top: float) -> None:
        for number, line in enumerate(lines, 1):
            text = "".join(char if char.isprintable() else "\ufffd" for char in line.text)  # XML can't hold every character
            self._add("text", x=left, y=top + number * _LINE - 4, **{"class": line.style}).text = text

    def way(self, *places: tuple[float, float], arrow: bool = False) -> None:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        self._add("polyline", points=points, **{"class": "way"}, **({"marker-end": "url(#arrow)"} if arrow else {}))

    def dot(self, x: float, y: float) -> None:
        self._add("circle", cx=x, cy=y, r=5, fill="#8a9099")

    def _add(self, name: str, **attributes: str | float) -> ElementTree.Element:
        texts = {key: value if isinstance(value, str) else f"{value:.1f}" for key, value in attributes.items()}
        return ElementTree.SubElement(self._root, name, texts)
