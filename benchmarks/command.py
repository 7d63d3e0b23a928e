"""`python -m benchmarks`: compile and mask times, then load on servers, each beside vLLM's own backends.

Out: tables, a CSV each under benchmarks/results, and plots of the newest ones (`plot` alone draws them again; `report` writes
docs/speed.md, docs/throughput.md and the README's figures of them). `compile` and `masks` may be asked for together, and draw
what they measured. `gpu` times the kernels on a GPU, and needs little more than that. `compare` holds two CSVs against
each other.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import compile_and_mask, report, restart, scaling
from benchmarks.arms import parse_times
from benchmarks.compare import compare
from benchmarks.newest import FOLDER, newest_peers
from benchmarks.results import Measurement, describe_run, load_average, make_table, read_csv, write_csv
from benchmarks.serving import command as serving
from benchmarks.vocabularies import Tokenization, demo_tokenization, largest_tokenization
from benchmarks.workload import COMPILED, QUICK, SEED, make_cases
from routine_grammar.errors import RoutineGrammarError

RESULTS = Path(__file__).parent / "results"
NOISE = "noisy where other work shares the machine (see load): compare arms within one file only"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; returns 1 where arms disagree or a server does not start."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    asked = list(itertools.takewhile(_COMMANDS.__contains__, given))
    if len(asked) > 1:
        return max(main([each, *given[len(asked) :]]) for each in asked)
    options = _parser().parse_args(given)
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        if options.what == "compare":
            console.print(make_table("Second run to first", compare(*(read_csv(file) for file in options.files)), NOISE))
            return 0
        options.output.mkdir(parents=True, exist_ok=True)
        for what in (options.what,) if options.what else ("compile", "masks", "serve", "plot"):
            _COMMANDS[what](console, options)
    except (compile_and_mask.DisagreementError, serving.RefusedError, RoutineGrammarError) as error:
        return _failed(console, error)
    except (ValueError, OSError, ImportError) as error:
        return _failed(console, error)
    except KeyboardInterrupt:
        return _failed(console, InterruptedError("stopped"), 128 + signal.SIGINT)
    return 0


def _failed(console: Console, error: Exception, status: int = 1) -> int:
    told = [f"ended before its end: {str(error) or type(error).__name__}", *getattr(error, "__notes__", ())]  # ends of logs
    console.print("\n".join(told), style="red", markup=False)
    return status


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--quick", action="store_true", help="few rounds over the demo model's vocabulary")
    common.add_argument("--newest", type=Path, default=FOLDER, metavar="DIR", help="where `make peers` put the newest peers")
    common.add_argument("--output", type=Path, default=RESULTS, metavar="DIR", help="where the CSVs go")
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, parents=[common])
    parser.set_defaults(**serving.defaults())
    commands = parser.add_subparsers(dest="what", metavar="{compile,masks,serve,gpu,plot,report,compare}")
    for name in ("compile", "masks", "plot", "report"):
        commands.add_parser(name, parents=[common])
    serving.add_options(commands.add_parser("serve", parents=[common]))
    commands.add_parser("gpu", add_help=False, help="the kernels on a GPU; see `python -m benchmarks gpu --help`")
    two = commands.add_parser("compare", help="two CSVs of one kind")
    two.add_argument("files", type=Path, nargs=2, metavar="CSV")
    return parser


def _measure_compile(console: Console, options: argparse.Namespace) -> None:
    samples, rounds = (2, 2) if options.quick else (6, 5)
    header = describe_run(SEED)
    tokenization = demo_tokenization() if options.quick else largest_tokenization()
    cases = make_cases(samples, QUICK if options.quick else COMPILED)
    header |= {
        "vocabulary": f"{tokenization.vocabulary.size} tokens, {tokenization.name}",
        "numbers": f"middle is p50, low p20, high p80 over {rounds} rounds of {samples} calls; one thread; {NOISE}",
    }
    steps = compile_and_mask.count_steps(cases, rounds) + samples
    with (
        _progress(console, "compile and mask", steps) as advance,
        newest_peers(options.newest, tokenization, cases, large=not options.quick) as newest,
    ):
        if newest is not None:
            header["newest"] = ", ".join(f"{name} {version}" for name, version in newest.versions.items())
        measurements = compile_and_mask.measure(tokenization, cases, rounds, advance, newest)
        measurements += parse_times(cases, rounds * samples)
        restarts = restart.measure(cases[1].grammar.payload, samples, large=not options.quick, advance=advance)
    token = [measurement for measurement in measurements if measurement.unit == "µs"]
    call = [measurement for measurement in measurements if measurement.unit in ("ms", "KiB")]
    tables = {"Compile, and a whole call": call, "A token": token, "From a new process to the first mask": restarts}
    _report(console, options.output, "compile", header, tables)
    _measure_scaling(console, options, header, tokenization, rounds)


def _measure_scaling(
    console: Console, options: argparse.Namespace, header: Mapping[str, str], tokenization: Tokenization, rounds: int
) -> None:
    steps = scaling.count_steps(tokenization, quick=options.quick)
    with _progress(console, "growth", steps) as advance:
        measurements, left_out = scaling.measure(tokenization, rounds, advance, quick=options.quick)
    said = {name: value for name, value in header.items() if name != "newest"}
    said["numbers"] = f"middle is p50, low p20, high p80 over {rounds} calls; one thread; plain strings; {NOISE}"
    said |= {"left out": "; ".join(left_out)} if left_out else {}
    _report(console, options.output, "scaling", said, {"Growth on the host": measurements})
    _draw_host(console, options)


def _measure_masks(console: Console, options: argparse.Namespace) -> None:
    from benchmarks import through_vllm  # vLLM is needed for it alone

    samples, rounds = (2, 2) if options.quick else (6, 10)
    tokenization = demo_tokenization() if options.quick else largest_tokenization()
    cases = make_cases(samples, QUICK if options.quick else COMPILED)
    header = describe_run(SEED) | {
        "vocabulary": f"{tokenization.vocabulary.size} tokens, {tokenization.name}",
        "numbers": f"a token of a sequence, at places visited before; p50 with p20 and p80 over {rounds} rounds; {NOISE}",
    }
    with _progress(console, "masks", through_vllm.count_steps(cases, rounds)) as advance:
        measurements = through_vllm.measure(tokenization, cases, rounds, advance)
    _report(console, options.output, "masks", header, {"Through vLLM's interface": measurements})
    _draw_host(console, options)


def _measure_serve(console: Console, options: argparse.Namespace) -> None:
    asked = serving.options_of(options)
    header = describe_run(SEED) | serving.describe(asked) | {"noise": NOISE}

    def tell(part: str, measurements: Sequence[Measurement], said: Mapping[str, str]) -> None:
        ratios = [measurement for measurement in measurements if measurement.unit == "x"]
        others = [measurement for measurement in measurements if measurement.unit != "x"]
        kind = "_".join(filter(None, ("serve", "131k" if asked.large else "", asked.name, part)))
        _report(console, options.output, kind, {**header, **said}, {"Calls through a server": others, "Ours to others": ratios})

    with _progress(console, "serve", asked.steps()) as advance:
        serving.measure(asked, SEED, advance, tell)


def _draw(console: Console, options: argparse.Namespace) -> None:
    from benchmarks import plot  # matplotlib is needed for it alone

    for file in plot.draw(options.output):
        console.print(f"drawn: {file}", soft_wrap=True, highlight=False)


def _draw_host(console: Console, options: argparse.Namespace) -> None:
    from benchmarks import plot

    for file in plot.draw_host(options.output):
        console.print(f"drawn: {file}", soft_wrap=True, highlight=False)


def _write_page(console: Console, options: argparse.Namespace) -> None:
    for file in report.write_pages(options.output):
        console.print(f"written: {file}", soft_wrap=True, highlight=False)


_COMMANDS: dict[str, Callable[[Console, argparse.Namespace], None]] = {
    "compile": _measure_compile,
    "masks": _measure_masks,
    "serve": _measure_serve,
    "plot": _draw,
    "report": _write_page,
}


@contextmanager
def _progress(console: Console, title: str, total: int) -> Iterator[Callable[[str], None]]:
    if not console.is_terminal:
        yield _lines(console, title, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.update(task, advance=1, description=f"{title}: {done}")


def _lines(console: Console, title: str, total: int) -> Callable[[str], None]:
    """A line for every hundredth of what is done: a log has no place for bars."""
    began, steps = time.monotonic(), itertools.count(1)

    def advance(done: str) -> None:
        step = next(steps)
        if step * 100 // total > (step - 1) * 100 // total:
            elapsed = timedelta(seconds=round(time.monotonic() - began))
            console.print(f"{title}: {done}; {step} of {total}, {elapsed}", highlight=False, markup=False)

    return advance


def _report(console: Console, folder: Path, kind: str, header: dict[str, str], tables: dict[str, list[Measurement]]) -> None:
    header = header | {"load": f"{header['load']}, {load_average():.1f} after (the run's own included)"}
    for title, measurements in tables.items():
        console.print(make_table(title, measurements, header["numbers"]))
    everything = [measurement for measurements in tables.values() for measurement in measurements]
    console.print(f"written to {write_csv(folder, kind, header, everything)}", soft_wrap=True, highlight=False)
