"""The launcher: vLLM's OpenAI server with Routines. Every flag of vLLM's is passed on; unknown ones are refused.

Without a model it serves the demo model and the demo Routines, offline. vLLM is imported only after its environment is set.
"""

from __future__ import annotations

import argparse
import os
import signal
import ssl
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import yaml

from routine_grammar.api import with_known_formats
from routine_grammar.demo.catalogue import demo_routines, demo_tools
from routine_grammar.errors import EngineError, RoutineError, RoutineGrammarError, plain_warnings
from routine_grammar.routine.model import Routine
from routine_grammar.routine.tools import Tool, load_tools
from routine_grammar.serve import drafting
from routine_grammar.serve.catalogue import load_catalogue, load_routines
from routine_grammar.serve.dialect_choice import dialect_of_model

PLUGINS = ("routine_grammar", "routine_grammar_environment", "routine_grammar_http")
OTHER_GROUPS = ("general", "platform", "io_processor", "stat_logger")  # vLLM's endpoint plugins load only when named
DRAIN_S = 30
DEMO_MODEL_NAME = "routine-demo"
DEMO_DIALECT = "hermes"


def main(argv: Sequence[str] | None = None) -> int:
    """Start the server and serve until stopped. Returns 2 where it can't start, after saying why, 130 where stopped."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    own = _own_parser().parse_known_args(arguments)[0]
    if own.model is None and _names_model(arguments):
        own.model = arguments[0]
    try:
        with plain_warnings(), tempfile.TemporaryDirectory(prefix="routine_grammar_") as folder:
            return _serve(arguments, own, Path(folder))
    except RoutineGrammarError as error:
        print(f"routine_grammar: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # such as a port that is taken
        print(f"routine_grammar: can't start: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # vLLM makes one of SIGTERM too, until it serves
        _say("stopped")
        return 128 + signal.SIGINT


def routines_and_tools(args: argparse.Namespace) -> tuple[tuple[Routine, ...], tuple[Tool, ...]]:
    """The Routines and tools that a server's arguments name: the demo's own where they name none."""
    routines = load_routines(Path(args.routines)) if args.routines else demo_routines()
    tools = load_tools(args.tools) if args.tools else demo_tools()
    return routines, with_known_formats(tools) if args.ignore_unknown_formats else tools


def _own_parser() -> argparse.ArgumentParser:
    """Reads, before vLLM is imported, what has to be known by then."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags = ("--model", "--config", "--routines", "--mcp", "--tools", "--tool-call-parser", "--tokenizer", "--chat-template")
    for flag in flags:
        parser.add_argument(flag)
    parser.add_argument("--ignore-unknown-formats", action="store_true")
    parser.add_argument("-h", "--help", nargs="?", const=True, default=False)
    return parser


def _names_model(arguments: Sequence[str]) -> bool:
    """Whether the first argument is vLLM's positional model."""
    return bool(arguments) and not arguments[0].startswith("-")


def _serve(arguments: list[str], own: argparse.Namespace, folder: Path) -> int:
    from routine_grammar.engines.vllm.environment import prepare

    started = time.monotonic()
    demo = not own.help and own.model is None and own.config is None
    if own.model and own.model.startswith(("/", "./", "../")) and not Path(own.model).is_dir():
        raise EngineError(f"argument --model: {own.model}: no such folder")
    if not own.help:
        own.tool_call_parser = own.tool_call_parser or _dialect(own)
        _check_routines(own, folder)
    model = _demo_model() if demo else own.model
    prepare(model, demo=demo)
    _set_plugins()
    _say("loading vLLM")
    parser = _server_parser(model if demo else None, own.tool_call_parser or DEMO_DIALECT)
    args = parser.parse_args(arguments)
    if demo and getattr(args, "model_tag", None):
        parser.error(f"give the model {args.model_tag!r} before all flags, or as --model")
    if getattr(args, "grpc", False) or args.headless:
        parser.error("--grpc and --headless serve no HTTP routes")
    if own.mcp:
        args.tools = own.tools
    if not 0 <= args.port < 2**16:
        parser.error(f"argument --port: {args.port} is no port; expected 0 to 65535")

    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.entrypoints.launchers.cli_args import validate_parsed_serve_args
    from vllm.logger import configure_logging_from_args

    configure_logging_from_args(args)
    from vllm.platforms import current_platform

    if said := drafting.apply_flags(args, on_cpu=current_platform.is_cpu(), keeps_state=lambda: _keeps_state(args)):
        _say(said)
    validate_parsed_serve_args(args)
    threading.Thread(target=_announce, args=(args, demo, started), daemon=True).start()
    ServeSubcommand.cmd(args)
    return 0


def _keeps_state(args: argparse.Namespace) -> bool:
    """Whether vLLM finds that the model keeps a state. What it can't read at all, it tells itself when it starts."""
    from vllm.engine.arg_utils import AsyncEngineArgs

    with suppress(Exception):
        return bool(AsyncEngineArgs.from_cli_args(args).create_model_config().has_inner_state)
    return False


def _demo_model() -> str:
    from routine_grammar.demo.model import demo_model_path

    return str(demo_model_path(_say))


def _set_plugins() -> None:
    """Name our endpoint plugin in VLLM_PLUGINS, and with it all that would have loaded without the variable."""
    if "vllm" in sys.modules:
        raise RoutineError("vLLM was imported before the launcher could set its environment")
    named = os.environ.get("VLLM_PLUGINS")
    names = (
        [name for name in named.split(",") if name]
        if named is not None
        else [entry.name for group in OTHER_GROUPS for entry in entry_points(group=f"vllm.{group}_plugins")]
    )
    os.environ["VLLM_PLUGINS"] = ",".join(dict.fromkeys((*names, *PLUGINS)))
    if os.environ.get("VLLM_USE_RUST_FRONTEND", "0") not in ("", "0"):
        raise RoutineError("VLLM_USE_RUST_FRONTEND is not supported: that front end loads no Python routes")


def _server_parser(demo_model: str | None, dialect: str) -> Any:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    cli_env_setup()
    description = "vLLM's OpenAI-compatible server, with Routines. Without a model: the demo model, offline."
    parser = make_arg_parser(
        FlexibleArgumentParser(prog="python -m routine_grammar.serve", description=description, allow_abbrev=False)
    )
    group = parser.add_argument_group("routines")
    group.add_argument("--routines", metavar="DIR", help="a folder of Routines, or one file (default: the demo Routines)")
    tools = group.add_mutually_exclusive_group()
    tools.add_argument("--mcp", metavar="FILE", help='MCP servers to list the tools of: {"mcpServers": {…}}')
    tools.add_argument("--tools", metavar="FILE", help="a recorded list of tools instead")
    group.add_argument(
        "--ignore-unknown-formats", action="store_true", help="don't enforce formats of tools' schemas that are not known"
    )
    drafting.add_flags(group)
    parser.set_defaults(shutdown_timeout=DRAIN_S)  # what runs as SIGTERM comes is decoded to its end
    parser.set_defaults(host="127.0.0.1", enable_auto_tool_choice=True, tool_call_parser=dialect)
    if demo_model is not None:
        parser.set_defaults(
            model=demo_model,
            served_model_name=[DEMO_MODEL_NAME],
            enforce_eager=True,
            max_model_len=8192,
            max_num_seqs=32,
            dtype="bfloat16",
            uvicorn_log_level="warning",
            disable_log_stats=True,
        )
    return parser


def _dialect(own: argparse.Namespace) -> str:
    """The tool parser by default: by the model, which may stand in a file of flags."""
    flags = _flags_of(own.config) if own.config else {}
    if named := flags.get("tool-call-parser"):
        return named
    model = own.tokenizer or own.model or flags.get("tokenizer") or flags.get("model")
    return dialect_of_model(model, own.chat_template or flags.get("chat-template")) if model else DEMO_DIALECT


def _flags_of(file: str) -> dict[str, str]:
    """The flags of a file that vLLM reads by `--config`; none where it can't be read, of which vLLM tells."""
    try:
        flags = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return {}
    return {str(name).replace("_", "-"): str(value) for name, value in flags.items()} if isinstance(flags, dict) else {}


def _check_routines(args: argparse.Namespace, folder: Path) -> None:
    """Compile everything once before vLLM is loaded, so that a mistake in a Routine costs a second and not a start.

    With `args.mcp`, `args.tools` is set to a file in `folder` of the tools that the servers list.
    """
    if args.routines and not (args.mcp or args.tools):
        raise RoutineError("--routines needs the tools that they use: --mcp FILE or --tools FILE")
    if args.mcp:
        args.tools = _record_tools(args.mcp, folder / "tools.json")
    routines, tools = routines_and_tools(args)
    load_catalogue(routines, tools, args.tool_call_parser)
    _say(f"{len(routines)} Routines checked against {len(tools)} tools")


def _record_tools(config: str, file: Path) -> str:
    """List the servers' tools once, into a file that every API server process reads."""
    import asyncio
    import logging

    from routine_grammar.agent.tools import ToolServers, load_mcp_config

    async def record() -> None:
        async with ToolServers(load_mcp_config(config)) as servers:
            servers.record_tools(file)

    logging.getLogger("mcp").addHandler(logging.NullHandler())  # our errors tell what it would log, with a traceback
    asyncio.run(record())
    return str(file)


def _say(message: str) -> None:
    print(f"routine_grammar: {message}", file=sys.stderr, flush=True)


def _answers(address: str) -> bool:
    """Whether our own server answers; it is asked without a proxy, and its certificate is our own affair."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    handlers = urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusting)
    try:
        with urllib.request.build_opener(*handlers).open(address, timeout=5) as answer:
            return bool(answer.status == 200)
    except ssl.SSLError as error:  # it serves, but asks for a certificate of ours
        return "certificate required" in str(error).lower()
    except OSError:
        return False


def _announce(args: argparse.Namespace, demo: bool, started: float) -> None:
    """Say how long the start takes, and once the server answers, where it is and what to send it."""
    if args.uds:
        return
    scheme, host = "https" if args.ssl_certfile else "http", args.host or "127.0.0.1"
    address = f"{scheme}://[{host}]:{args.port}" if ":" in host else f"{scheme}://{host}:{args.port}"
    said = 0.0
    while not _answers(f"{address}/health"):
        elapsed = time.monotonic() - started
        if elapsed - said >= 10:
            _say(f"starting vLLM, {elapsed:.0f} s")
            said = elapsed
        time.sleep(0.5)
    routines, _ = routines_and_tools(args)
    _say(f"ready after {time.monotonic() - started:.0f} s at {address}")
    for routine in routines:
        _say(f"  {routine.name}: {routine.description.splitlines()[0] if routine.description else 'no description'}")
    model = DEMO_MODEL_NAME if demo else (args.served_model_name or [args.model])[0]
    name = routines[0].name
    memory = "".join(f'"memory_input_{variable.name}": {{}}, ' for variable in routines[0].inputs).rstrip(", ")
    key = ' -H "Authorization: Bearer $API_KEY"' if args.api_key or os.environ.get("VLLM_API_KEY") else ""
    unverified = " --insecure" if args.ssl_certfile else ""
    print(
        f"""
curl{unverified} {address}/v1/chat/completions -H 'Content-Type: application/json'{key} -d '{{
  "model": "{model}", "max_tokens": 512,
  "messages": [{{"role": "user", "content": "Please begin."}}],
  "routine": {{"name": "{name}", "memory": {{{memory}}}}}}}'
""",
        flush=True,
    )
