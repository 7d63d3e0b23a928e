"""Figures of our own in vLLM's `/metrics`: turns, forced tokens, refusals, time to compile, and what was kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import Counter, Histogram

from routine_grammar.masks.matcher import Matcher

TURNS = Counter("routine_grammar_turns", "Turns decoded under a Routine.", ["routine"])
TOKENS = Counter("routine_grammar_tokens", "Tokens of those turns.", ["routine"])
FORCED = Counter(
    "routine_grammar_forced_tokens", "Tokens of those turns that were the only possible continuation.", ["routine"]
)
REFUSALS = Counter("routine_grammar_refusals", "Requests with a `routine` that were refused.", ["reason"])
COMPILE = Histogram(
    "routine_grammar_compile_seconds",
    "Time to make a turn's grammar and prompt ready.",
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
)
CACHE = Counter("routine_grammar_turn_cache", "Turns asked for, by whether they were kept from before.", ["kept"])


@contextmanager
def refusals_counted() -> Iterator[None]:
    """Count what is raised by its type."""
    try:
        yield
    except Exception as error:
        REFUSALS.labels(type(error.__cause__ or error).__name__).inc()
        raise


def count_turn(routine: str, token_ids: Sequence[int], matcher: Callable[[], Matcher]) -> None:
    """Count a decoded turn. Tokens that are not all of its grammar, such as thinking before it, count as not forced."""
    forced = matcher().count_forced(token_ids)
    if forced is None:  # a model may have more tokens that end a text than its tokenizer knows
        forced = matcher().count_forced(token_ids[:-1])
    FORCED.labels(routine).inc(forced or 0)
    TOKENS.labels(routine).inc(len(token_ids))
    TURNS.labels(routine).inc()  # last, as a reader of the figures meets it first: a turn seen has its tokens
