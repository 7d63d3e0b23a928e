"""Names for what recursive shapes become where they meet, or are denied: made once each, and looked up when it is needed."""

from __future__ import annotations

from dataclasses import dataclass

from routine_grammar.grammar.schema.shapes import Kind, type_of


@dataclass(frozen=True, slots=True)
class Meeting:
    """What is in the shapes of all names, and of a kind that they met when their own were not known yet."""

    names: frozenset[str]
    kind: Kind | None = None


@dataclass(frozen=True, slots=True)
class Denial:
    """What is not in the shape of a name."""

    of: str


class MadeNames:
    """The names that were made. They are in parentheses, as those of a document never are."""

    def __init__(self) -> None:
        self._made: dict[str, Meeting | Denial] = {}
        self._names: dict[Meeting | Denial, str] = {}

    def get(self, name: str) -> Meeting | Denial | None:
        """What a name was made for; None for one of the document."""
        return self._made.get(name)

    def meeting_of(self, name: str) -> Meeting:
        """A name as a meeting, if only of itself."""
        made = self._made.get(name)
        return made if isinstance(made, Meeting) else Meeting(frozenset((name,)))

    def of_meeting(self, meeting: Meeting) -> str | None:
        """The name of a meeting; None where one of its names is the denial of another: then it is of nothing."""
        if any(isinstance(made := self._made.get(name), Denial) and made.of in meeting.names for name in meeting.names):
            return None
        if len(meeting.names) == 1 and meeting.kind is None:
            return next(iter(meeting.names))
        told = [*sorted(meeting.names), *([type_of(meeting.kind)] if meeting.kind is not None else [])]
        return self._name(meeting, " & ".join(told))

    def of_denial(self, name: str) -> str:
        """The name of what is not in the shape of a name."""
        made = self._made.get(name)
        return made.of if isinstance(made, Denial) else self._name(Denial(name), f"not {name}")

    def _name(self, what: Meeting | Denial, told: str) -> str:
        if what not in self._names:
            name, number = f"({told})", 1
            while name in self._made:
                number += 1
                name = f"({told} {number})"
            self._names[what] = name
            self._made[name] = what
        return self._names[what]
