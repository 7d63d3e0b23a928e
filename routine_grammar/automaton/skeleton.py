"""The skeleton: a deterministic automaton over the points of a grammar that calls leaves and rules and returns from them.

A state is a set of configurations (rests of literals, leaf states, rules to enter, symbols, the end), made by the subset
construction when it is first needed. Where bytes alone decide, leaves and rules are entered and shared; where two readings
need the same byte, their product is built until one is left. So it is exact, and no copy of a leaf is made but in products.

The construction is compiled (`pools`, `opening`, `expanding`); here is what it asks for: room, rules of the tree, and what a
rule's states tell of it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from functools import cached_property
from typing import Any

import numpy as np

from routine_grammar.automaton import pools
from routine_grammar.automaton.analysis import analyse
from routine_grammar.automaton.leaf import LeafLibrary
from routine_grammar.automaton.memory import Ints, Memory
from routine_grammar.automaton.nesting import Nestings
from routine_grammar.automaton.placing import MAX_POINTS
from routine_grammar.automaton.pools import CODES
from routine_grammar.automaton.states import MAX_STATES, MOST_NEW_POINTS, MOST_NEW_STATES, body_state
from routine_grammar.automaton.surveying import expand_at, explore, look_at
from routine_grammar.automaton.tables import Handle
from routine_grammar.errors import GrammarError, GrammarTooLargeError, RoutineGrammarError, UnsupportedSchemaError
from routine_grammar.grammar.program import Program
from routine_grammar.grammar.tree import Distinct, Element, calls_of

ELSEWHERE = "vLLM's own guidance backend can take such a grammar (--grammar-backend auto hands it over)"
MOST_LOOKED_AT = 3_000  # states, to tell whether recursive rules can be read in too many ways
MAX_COPIES = 8  # of a rule within each other: real schemas, however they overlap, need one or two
MAX_MARKED = 20_000  # states of a grammar with lists of distinct elements


class Skeleton:
    """The states of one grammar. `expand` and `drive` may be called from several threads; all else only under `lock`."""

    def __init__(self, program: Program, library: LeafLibrary, symbols: Mapping[str, int]) -> None:
        self._library = library
        self._symbols = symbols
        self._program = program
        self._names = (*program.rules, "start")
        self.lock = threading.Lock()
        self._memory = Memory(program, library, symbols)
        self._find(analyse)
        self._memory.make_room_within()
        root = self._memory.rules[-1]
        if root[pools.SHORTEST] >= pools.INFINITE:
            raise GrammarError("the grammar allows no text at all")
        if root[pools.SHORTEST] >= pools.LONGEST:
            raise GrammarTooLargeError(f"the grammar's shortest text has at least {pools.LONGEST} bytes, the bound")
        self.farthest = int(root[pools.FARTHEST])
        self.start = self._find(body_state, len(program.rules))

    @cached_property
    def _nestings(self) -> Nestings:
        """What brackets tell of rules."""
        return Nestings(self._program.grammar.rules, self._library, self._symbols)

    @property
    def _recursive(self) -> list[str]:
        """The rules that call themselves, at any remove."""
        return [self._names[number] for number in np.flatnonzero(self._memory.rules[:, pools.CIRCLE] >= 0)]

    @property
    def is_recursive(self) -> bool:
        """Whether a rule calls itself, at any remove."""
        return bool(self._memory.used[pools.CIRCLES])

    @property
    def handle(self) -> Handle:
        """What compiled code finds the states by, as long as this lives."""
        return self._memory.handle

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        return self._memory.nbytes

    @property
    def size(self) -> int:
        """How many states there are by now."""
        return int(self._memory.used[pools.OF_STATES])

    def expand(self, index: int) -> None:
        """Make the edges of a state. Raises `GrammarTooLargeError` past the bound on states."""
        with self.lock:
            self._memory.forget_costs()
            try:
                self._find(expand_at, index)
            except RecursionError as error:
                raise GrammarTooLargeError("rules are nested too deep in rules") from error

    def drive(self, function: Callable[..., int], *arguments: Any) -> None:
        """Call a compiled function, which expands states itself, until it asks for nothing more. Raises as `expand`."""
        with self.lock:
            while asked := function(self._memory.handle, *arguments):
                self.provide(asked)

    def provide(self, asked: int) -> None:
        """Provide what a compiled function asked for, which then is to be called again; all of it while `lock` is held."""
        self._provide(-asked)

    def require_clear(self) -> None:
        """Raise as `expand` would where recursive rules can be read in too many ways, as far as some states tell."""
        if self._memory.used[pools.CIRCLES]:
            self._look_at(MOST_LOOKED_AT, with_marks=False)
            if self._memory.used[pools.DEEPEST] > MAX_COPIES:
                raise self._too_many_ways("automaton has states without end")

    def require_marks(self) -> None:
        """Raise where lists of distinct elements can't be told from what else may stand there.

        Makes all states from which such a list may come, before the rule at hand ends.
        """
        rules = self._program.grammar.rules
        marked = [name for name, tree in rules.items() if isinstance(tree, Distinct | Element)]
        calling = {*marked, *self._callers(marked)}
        for number, name in enumerate(rules):
            self._memory.rules[number, pools.MARKED] = name in calling
        if self._look_at(MAX_MARKED, with_marks=True) >= MAX_MARKED:
            tree = next(tree for tree in rules.values() if isinstance(tree, Distinct))
            keyword = tree.pointer.rpartition("/")[2]
            told = f"{keyword!r} is not supported here: the grammar around it has more than {MAX_MARKED} states, the bound"
            raise UnsupportedSchemaError(told, pointer=tree.pointer, keyword=keyword)

    def _look_at(self, most: int, *, with_marks: bool) -> int:
        """Expand at most so many states, perhaps those alone that may come to a mark; returns how many it did."""
        with self.lock:
            self._memory.forget_costs()
            self._memory.used[pools.LOOKED_AT] = self._memory.used[pools.AT] = 0
            return self._find(look_at, most, int(with_marks))

    # What compiled code asks for

    def _find(self, function: Callable[..., int], *arguments: int) -> int:
        """What a compiled function answers, once it has all that it asks for."""
        while (answer := function(self._memory.handle, *arguments)) < CODES:
            self._provide(answer)
        return answer

    def _provide(self, code: int) -> None:
        what = int(self._memory.used[pools.WANTED])
        match code:
            case pools.FULL:
                self._memory.grow(what, int(self._memory.used[pools.AMOUNT]))
            case pools.NEED_EXTENDS:
                self._library.extends(what)
            case pools.NEED_PSEUDO:
                used = self._memory.used
                self._library.pseudo_state(what, int(used[pools.AMOUNT]), int(used[pools.BOUNDS]))
            case pools.NEED_FOLLOWS:
                self._memory.set_follows(what, self._nestings.follows(self._names[what]))
            case pools.NEED_RULE:
                self._find_extends(what)
            case _:
                raise self._refusal(code, what)

    def _refusal(self, code: int, what: int) -> RoutineGrammarError:
        match code:
            case pools.IS_MARKED:
                return self._is_marked(what)
            case pools.TOO_LARGE:
                return GrammarTooLargeError(f"automaton has more than {MAX_STATES} states, the bound")
            case pools.TOO_MUCH_PLACED:
                told = f"grammar has more than {MAX_POINTS} points once its repetitions are unrolled, the bound"
                return GrammarTooLargeError(told)
            case pools.IS_LEFT_RECURSIVE:
                told = f"rule {self._names[what]} begins with itself: rewrite it without left recursion"
                return GrammarError(f"{told}; {ELSEWHERE}")
        most = f"{MOST_NEW_STATES} states" if code == pools.TOO_MANY_STATES else f"{MOST_NEW_POINTS} points"
        return self._too_many_ways(f"automaton needs more than {most}, the bound, to tell how a text may go on")

    def _too_many_ways(self, message: str) -> GrammarTooLargeError:
        recursive = self._recursive
        if not recursive:
            return GrammarTooLargeError(f"{message}: its rules can be read in too many ways")
        told = f"{message}: rule {min(recursive)} calls itself and can be read in too many ways"
        return GrammarTooLargeError(f"{told}; {ELSEWHERE}", rule=min(recursive))

    def _callers(self, names: Iterable[str]) -> Iterator[str]:
        """The rules that call some, at any remove, the nearest first."""
        callers: dict[str, list[str]] = {}
        for caller, tree in self._program.grammar.rules.items():
            for name in calls_of(tree):
                callers.setdefault(name, []).append(caller)
        todo = deque(names)
        seen = set(todo)
        while todo:
            for caller in callers.get(todo.popleft(), ()):
                if caller not in seen:
                    seen.add(caller)
                    todo.append(caller)
                    yield caller

    def _is_marked(self, number: int) -> UnsupportedSchemaError:
        """A rule would be read beside others and not be entered: what it leaves a mark for would not be watched."""
        name, rules = self._names[number], self._program.grammar.rules
        tree = rules[name]
        if isinstance(tree, Element):
            tree = next(rules[caller] for caller in self._callers([name]) if isinstance(rules[caller], Distinct))
        assert isinstance(tree, Distinct)
        keyword = tree.pointer.rpartition("/")[2]
        message = f"{keyword!r} is not supported where something else may stand there as well (rule {name})"
        return UnsupportedSchemaError(message, pointer=tree.pointer, keyword=keyword)

    # What follows a complete word of a rule

    def _find_extends(self, number: int) -> None:
        """Find which bytes may follow a complete word of a rule within a longer one, where its tree does not tell."""
        rules = self._memory.rules
        if rules[number, pools.CIRCLE] >= 0:
            circle = (rules[:, pools.COMPONENT] == rules[number, pools.COMPONENT]) & (rules[:, pools.DECIDED] == 0)
            self._find_circle(np.flatnonzero(circle).tolist())
        else:
            self._memory.set_extends(number, self._explored(number))

    def _explored(self, number: int) -> Ints:
        """The set of those bytes, read off a rule's states."""
        self._find(explore, number)
        return self._memory.found

    def _find_circle(self, circle: Iterable[int]) -> None:
        """As `_find_extends`, of rules that call each other.

        The first guess is that no word goes on into a longer one. States that are made under a guess tell what may follow,
        which is the next guess, until one holds. It holds for words of any depth then: by induction, as the words of one
        depth are told from what follows them by the `extends` of the depths below.
        """
        guess = {number: np.zeros_like(self._memory.found) for number in circle}
        while True:
            trial = copy(self)
            trial._memory = self._memory.without_states()
            for number, bytes_ in guess.items():
                trial._memory.set_extends(number, bytes_)
            found = {number: trial._explored(number) | bytes_ for number, bytes_ in guess.items()}
            self._memory.learn(trial._memory)
            if all((found[number] == bytes_).all() for number, bytes_ in guess.items()):
                break
            guess = found
        for number, bytes_ in guess.items():
            self._memory.set_extends(number, bytes_)
