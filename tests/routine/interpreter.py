"""A Routine interpreted step by step from its nested form, without the graph: the judge of what may come next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from routine_grammar.routine import Branch, Routine, Step


@dataclass(frozen=True)
class World:
    """What happens to a run: how many items each list has, and which calls fail (step id, item)."""

    lengths: Mapping[str, int] = field(default_factory=dict)
    failing: frozenset[tuple[str, int | None]] = frozenset()


@dataclass(frozen=True)
class Option:
    """A call that may come next and what may come behind it, or the end (`step` None); `left`: repetitions done by then."""

    step: Step | None
    item: int | None
    behind: Options
    left: tuple[str, ...] = ()


Options = Callable[[], list[Option]]


def beginning(routine: Routine, world: World) -> list[Option]:
    """What may come first."""
    return _Interpreter(world).block(routine.steps, None, _the_end, _the_end)


def _the_end() -> list[Option]:
    return [Option(None, None, list)]


class _Interpreter:
    """`go` is what comes behind a block, `end` what comes where it finishes."""

    def __init__(self, world: World) -> None:
        self._world = world

    def block(self, steps: Sequence[Step], item: int | None, go: Options, end: Options) -> list[Option]:
        if not steps:
            return go()
        first, rest = steps[0], steps[1:]

        def resume() -> list[Option]:
            return self.block(rest, item, go, end)

        def behind() -> list[Option]:
            return self._behind(first, item, resume, end)

        return [Option(first, item, behind)] if first.tool is not None else behind()

    def _behind(self, step: Step, item: int | None, go: Options, end: Options) -> list[Option]:
        handlers = [branch for branch in step.branches if branch.on_error]
        if handlers and (step.id, item) in self._world.failing:
            return self.block(handlers[0].steps, item, go, end)
        if step.finish:
            return end()
        others = [(f"{step.id}-{n}", branch) for n, branch in enumerate(step.branches, 1) if not branch.on_error]
        if len(others) == 1 and not others[0][1].is_alternative:
            return self._whole(*others[0], item, go, end)
        options = [each for _, branch in others for each in self.block(branch.steps, item, go, end)]
        return options if any(branch.otherwise for _, branch in others) else [*options, *go()]

    def _whole(self, name: str, branch: Branch, item: int | None, go: Options, end: Options) -> list[Option]:
        if branch.for_each is not None:
            return self._repeated(name, branch, 0, go, end)
        if branch.parallel:
            return self._calls(branch.steps, item, go)
        return self.block(branch.steps, item, go, go)

    def _repeated(self, name: str, branch: Branch, number: int, go: Options, end: Options) -> list[Option]:
        assert branch.for_each is not None
        if number == self._world.lengths[branch.for_each.over]:
            return [replace(each, left=(*each.left, name)) for each in go()]
        return self.block(branch.steps, number, lambda: self._repeated(name, branch, number + 1, go, end), end)

    def _calls(self, waiting: Sequence[Step], item: int | None, go: Options) -> list[Option]:
        options = []
        for step in waiting:
            if not any(other.tool == step.tool for other in waiting[: waiting.index(step)]):
                others = [other for other in waiting if other is not step]
                options.append(Option(step, item, partial(self._calls, others, item, go)))
        return [*options, *go()] if all(step.optional for step in waiting) else options
