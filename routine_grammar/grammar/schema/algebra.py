"""What is said of shapes: which values they hold, what two have in common, what is outside of one, whether there is none.

Everything is exact; what would not be is declined by `Undecided`, which the caller turns into an error with a place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from routine_grammar.effort import A_PAIR, OF_OBJECTS, spend
from routine_grammar.grammar.json_number import Bound, decimal_of
from routine_grammar.grammar.schema.denying import denied_kind, denied_objects
from routine_grammar.grammar.schema.meeting import (
    least,
    listed_by_patterns,
    meet_numbers,
    meet_strings,
    number_holds,
    one_of,
    split_by_patterns,
    string_holds,
)
from routine_grammar.grammar.schema.names import Denial, MadeNames, Meeting
from routine_grammar.grammar.schema.refusals import Circle, Undecided, UnderWay
from routine_grammar.grammar.schema.shapes import (
    ANYTHING,
    NOTHING,
    Anything,
    Array,
    Kind,
    Member,
    Named,
    Number,
    Object,
    Shape,
    String,
    Value,
    are_values,
    everything,
    joined,
    key_of,
    type_of,
    type_of_value,
)
from routine_grammar.patterns.reader import found_in

MAX_KINDS = 2_000
MAX_MEETINGS = 20_000
MAX_GROUPS = 500  # of properties that are not declared, by what their names match
MAX_CLASSES = 64  # of the values of one shape by others
MAX_WAITING = 40  # names in a row of which each has to be known before the one before it
_ALL_OF_A_TYPE = (Number(), String(), Object())
MAX_ASKED = 20  # names in a row of which one is nothing: there may be thousands


class Algebra:
    """Operations on shapes; `look_up` gives the shape of a name.

    Names that it makes itself (recursive shapes that meet, or are denied) it looks up itself.
    """

    def __init__(self, look_up: Callable[[str], Shape]) -> None:
        self._look_up = look_up
        self._names = MadeNames()
        self._shapes: dict[str, Shape] = {}
        self._looking: set[str] = set()
        self._may_be: dict[str, bool] = {}
        self._asking: set[str] = set()
        self._holding: set[tuple[str, int]] = set()  # names of which it is asked whether they hold which value
        self._known: dict[tuple[Kind, Kind], Shape] = {}  # of the pairs of objects and of arrays that met, in what
        self._denied: dict[Shape, Shape] = {}
        self._met = 0
        self._depth = 0

    def shape(self, name: str) -> Shape:
        """The shape of a name, of one that names are joined to or of one that two others meet in: never a name alone."""
        seen: set[str] = set()
        while True:
            seen.add(name)
            found = self._shape(name)
            match found.kinds:
                case (Named(name),):
                    if name in seen:
                        raise Circle("leads to itself and to nothing else")
                case _:
                    return found

    def name_of(self, kind: Kind) -> str:
        """A name for a kind."""
        name = self._names.of_meeting(Meeting(frozenset(), kind))
        assert name is not None
        return name

    def _shape(self, name: str) -> Shape:
        made = self._names.get(name)
        if made is None:
            return self._look_up(name)
        if name not in self._shapes:
            if name in self._looking:
                raise UnderWay("shapes that refer to nothing but each other")
            if len(self._looking) == MAX_WAITING:
                raise Undecided(f"more than {MAX_WAITING} shapes of which each has to be known before the last, the bound")
            self._looking.add(name)
            try:
                self._shapes[name] = self._made(made)
            finally:
                self._looking.discard(name)
        return self._shapes[name]

    def _made(self, made: Meeting | Denial) -> Shape:
        if isinstance(made, Denial):
            return self.denied(self.shape(made.of))
        found = ANYTHING if made.kind is None else Shape((made.kind,))
        for name in sorted(made.names):
            found = self.meet(found, self.shape(name))
        return found

    def opened(self, shape: Shape, depth: int = 0) -> Shape:
        """A shape with the kinds that its names stand for."""
        if not any(isinstance(kind, Named | Anything) for kind in shape.kinds):
            return shape
        if depth > 100:
            raise Undecided("references that lead to each other and to nothing else")
        parts = []
        for kind in shape.kinds:
            match kind:
                case Named(name):
                    parts.append(self.opened(self.shape(name), depth + 1))
                case Anything():
                    parts.append(Shape(everything()))
                case _:
                    parts.append(Shape((kind,)))
        return Shape(tuple(dict.fromkeys(each for part in parts for each in part.kinds)))

    # Values

    def holds(self, shape: Shape, value: Any) -> bool:
        """Whether a value is in a shape."""
        return any(self._kind_holds(kind, value) for kind in shape.kinds)

    def _name_holds(self, name: str, value: Any) -> bool:
        asked = name, id(value)
        if asked in self._holding:
            raise Circle("references that lead to each other and to nothing else")
        self._holding.add(asked)
        try:
            made = self._names.get(name)
            return (
                not self.holds(self.shape(made.of), value) if isinstance(made, Denial) else self.holds(self.shape(name), value)
            )
        finally:
            self._holding.discard(asked)

    def _kind_holds(self, kind: Kind, value: Any) -> bool:
        match kind:
            case Anything():
                return True
            case Named(name):
                return self._name_holds(name, value)
            case Value(key, _):
                return key == key_of(value)
        if type_of(kind) != type_of_value(value):
            return False
        match kind:
            case Number():
                return number_holds(kind, value)
            case String():
                return string_holds(kind, value)
            case Array():
                return self._array_holds(kind, value)
            case Object(members, _, names, low, high, never):
                sized = low <= len(value) and (high is None or len(value) <= high)
                return (
                    sized
                    and all(name in value for name, member in members if member.required)
                    and all(self.holds(names, name) for name in value)
                    and all(self.holds(self.of_name(kind, name), item) for name, item in value.items())
                    and not any(self._kind_holds(each, value) for each in never)
                )
        raise AssertionError(kind)

    def _array_holds(self, kind: Array, value: list[Any]) -> bool:
        if len(value) < kind.low or (kind.high is not None and len(value) > kind.high):
            return False
        if kind.is_distinct and len(set(map(key_of, value))) < len(value):
            return False
        shapes = [*kind.prefix[: len(value)], *[kind.rest] * (len(value) - len(kind.prefix))]
        for each in kind.contained:
            count = sum(self.holds(each.shape, item) for item in value[each.start :])
            if count < each.low or (each.high is not None and count > each.high):
                return False
        return all(self.holds(shape, item) for shape, item in zip(shapes, value, strict=True))

    # Objects

    def of_name(self, kind: Object, name: str) -> Shape:
        """The shape of a property's values, whatever names there may be."""
        declared = kind.declared.get(name)
        return declared.shape if declared is not None else self.additional(kind, lambda pattern: found_in(pattern, name))

    def additional(self, kind: Object, matches: Callable[[str], bool]) -> Shape:
        """The shape of a property that is not declared, by which patterns its name matches."""
        shape = ANYTHING
        for layer in kind.layers:
            matched = [inner for pattern, inner in layer.patterns if matches(pattern)]
            for inner in matched or ([layer.rest] if layer.rest is not None else []):
                shape = self.meet(shape, inner)
        return shape

    # Meeting

    def meet(self, one: Shape, other: Shape) -> Shape:
        """The values that are in both shapes. Raises `Undecided` past the bounds."""
        if one in (ANYTHING, other):
            return other
        if other == ANYTHING:
            return one
        listed = are_values(one), are_values(other)
        if all(listed):
            keys = {kind.key for kind in other.kinds if isinstance(kind, Value)}
            return Shape(tuple(kind for kind in one.kinds if isinstance(kind, Value) and kind.key in keys))
        found: dict[Kind, None] = {}
        types = [type_of(kind) for kind in other.kinds]  # empty where it may be any
        for mine in one.kinds:
            of_mine = type_of(mine)
            for of_others, others in zip(types, other.kinds, strict=True):
                if of_mine and of_others and of_mine != of_others:
                    continue
                found |= dict.fromkeys(self._meet(mine, others).kinds)
                if len(found) > MAX_KINDS and not any(listed):
                    raise Undecided(f"more than {MAX_KINDS} alternatives, the bound")
        return Shape(tuple(found))

    def _meet(self, one: Kind, other: Kind) -> Shape:
        spend(A_PAIR)
        if type_of(one) == type_of(other):
            if one == other or other in _ALL_OF_A_TYPE:
                return Shape((one,))
            if one in _ALL_OF_A_TYPE:
                return Shape((other,))
        if isinstance(one, Array | Object) and type(one) is type(other):
            if (one, other) not in self._known:
                self._known[one, other] = self._meet_anew(one, other)
            return self._known[one, other]
        return self._meet_anew(one, other)

    def _meet_anew(self, one: Kind, other: Kind) -> Shape:
        if isinstance(one, Object) and isinstance(other, Object):
            spend(OF_OBJECTS)
            self._met += (len(one.members) + len(other.members)) // 16
        self._met += not (isinstance(one, Value) or isinstance(other, Value))
        if self._met > MAX_MEETINGS:
            raise Undecided(f"more than {MAX_MEETINGS} pairs of alternatives, the bound")
        match one, other:
            case (Anything(), kind) | (kind, Anything()):
                return Shape((kind,))
            case Named(name), Named(another):
                return self._meeting(name, self._names.meeting_of(another))
            case (Named(name), kind) | (kind, Named(name)):
                return self._meet_name(name, kind)
            case (Value() as of_value, Number(plain=bool()) as kind) | (Number(plain=bool()) as kind, Value() as of_value) if (
                type_of(of_value) == "number"
            ):  # the value by its spelling
                bound = Bound(decimal_of(of_value.value))
                return meet_numbers(Number(bound, bound), kind)
            case (Value(_, value), kind) | (kind, Value(_, value)):
                kept = one if isinstance(one, Value) else other
                return Shape((kept,)) if self._kind_holds(kind, value) else NOTHING
            case Number(), Number():
                return meet_numbers(one, other)
            case String(), String():
                return meet_strings(one, other)
            case Array(), Array():
                return self._meet_arrays(one, other)
            case Object(), Object():
                return self._meet_objects(one, other)
        return NOTHING

    def _meeting(self, name: str, other: Meeting) -> Shape:
        """Where a name meets others: however often recursive shapes do, there are no more meetings than sets of names."""
        mine = self._names.meeting_of(name)
        kinds = [kind for kind in (mine.kind, other.kind) if kind is not None]
        met: tuple[Kind | None, ...] = self._meet(*kinds).kinds if len(kinds) == 2 else (*kinds, None)[:1]
        found = (self._names.of_meeting(Meeting(mine.names | other.names, kind)) for kind in met)
        return Shape(tuple(dict.fromkeys(Named(each) for each in found if each is not None)))

    def _meet_name(self, name: str, kind: Kind) -> Shape:
        """Where a name meets what is none: in a name, too, where it can't be looked up yet."""
        if self._depth == MAX_WAITING:
            raise Undecided(f"more than {MAX_WAITING} references in a row meet something, the bound")
        try:
            shape = self.shape(name)
        except UnderWay:
            return self._meeting(name, Meeting(frozenset(), kind))
        self._depth += 1
        try:
            return self.meet(shape, Shape((kind,)))
        finally:
            self._depth -= 1

    def _meet_arrays(self, one: Array, other: Array) -> Shape:
        pairs = zip_longest(one.prefix, other.prefix)
        prefix = tuple(self.meet(one.rest if mine is None else mine, other.rest if its is None else its) for mine, its in pairs)
        rest, high = self.meet(one.rest, other.rest), least(one.high, other.high)
        contained = tuple(dict.fromkeys((*one.contained, *other.contained)))
        looked_at = None if None in (one.looked_at, other.looked_at) else max(one.looked_at or 0, other.looked_at or 0)
        is_distinct = one.is_distinct or other.is_distinct
        pointer = one.pointer if one.is_distinct or not is_distinct else other.pointer
        return self.array(Array(prefix, rest, max(one.low, other.low), high, contained, looked_at, is_distinct, pointer))

    def array(self, kind: Array) -> Shape:
        """An array's shape; NOTHING where there is no such array."""
        low, high = kind.low, kind.high
        if not self.may_be(kind.rest):
            high = least(high, len(kind.prefix))
        for each in kind.contained:
            if (each.high is not None and each.low > each.high) or (each.low and not self.may_be(each.shape)):
                return NOTHING
            low = max(low, each.start + each.low) if each.low else low
        for place, shape in enumerate(kind.prefix):
            if not self.may_be(shape):
                high = least(high, place)
                break
        if high is not None and low > high:
            return NOTHING
        if kind.is_distinct and low > 1 and self._has_fewer(joined(*kind.prefix, kind.rest), low):
            return NOTHING
        return Shape((replace(kind, low=low, high=high, prefix=kind.prefix if high is None else kind.prefix[:high]),))

    def _has_fewer(self, shape: Shape, count: int) -> bool:
        """Whether a shape is of fewer values than that, as far as it lists them."""
        return are_values(shape) and len({kind.key for kind in shape.kinds if isinstance(kind, Value)}) < count

    def classes(self, shape: Shape, others: Sequence[Shape]) -> list[tuple[tuple[bool, ...], Shape]]:
        """A shape's values by which of some other shapes they are of, too, each value in one class."""
        kinds = self.opened(shape).kinds if shape != ANYTHING else shape.kinds
        if all(isinstance(kind, Value) for kind in kinds):
            found: dict[tuple[bool, ...], list[Kind]] = {}
            for kind in kinds:
                held = tuple(self.holds(other, kind.value) for other in others if isinstance(kind, Value))
                found.setdefault(held, []).append(kind)
            return [(held, Shape(tuple(some))) for held, some in found.items()]
        classes: list[tuple[tuple[bool, ...], Shape]] = [((), shape)]
        for other in others:
            sides = ((True, other), (False, self.denied(other)))
            parts = [((*held, side), self.meet(some, what)) for held, some in classes for side, what in sides]
            classes = [(held, some) for held, some in parts if self.may_be(some)]
            if len(classes) > MAX_CLASSES:
                raise Undecided(f"values of more than {MAX_CLASSES} classes")
        return classes

    def _meet_objects(self, one: Object, other: Object) -> Shape:
        mine, others = one.declared, other.declared
        members = []
        for name in dict.fromkeys((*mine, *others)):
            said = [side[name] for side in (mine, others) if name in side]
            shape = self.meet(self.of_name(one, name), self.of_name(other, name))
            required, declared = any(each.required for each in said), any(each.declared for each in said)
            members.append((name, Member(shape, required, declared)))
        layers = tuple(dict.fromkeys((*one.layers, *other.layers)))
        names = self.meet(one.names, other.names)
        high = least(one.high, other.high)
        never = tuple(dict.fromkeys((*one.never, *other.never)))
        return self.object(Object(tuple(members), layers, names, max(one.low, other.low), high, never, one.pointer))

    def object(self, kind: Object) -> Shape:
        """An object's shape; NOTHING where there is no such object."""
        members = []
        for name, member in kind.members:
            possible = self.holds(kind.names, name) and self.may_be(member.shape)
            if member.required and not possible:
                return NOTHING
            members.append((name, member if possible else Member(NOTHING, declared=member.declared)))
        required = sum(member.required for _, member in members)
        low = max(kind.low, required)
        if kind.high is not None and low > kind.high:
            return NOTHING
        if low > sum(bool(member.shape) for _, member in members) and not self.has_additional(kind):
            return NOTHING
        kind = replace(kind, members=tuple(members), low=low)
        if not kind.never:
            return Shape((kind,))
        plain = replace(kind, never=())
        if any(not each.never and self._is_within(plain, each) for each in kind.never):
            return NOTHING
        met = tuple(each for each in kind.never if self._meet(plain, replace(each, never=())))
        return Shape((replace(kind, never=met),))

    def _is_within(self, kind: Object, other: Object) -> bool:
        """Whether every object of a kind is of another; False, too, where that is not told at once."""
        mine, others = kind.declared, other.declared
        if any(each.required and not (name in mine and mine[name].required) for name, each in others.items()):
            return False
        if other.low > kind.low or (other.high is not None and (kind.high is None or other.high < kind.high)):
            return False
        if other.names not in (ANYTHING, kind.names) or not set(other.layers) <= set(kind.layers):
            return False
        shapes = ((self.of_name(kind, name), self.of_name(other, name)) for name in {*mine, *others})
        return all(self.is_told_within(one, another) for one, another in shapes)

    def is_told_within(self, one: Shape, other: Shape) -> bool:
        """Whether a shape is within another as far as its kinds tell, one by one."""
        if one == other or other == ANYTHING:
            return True
        return all(kind in other.kinds or (isinstance(kind, Value) and self.holds(other, kind.value)) for kind in one.kinds)

    def has_additional(self, kind: Object) -> bool:
        """Whether an object may have a property that is not declared, as far as its layers tell."""
        return any(True for _ in self.groups(kind))

    def groups(self, kind: Object, *, with_nothing: bool = False) -> Iterator[tuple[String, Shape]]:
        """The properties that are not declared: names, and the shape of their values, each name in one group.

        `with_nothing`: those too that there can't be.
        """
        patterns = tuple(dict.fromkeys(pattern for layer in kind.layers for pattern, _ in layer.patterns))
        declared = frozenset((one_of([name for name, _ in kind.members]),)) if kind.members else frozenset()
        names = self.opened(kind.names) if kind.names != ANYTHING else Shape((String(),))
        listed = [name.value for name in names.kinds if isinstance(name, Value) and isinstance(name.value, str)]
        found = listed_by_patterns([name for name in listed if name not in kind.declared], patterns)
        for name in names.kinds:
            if isinstance(name, String):
                for part in _strings(self._meet(name, String(never=declared))):
                    found += split_by_patterns(part, patterns)
        if len(found) > MAX_GROUPS:
            raise Undecided(f"names of properties by patterns, of more than {MAX_GROUPS} kinds")
        for matched, part in found:
            shape = self.additional(kind, matched.__contains__)
            if with_nothing or self.may_be(shape):
                yield part, shape

    def may_be(self, shape: Shape) -> bool:
        """Whether there may be a value of a shape; False only where there is none."""
        return any(not isinstance(kind, Named) or self._named_may_be(kind.name) for kind in shape.kinds)

    def _named_may_be(self, name: str) -> bool:
        if name in self._asking or len(self._asking) > MAX_ASKED:
            return True  # recursion that never ends is told where all rules are known
        if name not in self._may_be:
            self._asking.add(name)
            try:
                self._may_be[name] = self.may_be(self.shape(name))
            except UnderWay:
                return True
            finally:
                self._asking.discard(name)
        return self._may_be[name]

    # Denying

    def denied(self, shape: Shape) -> Shape:
        """The values that are not in a shape. Raises `Undecided` where they can't be told exactly.

        Those of a name are a name too: what is recursive is denied as far as it is looked at.
        """
        if shape not in self._denied:
            self._denied[shape] = self._denied_anew(shape.kinds)
        return self._denied[shape]

    def _denied_anew(self, kinds: tuple[Kind, ...]) -> Shape:
        texts = [kind.value for kind in kinds if isinstance(kind, Value) and isinstance(kind.value, str)]
        objects = tuple(kind for kind in kinds if isinstance(kind, Object))
        found = denied_objects(self, objects) if objects else ANYTHING  # at once: there may be hundreds
        if texts:
            others = tuple(each for each in everything() if not isinstance(each, String))
            found = self.meet(found, Shape((*others, String(never=frozenset((one_of(texts),))))))
        for kind in kinds:
            match kind:
                case Named(name):
                    found = self.meet(found, self._denied_name(name))
                case Value(_, str()) | Object():
                    pass
                case _:
                    found = self.meet(found, denied_kind(self, kind))
        return found

    def _denied_name(self, name: str) -> Shape:
        """What is not in the shape of a name; of a meeting, in parts that are apart from each other."""
        meeting = self._names.meeting_of(name)
        found = NOTHING if meeting.kind is None else denied_kind(self, meeting.kind)
        before = frozenset[str]()
        for one in sorted(meeting.names):
            part = self._names.of_meeting(Meeting(before | {self._names.of_denial(one)}, meeting.kind))
            found = found if part is None else joined(found, Shape((Named(part),)))
            before |= {one}
        return found


def _strings(shape: Shape) -> list[String]:
    return [kind for kind in shape.kinds if isinstance(kind, String)]
