"""The commands: `python -m routine_grammar check | convert | demo | explain | lark | prepare | show | tools`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from routine_grammar.errors import RoutineError, RoutineGrammarError, ToolError, plain_warnings

if TYPE_CHECKING:
    from routine_grammar.routine import Routine, Tool

_FAILED, _INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns 0, 1 where `check` found problems or `explain` a refusal, 2 after an error, told in one message on standard error,
    130 where it was interrupted.
    """
    arguments = _parser().parse_args(argv)
    logging.getLogger("mcp").addHandler(logging.NullHandler())  # our errors tell what it would log, with a traceback
    try:
        with plain_warnings():
            status: int = arguments.command(arguments)
        if sys.stdout is not None:  # it is None where its file was closed before we began
            sys.stdout.flush()
    except UnicodeEncodeError as error:
        print(
            f"error: the output has {error.object[error.start]!a}, which {error.encoding} lacks: set PYTHONIOENCODING=utf-8",
            file=sys.stderr,
        )
        return _FAILED
    except RoutineGrammarError as error:
        notes = "".join(f"\n  in {note}" for note in getattr(error, "__notes__", ()))
        print(f"error: {error}{notes}", file=sys.stderr)
        return _FAILED
    except BrokenPipeError:
        # The reader of our output has left; what is still buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    except OSError as error:
        print(f"error: {error.filename or 'the output'}: {error.strerror or error}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still buffered must not fail again at exit
        return _FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m routine_grammar", description="Routines compiled to grammars.", allow_abbrev=False
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    check = commands.add_parser("check", help="tell everything that is wrong with Routines", allow_abbrev=False)
    check.add_argument("files", nargs="+", metavar="FILE", type=Path, help="a Routine in YAML, JSON, flat JSON or text")
    _add_tools(check, required=False)
    check.set_defaults(command=_check)
    convert = commands.add_parser("convert", help="write a Routine in another form", allow_abbrev=False)
    convert.add_argument("file", metavar="FILE", type=Path, help="a Routine in YAML, JSON, flat JSON or text")
    convert.add_argument("--to", choices=("yaml", "json", "flat", "text"), default="yaml", help="default: %(default)s")
    convert.set_defaults(command=_convert)
    demo = commands.add_parser("demo", help="carry out a demo Routine with a real server and real tools", allow_abbrev=False)
    demo.add_argument("--base-url", metavar="URL", help="an OpenAI-compatible server (default: one is started)")
    demo.add_argument("--routine", metavar="NAME", default="repository_review", help="the Routine (default: %(default)s)")
    demo.set_defaults(command=_demo)
    tools = commands.add_parser("tools", help="list the tools of MCP servers", allow_abbrev=False)
    tools.add_argument("--mcp", metavar="CONFIG", type=Path, required=True, help='the servers: {"mcpServers": {…}}')
    tools.add_argument("--record", metavar="FILE", type=Path, help="write the tools there, for --tools")
    tools.set_defaults(command=_tools)
    lark = commands.add_parser("lark", help="print the grammar of a Routine", allow_abbrev=False)
    lark.add_argument("file", metavar="FILE", type=Path, help="a Routine in YAML, JSON, flat JSON or text")
    _add_tools(lark, required=True)
    lark.add_argument("--position", metavar="P", help="only the turn at this position: start, 2, 3-1_2, …")
    _add_dialect(lark)
    lark.set_defaults(command=_lark)
    explained = commands.add_parser("explain", help="tell what may come next, or why a text is refused", allow_abbrev=False)
    explained.add_argument("file", metavar="FILE", type=Path, help="a Routine in YAML, JSON, flat JSON or text")
    _add_tools(explained, required=True)
    explained.add_argument("--at", metavar="P", default="start", help="the position: start, 2, 3-1_2, … (default: %(default)s)")
    explained.add_argument("--prefix", metavar="TEXT", default="", help="what was said of the turn; @FILE reads a file")
    explained.add_argument(
        "--key", metavar="KEY", action="append", help="a live memory key, once for each (default: all that may be live)"
    )
    explained.add_argument(
        "--dialect", metavar="D", default="hermes", help="how the model writes a call (default: %(default)s)"
    )
    explained.set_defaults(command=_explain)
    show = commands.add_parser("show", help="draw a Routine, with what is wrong marked on it", allow_abbrev=False)
    show.add_argument("file", metavar="FILE", type=Path, help="a Routine in YAML, JSON, flat JSON or text")
    _add_tools(show, required=False)
    show.add_argument("--as", dest="form", choices=("mermaid", "svg"), default="mermaid", help="default: %(default)s")
    show.set_defaults(command=_show)
    prepare = commands.add_parser("prepare", help="compile machine code, once for an installation", allow_abbrev=False)
    prepare.add_argument("model", metavar="MODEL", nargs="?", help="make the rows of its vocabulary too")
    prepare.set_defaults(command=_prepare)
    return parser


def _add_dialect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dialect", metavar="D", default="hermes", help="how the model writes a call (default: %(default)s)")


def _add_tools(parser: argparse.ArgumentParser, *, required: bool) -> None:
    group = parser.add_mutually_exclusive_group(required=required)
    group.add_argument("--mcp", metavar="CONFIG", type=Path, help="start these MCP servers and list their tools")
    group.add_argument("--tools", metavar="FILE", type=Path, help="a recorded list of tools")
    parser.add_argument(
        "--ignore-unknown-formats", action="store_true", help="don't enforce formats of the tools' schemas that are not known"
    )


def _check(arguments: argparse.Namespace) -> int:
    tools = _listed_tools(arguments)
    problems = [problem for file in arguments.files for problem in _problems(file, tools, arguments.files)]
    for problem in problems:
        print(_shown(problem))
    files = len(arguments.files)
    if problems:
        print(_count(len(problems), "problem"), "in", _count(files, "file"))
        return 1
    unchecked = "" if tools is not None else " (tools are checked with --mcp or --tools)"
    print(f"{_count(files, 'routine')}, no problems{unchecked}")
    return 0


def _shown(text: str) -> str:
    """A text as the output can hold it: names of files and fields may be of any characters."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _problems(file: Path, tools: Sequence[Tool] | None, files: Sequence[Path]) -> list[str]:
    """Everything that is wrong with a file's Routine: by itself, else with its tools and as a grammar."""
    from routine_grammar.api import problems_of
    from routine_grammar.routine import Routine
    from routine_grammar.routine.inlining import inlined
    from routine_grammar.routine.structure import as_problems

    try:
        routine = Routine.load(file)
        others = _others(file, routine, files)
    except RoutineError as error:
        return list(error.problems) or [str(error)]
    if tools is None:
        found = as_problems(routine, iter(inlined(routine, {other.name: other for other in others}).findings))
    else:
        found = problems_of(routine, tools, routines=others)
    return [str(problem) for problem in found]


def _others(file: Path, routine: Routine, files: Sequence[Path] = ()) -> list[Routine]:
    """The Routines that one may run: of the other files that are well-formed, and of files of their names beside it."""
    from routine_grammar.routine import Routine
    from routine_grammar.routine.reading import routines_beside

    if not any(step.routine for step in routine):
        return []
    found = list(routines_beside(file, routine).values())
    for other in files:
        with suppress(RoutineError):
            found.append(Routine.load(other))
    return found


def _convert(arguments: argparse.Namespace) -> int:
    from routine_grammar.routine import to_flat_json, to_json, to_text, to_yaml

    write = {"yaml": to_yaml, "json": to_json, "flat": to_flat_json, "text": to_text}[arguments.to]
    print(write(_routine(arguments.file)), end="")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from routine_grammar.api import problems_of
    from routine_grammar.routine import to_mermaid, to_svg

    routine, tools = _routine(arguments.file), _listed_tools(arguments)
    others = _others(arguments.file, routine)
    problems = problems_of(routine, tools, routines=others) if tools is not None else ()
    print({"mermaid": to_mermaid, "svg": to_svg}[arguments.form](routine, problems), end="")
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from routine_grammar.demo.run import run_demo

    run_demo(arguments.base_url, arguments.routine)
    return 0


def _tools(arguments: argparse.Namespace) -> int:
    tools = asyncio.run(_tools_of_servers(arguments.mcp, arguments.record))
    if arguments.record is not None:
        print(f"{_count(len(tools), 'tool')} written to {arguments.record}")
        return 0
    for tool in tools:
        parameters = ", ".join(tool.parameters)
        print(f"{tool.name}({parameters}): {' '.join(tool.description.split())}")
    return 0


def _lark(arguments: argparse.Namespace) -> int:
    from routine_grammar.api import compile_routine

    routine = _routine(arguments.file)
    others = _others(arguments.file, routine)
    compiled = compile_routine(routine, _listed_tools(arguments) or (), dialect=arguments.dialect, routines=others)
    print(compiled.lark if arguments.position is None else compiled.lark_at(arguments.position), end="")
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    from routine_grammar.api import compile_routine

    routine = _routine(arguments.file)
    others = _others(arguments.file, routine)
    compiled = compile_routine(routine, _listed_tools(arguments) or (), dialect=arguments.dialect, routines=others)
    prefix = arguments.prefix
    if prefix.startswith("@"):
        prefix = Path(prefix[1:]).read_text(encoding="utf-8")
    keys = arguments.key if arguments.key is not None else sorted(compiled.graph.names_before(arguments.at))
    explanation = compiled.explain(prefix, arguments.at, keys)
    print(_shown(str(explanation)))
    return 0 if explanation.refused is None else 1


def _routine(file: Path) -> Routine:
    from routine_grammar.routine import Routine

    return Routine.load(file)


def _listed_tools(arguments: argparse.Namespace) -> tuple[Tool, ...] | None:
    """The tools of the running servers or of the record; None where neither is named."""
    from routine_grammar.api import with_known_formats
    from routine_grammar.routine import load_tools

    if arguments.tools is None and arguments.mcp is None:
        return None
    recorded = arguments.tools is not None
    tools = load_tools(arguments.tools) if recorded else asyncio.run(_tools_of_servers(arguments.mcp, None))
    return with_known_formats(tools) if arguments.ignore_unknown_formats else tools


async def _tools_of_servers(config: Path, record: Path | None) -> tuple[Tool, ...]:
    from routine_grammar.agent.tools import ToolServers, load_mcp_config

    async with ToolServers(load_mcp_config(config)) as servers:
        if record is not None:
            try:
                servers.record_tools(record)
            except OSError as error:
                raise ToolError(f"{record}: can't be written: {error.strerror or error}") from error
        return servers.tools


def _prepare(options: argparse.Namespace) -> int:
    from routine_grammar.warm_up import warm_up

    print(f"machine code is in {warm_up()}")
    if options.model is not None:
        from routine_grammar.engines.vllm.grammars import prepare_model

        print(f"rows of its vocabulary are in {prepare_model(options.model)}")
    return 0


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


if __name__ == "__main__":
    sys.exit(main())
