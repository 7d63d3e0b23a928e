"""The position graph of a Routine: what may come next, which step a call belongs to, and which memory keys are written.

What is live decides about repetitions and about what follows a failed call; where that is not said, all is possible.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Container, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations

from routine_grammar.errors import MemoryKeyError, RoutineError
from routine_grammar.routine.dataflow import Keys, Written, keys_written, written_by
from routine_grammar.routine.ids import branch_header, header_of
from routine_grammar.routine.keys import ParsedKey, parse_key
from routine_grammar.routine.model import Header, Item, Key, Routine, Step, Variable
from routine_grammar.routine.positions import START, Position, read_position
from routine_grammar.routine.problems import nearest
from routine_grammar.routine.ways import END, Linked, Loop, Way, link

__all__ = ["START", "Graph", "Loop", "Move", "Successors", "Taken"]


@dataclass(frozen=True, slots=True)
class Move:
    """What may come next: one step, or of a parallel branch any of the calls `steps` that were not made yet.

    Calls of one turn come in any order, each at most once; those of one tool in the Routine's order, so that a call always
    tells its step. `item`: where in its repetition it is.
    """

    node: str
    steps: tuple[Step, ...]
    is_parallel: bool = False
    done: tuple[int, ...] = ()
    item: int | None = None

    @property
    def header(self) -> str:
        """The header that is decoded before it where one is needed."""
        return branch_header(self.node) if self.is_parallel else header_of(self.node)

    @property
    def callable(self) -> tuple[Step, ...]:
        """The steps whose call may come first."""
        return tuple(step for step in self.steps if self.with_tool(step.tool) is step)

    def with_tool(self, tool: str | None) -> Step | None:
        """The step that a call of a tool belongs to."""
        return next((step for step in self.steps if step.tool == tool), None)

    def after(self, step: Step) -> Position:
        """The position behind one of the calls."""
        done = tuple(sorted((*self.done, _number(step)))) if self.is_parallel else ()
        return Position(self.node, done, self.item)

    def without(self, step: Step) -> Move:
        """What else may come in the same turn behind one of the calls."""
        others = tuple(other for other in self.steps if other.id != step.id) if self.is_parallel else ()
        return replace(self, steps=others, done=self.after(step).done)


@dataclass(frozen=True, slots=True)
class Taken:
    """A call that was decoded: its step, the position behind it, and what else may come in the same turn."""

    step: Step
    position: Position
    rest: Move


@dataclass(frozen=True, slots=True)
class Successors:
    """What may come next, in document order, and whether the Routine may end."""

    moves: tuple[Move, ...]
    may_end: bool

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps that may be called."""
        return tuple(step for move in self.moves for step in move.steps)


@dataclass(frozen=True, slots=True)
class Graph:
    """A Routine's positions, what may come behind them, and the memory keys (with the default sigil) written before each.

    In `positions`, one inside a repetition stands for those at all of its items.
    """

    routine: Routine
    positions: tuple[str, ...]
    _steps: Mapping[str, Step]
    _linked: Linked
    _written: Written
    _items: Mapping[str, Collection[int]]

    @classmethod
    def of(cls, routine: Routine) -> Graph:
        """Build the graph; linear in steps and ways, but for the calls of parallel branches, of which all subsets count."""
        linked = link(routine)
        steps = {step.id: step for step in routine}
        positions = tuple(str(position) for node in linked.ways for position in _positions_of(node, linked))
        return cls(routine, positions, steps, linked, keys_written(routine, linked), dict(_items(steps.values(), linked)))

    @property
    def variables(self) -> Mapping[str, Variable]:
        """Every whole key that a run may write, with what it names."""
        return self._written.keys

    @property
    def loops(self) -> Mapping[str, Loop]:
        """The repetitions, by the id of their branch."""
        return self._linked.loops

    def position(self, text: str) -> Position:
        """Read a position; raises `RoutineError` where the Routine has none such."""
        return self._checked(text, exact=True)

    def steps_at(self, position: Position) -> tuple[Step, ...]:
        """The steps of which one was the last to be done at a position; none at the start."""
        ids = [f"{position.node}_{number}" for number in position.done] or [position.node]
        return tuple(self.routine.step(each) for each in ids if each != START)

    def successors(self, position: str, live: Container[str] | None = None) -> Successors:
        """Return what may come next, where these keys (with the default sigil) are live; None: whatever is live.

        Raises `RoutineError` for an unknown position, or where a list has more items than its repetition allows.
        """
        place = self._checked(position, exact=live is not None)
        moves: list[Move] = []
        if (rest := self._rest(place)) is not None and rest.steps:
            moves.append(rest)
        ways = self.open_ways(place, live)
        moves += [self._move(place, way) for way in ways if way.target != END]
        return Successors(tuple({(move.node, move.item): move for move in moves}.values()), any(w.target == END for w in ways))

    def open_ways(self, place: Position, live: Container[str] | None = None) -> tuple[Way, ...]:
        """Return the ways that lead on from a position, where these keys are live; None: whatever is live."""
        if (rest := self._rest(place)) is not None and not all(step.optional for step in rest.steps):
            return ()
        ways = self._linked.ways[place.node]
        if live is None:
            last = place.item is not None and place.item + 1 >= self._linked.loop_of[place.node].most
            return tuple(way for way in ways if not (way.again and last))
        is_open = tuple(way for way in ways if all((test.name(place.item) in live) == test.live for test in way.tests))
        for way in is_open:
            loop = self._linked.loop_of.get(way.target)
            begins = loop is not None and self._linked.loop_of.get(place.node) != loop
            # The items of a longer list are known where it begins: nothing of it is done then.
            if loop is not None and (
                f"{loop.over}_{loop.most}" in live if begins else way.again and self._is_last(place, loop)
            ):
                raise RoutineError(
                    f"routine {self.routine.name!r}: {loop.over} has more than {loop.most} items, the most that "
                    f"{branch_header(loop.branch)} is repeated for"
                )
        return is_open

    @staticmethod
    def _is_last(place: Position, loop: Loop) -> bool:
        return place.item is not None and place.item + 1 >= loop.most

    def is_headed(self, position: str) -> bool:
        """Whether a header is decoded before a call: where its tool alone may not tell the step, or if asked for."""
        moves = self.successors(str(replace(self._checked(position), item=None))).moves
        tools = [tool for move in moves for tool in {step.tool for step in move.steps}]
        return len(set(tools)) < len(tools) or (bool(tools) and self.routine.header is Header.ALWAYS)

    def calls_fitting(self, position: str, content: str | None, tool: str, live: Container[str] | None = None) -> list[Taken]:
        """Return what the first call of a turn may be, by its tool and its header (the last line of `content`)."""
        moves = [move for move in self.successors(position, live).moves if move.with_tool(tool) is not None]
        header = (content or "").rstrip("\n").rpartition("\n")[2]
        headed = [move for move in moves if move.header == header]
        return [self._taken(move, tool) for move in (headed or moves)]

    def call_taken(self, position: str, content: str | None, tool: str, live: Container[str] | None = None) -> Taken:
        """Return what the first call of a turn is; raises `RoutineError` where no step that may come next fits, or several."""
        fitting = self.calls_fitting(position, content, tool, live)
        if len(fitting) != 1:
            moves = self.successors(position, live).moves
            legal = ", ".join(f"{move.header} ({', '.join(str(step.tool) for step in move.steps)})" for move in moves)
            raise RoutineError(
                f"routine {self.routine.name!r}: a call of {tool[:80]!r} at position {position!r} is no step that may come "
                f"next; those are {legal or 'the end'}"
            )
        return fitting[0]

    def next_call_taken(self, before: Taken, tool: str) -> Taken:
        """Return what a further call of the same turn is; raises `RoutineError` where none such may follow."""
        if before.rest.with_tool(tool) is None:
            legal = ", ".join(str(step.tool) for step in before.rest.steps)
            raise RoutineError(
                f"routine {self.routine.name!r}: a call of {tool[:80]!r} can't follow {header_of(before.step.id)} in one "
                f"answer; {f'legal are {legal}' if legal else 'expected one call'}"
            )
        return self._taken(before.rest, tool)

    def loop_of(self, step_id: str) -> Loop | None:
        """Return the repetition that a step lies in."""
        return self._linked.loop_of.get(self._node(step_id))

    def key_read(self, step: Step, source: Key | Item, item: int | None) -> str:
        """Return the key that a step's argument reads at an item of its repetition; raises `RoutineError` for no such key."""
        loop = self.loop_of(step.id)
        key = source.key or (loop.over if loop is not None else "")
        if loop is None or item is None:
            return key
        if isinstance(source, Item):
            return f"{key}_{item}"
        parsed = parse_key(key)
        is_own = parsed.item is None and parsed.step is not None and loop.has(parsed.step)
        return f"{key}_{item}" if is_own else key

    def key_written(self, step: Step, name: str, item: int | None) -> str:
        """Return the key under which a step writes an output at an item of its repetition."""
        return ParsedKey(step.id, name, item).text()

    def keys_before(self, position: str) -> tuple[frozenset[str], frozenset[str]]:
        """Return the keys written on every path, and on some path, from the start up to and including a position.

        Inputs are written at the start. No path leads to an unreachable position: it has the inputs and its own keys.
        """
        place = self._checked(position)
        before = self._written.before[place.node]
        if place.node in self._linked.parallel:
            made = [step for step in self._linked.parallel[place.node] if _number(step) in place.done]
            own = self._written.bits(key for step in made for key, _ in written_by(step))
            return self._named(Keys(before.always | own, before.sometimes | own))
        own_keys = self._written.own[place.node]
        always = own_keys.always
        sometimes = own_keys.sometimes
        if place.node != START and self._steps[place.node].handles_errors:
            always = 0
            sometimes = self._written.bits(key for key, _ in written_by(self._steps[place.node]))
        return self._named(Keys(before.always | always, before.sometimes | sometimes))

    def keys_at(self, step_id: str) -> tuple[frozenset[str], frozenset[str]]:
        """Return the keys written on every path, and on some path, before a step is taken."""
        return self._named(self._written.before[self._node(step_id)])

    def items_of(self, key: str) -> Collection[int]:
        """Return the items of the list under a whole key that may have keys of their own."""
        return self._items.get(key, ())

    def lists_left(self, position: str, live: Container[str]) -> list[tuple[Loop, list[str]]]:
        """Return the repetitions that are over at a position, where these keys are live, with the keys of their outputs."""
        ways = self.open_ways(self._checked(position, exact=True), live)
        left = set.intersection(*(set(way.left) for way in ways)) if ways else set[str]()
        loops = [self._linked.loops[name] for name in sorted(left)]
        return [(loop, self._outputs_in(loop)) for loop in loops]

    def _outputs_in(self, loop: Loop) -> list[str]:
        steps = [step for step in self._steps.values() if loop.has(step.id)]
        return [ParsedKey(step.id, variable.name).text() for step in steps for variable in step.written]

    def check_length(self, key: str, length: int) -> None:
        """Raise `RoutineError` where a list has more items than a repetition over it allows."""
        for loop in self._linked.loops.values():
            if loop.over == key and length > loop.most:
                raise RoutineError(
                    f"routine {self.routine.name!r}: {key} has {length} items, and {branch_header(loop.branch)} is repeated "
                    f"for at most {loop.most}"
                )

    def names_before(self, position: str) -> list[str]:
        """Return every key that may be live at a position, those of items among them."""
        place = self._checked(position)
        _, sometimes = self.keys_before(position)
        around = self._linked.loop_of.get(place.node)
        names: list[str] = []
        for key in sorted(sometimes):
            writer = parse_key(key).step
            if around is None or writer is None or not around.has(writer):
                names.append(key)
            names += [f"{key}_{item}" for item in self.items_of(key)]
        return names

    def path_around(self, avoided: str, reached: str) -> list[str]:
        """Return the steps and parallel branches of a shortest path from the start to a step that does not pass another."""
        goal, avoided = self._node(reached), self._node(avoided)
        came_from: dict[str, str] = {START: START}
        queue = deque([START])
        while queue and goal not in came_from:
            node = queue.popleft()
            for way in self._linked.ways[node]:
                if way.target not in (avoided, END) and way.target not in came_from:
                    came_from[way.target] = node
                    queue.append(way.target)
        path = [goal] if goal in came_from else []
        while path and path[-1] != START:
            path.append(came_from[path[-1]])
        return path

    def _node(self, step_id: str) -> str:
        """The node of a step: of a call in parallel, its branch."""
        block = step_id.rpartition("_")[0]
        return block if block in self._linked.parallel else step_id

    def _named(self, keys: Keys) -> tuple[frozenset[str], frozenset[str]]:
        return self._written.names(keys.always), self._written.names(keys.sometimes)

    def _rest(self, place: Position) -> Move | None:
        """The calls of a parallel branch that are still to be made."""
        if place.node not in self._linked.parallel:
            return None
        steps = tuple(step for step in self._linked.parallel[place.node] if _number(step) not in place.done)
        return Move(place.node, steps, True, place.done, place.item)

    def _move(self, place: Position, way: Way) -> Move:
        item = place.item
        if (loop := self._linked.loop_of.get(way.target)) is None:
            item = None
        elif self._linked.loop_of.get(place.node) != loop:
            item = 0
        elif way.again and item is not None:
            item += 1
        if way.target in self._linked.parallel:
            return Move(way.target, self._linked.parallel[way.target], True, (), item)
        return Move(way.target, (self._steps[way.target],), item=item)

    def _taken(self, move: Move, tool: str) -> Taken:
        step = move.with_tool(tool)
        assert step is not None
        return Taken(step, move.after(step), move.without(step))

    def _checked(self, text: str, exact: bool = False) -> Position:
        try:
            place = read_position(text)
        except RoutineError:
            raise self._unknown(text) from None
        block, _, number = place.node.rpartition("_")
        if not place.done and block in self._linked.parallel:
            place = replace(place, node=block, done=(int(number),))
        calls = self._linked.parallel.get(place.node, ())
        if place.node not in self._linked.ways or bool(place.done) != bool(calls):
            raise self._unknown(text)
        if place.done and place.done[-1] > len(calls):
            raise self._unknown(text)
        loop = self._linked.loop_of.get(place.node)
        if exact and loop is not None and not 0 <= (-1 if place.item is None else place.item) < loop.most:
            expected = f"'{replace(place, item=None)}@<i>' with i from 0 to {loop.most - 1}"
            raise RoutineError(f"routine {self.routine.name!r}: position {text[:80]!r} is in a repetition: expected {expected}")
        if loop is None and place.item is not None:
            raise self._unknown(text)
        return place

    def _unknown(self, text: str) -> RoutineError:
        near = nearest(text, self.positions)
        shown = ", ".join(self.positions[:20]) + (", …" if len(self.positions) > 20 else "")
        return RoutineError(
            f"routine {self.routine.name!r} has no position {text[:80]!r}; its positions are {shown}"
            + (f"; did you mean {near!r}?" if near else "")
        )


def _number(step: Step) -> int:
    """The place of a call in its parallel branch, from 1."""
    return int(step.id.rpartition("_")[2])


def _items(steps: Collection[Step], linked: Linked) -> Iterator[tuple[str, Collection[int]]]:
    """The lists of which items have keys: those repeated over, written in repetitions, or read item by item."""
    most: dict[str, int] = {}
    read: dict[str, set[int]] = {}
    for loop in linked.loops.values():
        written = [key for step in steps if loop.has(step.id) for key, _ in written_by(step)]
        items = [
            source.key for step in steps if loop.has(step.id) for source in step.arguments.values() if isinstance(source, Item)
        ]
        for key in (loop.over, *written, *items):
            if key is not None:
                most[key] = max(most.get(key, 0), loop.most)
    for step in steps:
        for source in step.arguments.values():
            if isinstance(source, Key) and (parsed := _parsed(source.key)) is not None and parsed.item is not None:
                read.setdefault(ParsedKey(parsed.step, parsed.name).text(), set()).add(parsed.item)
    for key in most.keys() | read.keys():
        yield key, range(most[key]) if key in most and not read.get(key) else sorted({*range(most.get(key, 0)), *read[key]})


def _parsed(key: str) -> ParsedKey | None:
    try:
        return parse_key(key)
    except MemoryKeyError:
        return None  # a finding of the checks


def _positions_of(node: str, linked: Linked) -> Iterator[Position]:
    """The positions behind a node: of a parallel branch, behind any of its calls."""
    calls = [_number(step) for step in linked.parallel.get(node, ())]
    if not calls:
        yield Position(node)
    for many in range(1, len(calls) + 1):
        for done in combinations(calls, many):
            yield Position(node, done)
