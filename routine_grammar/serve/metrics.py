"""Figures of our own in vLLM's `/metrics`: turns, forced tokens, refusals, time to compile, and what was kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from prometheus_client import Counter, Gauge, Histogram

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
GRAMMARS = Gauge("routine_grammar_grammars", "Compiled grammars that front ends keep.", multiprocess_mode="livesum")
GRAMMAR_BYTES = Gauge("routine_grammar_grammar_bytes", "About how many bytes they take.", multiprocess_mode="livesum")
CACHE = Counter("routine_grammar_turn_cache", "Turns asked for, by whether they were kept from before.", ["kept"])


class CountedRoute(APIRoute):
    """A route whose refusals of requests with a `routine` are counted: by the type of what was raised, or of the answer."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler, counted."""
        handle = super().get_route_handler()

        async def counted(request: Request) -> Response:
            try:
                response = await handle(request)
            except RequestValidationError as error:
                if any("routine" in part["loc"] for part in error.errors()):
                    count_refusal("RequestValidationError")
                raise
            except Exception as error:
                if getattr(request.state, "under_routine", False):
                    count_refusal(type(error.__cause__ or error).__name__)
                raise
            if response.status_code >= 400 and getattr(request.state, "under_routine", False):
                count_refusal(_kind(response))
            return response

        return counted


def count_refusal(reason: str) -> None:
    """Count a refused request that had a `routine`."""
    REFUSALS.labels(reason).inc()


def _kind(response: Response) -> str:
    """The type that an answer of OpenAI's shape gives an error."""
    try:
        return str(json.loads(bytes(response.body))["error"]["type"])
    except (ValueError, LookupError, TypeError):
        return f"HTTP {response.status_code}"


def count_turn(routine: str, token_ids: Sequence[int], matcher: Callable[[], Matcher]) -> None:
    """Count a decoded turn. Tokens that are not all of its grammar, such as thinking before it, count as not forced."""
    forced = matcher().count_forced(token_ids)
    if forced is None:  # a model may have more tokens that end a text than its tokenizer knows
        forced = matcher().count_forced(token_ids[:-1])
    FORCED.labels(routine).inc(forced or 0)
    TOKENS.labels(routine).inc(len(token_ids))
    TURNS.labels(routine).inc()  # last, as a reader of the figures meets it first: a turn seen has its tokens
