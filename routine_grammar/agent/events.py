"""What happens in a run, as events that are written down before they are acted on, and read back when a run resumes.

In: events, or the JSON that was written of them. Out: the other of the two. Values are not among them but in variable memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from routine_grammar.agent.calls import ToolCall
from routine_grammar.agent.memory import Stored
from routine_grammar.errors import RunError


@dataclass(frozen=True, slots=True)
class Decided:
    """A turn's answer was taken: what was allowed at `position`, and what the model wrote; without calls, the final answer.

    `after` is the position that the calls lead to. `token_ids` is empty where the server did not tell. `attempts` counts the
    answers, refused ones included, and is 0 where the turn was forced and no model was asked.
    """

    turn: int
    position: str
    permitted: tuple[str, ...]
    may_end: bool
    content: str
    calls: tuple[ToolCall, ...]
    finish_reason: str
    after: str
    token_ids: tuple[int, ...] = ()
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Asked:
    """A person is to approve of a call before it is made. `place`: which of the turn's calls, from 0."""

    turn: int
    place: int
    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Approved:
    """A person said whether a call may be made."""

    turn: int
    place: int
    allowed: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Called:
    """A call is about to be made. Until it is answered, whether it had its effect is not known."""

    turn: int
    place: int
    tool: str


@dataclass(frozen=True, slots=True)
class Answered:
    """A call's result came: what the model is shown of it, and, where the run can't go on with it, why.

    `made`: False where the call was not made, since a person did not approve of it.
    """

    turn: int
    place: int
    observation: str
    is_error: bool = False
    failure: str | None = None
    made: bool = True


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a run. `status`: "done", "failed", "cancelled" or "in doubt"; `error` says why, for all but the first.

    `end` is that of `Finished`, where it is done.
    """

    status: str
    turn: int
    position: str
    end: str = ""
    answer: str | None = None
    is_cut_off: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class Resumed:
    """A run that was over goes on.

    `repeat`: the calls that were in doubt are made again. `result`: what the first of them gave, as a person told.
    """

    turn: int
    repeat: bool = False
    result: str | None = None


RunEvent = Decided | Asked | Approved | Called | Answered | Ended | Resumed
_KINDS: dict[str, type[RunEvent]] = {
    kind.__name__.lower(): kind for kind in (Decided, Asked, Approved, Called, Answered, Ended, Resumed)
}


class Journal(Protocol):
    """Where a run's events are kept."""

    async def write(self, event: RunEvent, changed: Sequence[Stored]) -> None:
        """Keep an event, and the values that were stored since the one before; what returns is durable."""


class NoJournal:
    """A journal that keeps nothing."""

    async def write(self, event: RunEvent, changed: Sequence[Stored]) -> None:
        """Keep nothing."""


def event_to_document(event: RunEvent) -> dict[str, Any]:
    """An event as JSON, its kind under `kind`."""
    return {"kind": type(event).__name__.lower(), **asdict(event)}


def event_from_document(document: Mapping[str, Any]) -> RunEvent:
    """An event out of its JSON; raises `RunError` where it is none."""
    fields = dict(document)
    kind = _KINDS.get(fields.pop("kind", ""))
    if kind is None:
        raise RunError(f"a journal has an event of no known kind: {str(document.get('kind'))[:80]!r}")
    if kind is Decided:
        fields["calls"] = tuple(ToolCall(**call) for call in fields["calls"])
        fields |= {name: tuple(fields[name]) for name in ("permitted", "token_ids")}
    try:
        return kind(**fields)
    except TypeError as error:
        raise RunError(f"a journal has a malformed event: {error}") from error
