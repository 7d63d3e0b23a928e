"""Random grammar trees for property tests: a small alphabet, so that readings overlap often."""

from __future__ import annotations

import random

from hypothesis import strategies as st

from routine_grammar.grammar.tree import Call, Choice, Grammar, Leaf, Literal, Node, Optional, Repeat, Sequence

LEAVES = (
    Leaf("AB", "a+b?"),
    Leaf("WORD", "[a-c]+"),
    Leaf("QUOTED", '"[^"]*"'),
    Leaf("INTEGER", "-?(?:0|[1-9][0-9]*)"),
    Leaf("MAYBE", "(?:ab)*"),
    Leaf("E", "(?:e|é|ê)+"),
)
ALPHABET = 'abc"01-é,'

literals = st.text(ALPHABET, min_size=1, max_size=4).map(Literal)
calls = st.sampled_from(("first", "second")).map(Call)


def _above(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    items = st.lists(inner, min_size=1, max_size=3).map(tuple)
    repeats = st.builds(Repeat, inner, st.integers(0, 2), st.one_of(st.none(), st.integers(2, 3)))
    return st.one_of(items.map(Sequence), items.map(Choice), inner.map(Optional), repeats)


def trees(*extra: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    """Trees over literals, leaves and what else is given."""
    return st.recursive(st.one_of(literals, st.sampled_from(LEAVES), *extra), _above, max_leaves=6)


# `second` calls nothing, `first` may call `second`, the root may call both: no recursion, so that `re` can judge.
grammars = st.builds(
    lambda root, first, second: Grammar(root, {"first": first, "second": second}),
    trees(calls),
    trees(st.just(Call("second"))),
    trees(),
)


def sample(grammar: Grammar, rng: random.Random) -> str:
    """A random text of a grammar."""
    words = {
        "AB": ("a", "aab"),
        "WORD": ("a", "cab"),
        "QUOTED": ('""', '"a,é"'),
        "INTEGER": ("0", "-10"),
        "MAYBE": ("", "abab"),
        "E": ("e", "éê"),
    }

    def draw(node: Node) -> str:
        match node:
            case Literal(text):
                return text
            case Leaf(name, _):
                return rng.choice(words[name])
            case Call(rule):
                return draw(grammar.rules[rule])
            case Sequence(items):
                return "".join(map(draw, items))
            case Choice(items):
                return draw(rng.choice(items))
            case Optional(item):
                return draw(item) if rng.random() < 0.5 else ""
            case Repeat(item, low, high):
                return "".join(draw(item) for _ in range(rng.randint(low, low + 2 if high is None else high)))
            case _:
                raise AssertionError(node)

    return draw(grammar.root)


def edited(text: str, rng: random.Random) -> str:
    """The text with one character removed, doubled, changed or added."""
    place = rng.randint(0, len(text))
    char = rng.choice(ALPHABET)
    return rng.choice(
        (text[:place] + text[place + 1 :], text[:place] + char + text[place:], text[:place] + char + text[place + 1 :])
    )


def nested_repeats(grammar: Grammar) -> int:
    """How deep unbounded repetitions are nested: from two on, `re` may need exponential time."""

    def depth(node: Node) -> int:
        match node:
            case Leaf():
                return 1
            case Call(rule):
                return depth(grammar.rules[rule])
            case Repeat(item, _, high):
                return depth(item) + (high is None or high > 1)
            case Sequence(items) | Choice(items):
                return max(map(depth, items), default=0)
            case Optional(item):
                return depth(item)
            case _:
                return 0

    return depth(grammar.root)
