"""The vLLM endpoint plugin: the `routine` field of chat completions, and the routes under `/v1/routines`."""

from __future__ import annotations

import asyncio
import json
from argparse import Namespace
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response, StreamingResponse
from vllm.entrypoints.openai.chat_completion import api_router as chat_router
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponse
from vllm.entrypoints.serve.utils.api_utils import validate_json_request, with_cancellation

from routine_grammar.api import Turn
from routine_grammar.engines.vllm.checking import compile_pool
from routine_grammar.errors import EngineError, GrammarError, MemoryKeyError, RoutineGrammarError
from routine_grammar.grammar.dialects import dialect_of_parser
from routine_grammar.routine import routine_to_document, to_text
from routine_grammar.serve.answers import CheckAnswer, ErrorAnswer, RoutineAnswer, RoutineList, TurnAnswer
from routine_grammar.serve.catalogue import Catalogue, load_catalogue
from routine_grammar.serve.checking import CheckBusyError, CheckDesk, CheckTooLongError, listed_problems
from routine_grammar.serve.guard import CHAT, STOPPING, RoutineGuard, error_response
from routine_grammar.serve.launcher import routines_and_tools
from routine_grammar.serve.metrics import CountedRoute
from routine_grammar.serve.parsing import with_positions
from routine_grammar.serve.requests import MemoryEntry, RoutineChatRequest, RoutineField, apply_routine, live_keys


class TurnBody(BaseModel):
    """What `/v1/routines/{name}/turn` takes."""

    model_config = ConfigDict(extra="forbid")

    position: str | None = None
    memory: dict[str, MemoryEntry] = Field(default_factory=dict)


class CheckBody(BaseModel):
    """What `/v1/routines/check` takes: a Routine as a document or in its text form, and tools if not the server's."""

    model_config = ConfigDict(extra="forbid")

    routine: dict[str, Any] | str
    tools: list[dict[str, Any]] | None = None


def catalogue_of(request: Request) -> Catalogue:
    """The server's catalogue."""
    catalogue: Catalogue = request.app.state.routine_catalogue
    return catalogue


@cache
def check_desk() -> CheckDesk:
    """Where this process checks Routines that clients send."""
    return CheckDesk()


async def off_loop(function: Any, *args: Any) -> Any:
    """Run a function in the compile pool."""
    return await asyncio.get_running_loop().run_in_executor(compile_pool(), function, *args)


router = APIRouter(route_class=CountedRoute)
MAX_WARM_UP_TOKENS = 128
NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": ErrorAnswer}}


@router.get("/v1/routines", response_model=RoutineList)
async def list_routines(raw_request: Request) -> dict[str, Any]:
    """Every Routine that the server offers."""
    routines = [
        {
            "name": compiled.routine.name,
            "description": compiled.routine.description,
            "version": compiled.routine.version,
            "inputs": [variable.name for variable in compiled.routine.inputs],
            "tools": [tool.name for tool in compiled.tools],
        }
        for compiled in catalogue_of(raw_request).routines.values()
    ]
    return {"routines": routines}


@router.get("/v1/routines/{name}", response_model=RoutineAnswer, responses=NOT_FOUND)
async def show_routine(name: str, raw_request: Request) -> Any:
    """One Routine: as a document, as text, and as one grammar in Lark."""
    try:
        compiled = catalogue_of(raw_request).get(name)
    except RoutineGrammarError as error:
        return error_response(str(error), 404, "name", "NotFoundError")
    return {
        "name": name,
        "version": compiled.routine.version,
        "document": routine_to_document(compiled.routine),
        "text": to_text(compiled.routine),
        "tools": [tool.to_mcp() for tool in compiled.tools],
        "positions": list(compiled.graph.positions),
        "lark": await off_loop(lambda: compiled.lark),
    }


@router.post(
    "/v1/routines/check",
    dependencies=[Depends(validate_json_request)],
    response_model=CheckAnswer,
    responses={status: {"model": ErrorAnswer} for status in (429, 503)},
)
async def check_routine(body: CheckBody, raw_request: Request) -> Any:
    """All problems of a Routine, by itself and with its tools."""
    own = catalogue_of(raw_request)
    routines = [compiled.routine for compiled in own.routines.values()]
    try:
        return {"problems": await check_desk().run(lambda: listed_problems(body.routine, body.tools, own.tools, routines))}
    except CheckBusyError as error:
        return error_response(str(error), 429, kind="TooManyRequestsError")
    except CheckTooLongError as error:
        return error_response(str(error), 503, "routine", "ServiceUnavailableError")
    except RoutineGrammarError as error:
        return {"problems": list(getattr(error, "problems", ()) or (str(error),))}


@router.post(
    "/v1/routines/{name}/turn",
    dependencies=[Depends(validate_json_request)],
    response_model=TurnAnswer,
    responses={400: {"model": ErrorAnswer}, **NOT_FOUND},
)
async def show_turn(name: str, body: TurnBody, raw_request: Request) -> Any:
    """What may come next at a position."""
    catalogue = catalogue_of(raw_request)
    if name not in catalogue.routines:
        return error_response(f"there is no routine {name!r:.80}", 404, "name", "NotFoundError")

    def turn() -> dict[str, Any]:
        keys = live_keys(catalogue, RoutineField(name=name, memory=body.memory))
        taken = catalogue.turn(name, body.position, keys)
        return {
            "position": taken.position,
            "tools": list(taken.tools),
            "steps": [step.id for step in taken.steps],
            "may_end": taken.may_end,
            "forced": taken.forced,
            "lark": taken.lark,
        }

    try:
        return await off_loop(turn)
    except RoutineGrammarError as error:
        return error_response(str(error), 400, "memory" if isinstance(error, MemoryKeyError) else "position")


@router.post(
    CHAT,
    dependencies=[Depends(validate_json_request)],
    response_model=None,
    responses={
        200: {"model": ChatCompletionResponse, "content": {"text/event-stream": {}}},
        **{status: {"model": ErrorAnswer} for status in (400, 404, 500)},
    },
)
async def chat(request: RoutineChatRequest, raw_request: Request) -> Any:
    """Chat completions as vLLM has them; with `routine`, under it."""
    if request.routine is None:
        return await chat_router.create_chat_completion(request, raw_request)
    raw_request.state.under_routine = True
    await apply_routine(request, await raw_request.json(), catalogue_of(raw_request))
    response = await chat_router.create_chat_completion(request, raw_request)
    return await _held(response, raw_request) if isinstance(response, StreamingResponse) else response


# Until it returns the stream nobody else looks whether the client is still there.
@with_cancellation  # type: ignore[untyped-decorator]
async def _held(response: StreamingResponse, _: Request) -> Response:
    """Hold a stream back until its first real event: an error that comes before it is a status, not a 200."""
    events = response.body_iterator
    held: list[Any] = []
    async for event in events:
        held.append(event)
        text = event if isinstance(event, str) else bytes(event).decode()
        if text.startswith('data: {"error"'):
            error = json.loads(text.removeprefix("data: "))
            return JSONResponse(error, int(error["error"]["code"]))
        if not text.startswith(":") and '"delta":{"role":' not in text:
            break

    async def rest() -> AsyncIterator[Any]:
        for event in held:
            yield event
        async for event in events:
            yield event

    response.body_iterator = rest()
    return response


class RoutineEndpoints:
    """The plugin object that vLLM asks to attach routes and to make their state."""

    name = "routine_grammar_http"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """Put our routes and the guard into vLLM's app, our chat route in place of its own."""
        app.router.routes[:] = [
            route
            for route in app.router.routes
            if not (isinstance(route, APIRoute) and route.path == CHAT and "POST" in route.methods)
        ]
        app.include_router(router)
        app.add_middleware(RoutineGuard)

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        """Load the Routines and put our parser around vLLM's. Raises `EngineError` where tools can't be called."""
        serving, renderer = getattr(state, "openai_serving_chat", None), getattr(state, "online_renderer", None)
        if serving is None or renderer is None or serving.parser_cls is None or renderer.parser is None:
            raise EngineError("Routines need --enable-auto-tool-choice and --tool-call-parser")
        dialect = _dialect(args.tool_call_parser, serving.renderer.tokenizer)
        state.args = args
        state.routine_catalogue = await off_loop(lambda: load_catalogue(*routines_and_tools(args), dialect))
        serving.parser_cls = with_positions(serving.parser_cls)
        renderer.parser = with_positions(renderer.parser)
        turns = await off_loop(_first_turns, state.routine_catalogue, serving.renderer.tokenizer)
        await _warm_up(engine_client, turns)
        _tell_of_shutdown(engine_client, state)


def _tell_of_shutdown(engine: Any, state: Any) -> None:
    """Have the guard know when vLLM stops the engine, which drains it: of later requests vLLM would say that it is broken.

    What is still under way when its time is over ends with an error: vLLM would let it wait for an engine that is gone, and
    the server for it.
    """
    shutdown, loop = engine.shutdown, asyncio.get_running_loop()

    def told(*args: Any, **kwargs: Any) -> Any:
        setattr(state, STOPPING, True)
        try:
            return shutdown(*args, **kwargs)
        finally:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(engine.output_processor.propagate_error, _stopped())

    engine.shutdown = told


def _stopped() -> Exception:
    """What ends a request for which the server had no more time."""
    from vllm.v1.engine.exceptions import EngineDeadError

    error: Exception = EngineDeadError()
    error.args = ("the server stopped before the answer was whole",)
    return error


def _dialect(parser: str, tokenizer: Any) -> str:
    """The dialect of a server's tool parser and tokenizer."""
    try:
        return dialect_of_parser(parser, tokenizer.get_vocab())
    except GrammarError as error:
        raise EngineError(f"--tool-call-parser {parser}: {error}") from error


def _first_turns(catalogue: Catalogue, tokenizer: Any) -> list[tuple[Turn, int]]:
    """Give the catalogue the model's vocabulary; return the first turn of every Routine, and how few tokens it needs."""
    from routine_grammar.engines.vllm.grammars import CompiledGrammars, make_ready

    make_ready(tokenizer)
    grammars = CompiledGrammars.of(tokenizer)
    catalogue.grammars = grammars
    turns = []
    for compiled in catalogue.routines.values():
        keys = [name for name in compiled.key_types if name.startswith("memory_input_")]
        turn = compiled.turn(None, keys)
        grammars.check(turn.payload, None)
        turns.append((turn, grammars.fewest_tokens(turn.payload)))
    return turns


async def _warm_up(engine: Any, turns: Sequence[tuple[Turn, int]]) -> None:
    """Decode the first turns once, within tight budgets: what compiles just in time is ready before the server is."""
    for number, (turn, fewest) in enumerate(turns):
        if fewest <= MAX_WARM_UP_TOKENS:
            params = turn.sampling_params(max_tokens=fewest + 4)
            async for _ in engine.generate({"prompt_token_ids": [0]}, params, f"routine_grammar-warm-up-{number}"):
                pass


def make_plugin() -> RoutineEndpoints:
    """The factory that the entry point names."""
    return RoutineEndpoints()
