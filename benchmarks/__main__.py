"""`python -m benchmarks`: compile and mask times, then calls a second through servers, each beside vLLM's own backends.

Out: tables, a CSV each under benchmarks/results, and a plot of the newest ones (`plot` alone draws it again). `kernels` times
the GPU kernels, and needs one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import compile_and_mask, served
from benchmarks.results import Measurement, describe_run, load_average, make_table, write_csv
from benchmarks.vocabularies import demo_tokenization, largest_tokenization
from benchmarks.workload import SEED, make_cases
from routine_grammar.errors import RoutineGrammarError

RESULTS = Path(__file__).parent / "results"
NOISE = "noisy where other work shares the machine (see load): compare arms within one file only"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; returns 1 where arms disagree or a server does not start."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("compile", "served", "kernels", "plot"), help="default: all but kernels")
    parser.add_argument("--quick", action="store_true", help="few rounds over the demo model's vocabulary")
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="DIR", help="where the CSVs go")
    options = parser.parse_args(arguments)
    if options.what == "kernels":
        return _measure_kernels(options.output)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"argument --output: {options.output}: {error.strerror}")
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        if options.what in ("compile", None):
            _measure_compile(console, options.output, quick=options.quick)
        if options.what in ("served", None):
            _measure_served(console, options.output, quick=options.quick)
        if options.what in ("plot", None):
            from benchmarks import plot  # matplotlib is needed for it alone

            console.print(f"drawn: {plot.draw(options.output)}", soft_wrap=True, highlight=False)
    except (compile_and_mask.DisagreementError, RoutineGrammarError, ValueError, OSError, ImportError) as error:
        console.print(f"nothing is reported: {error}", style="red", markup=False)
        return 1
    return 0


def _measure_compile(console: Console, folder: Path, *, quick: bool) -> None:
    samples, rounds = (2, 2) if quick else (6, 5)
    header = describe_run(SEED)
    tokenization = demo_tokenization() if quick else largest_tokenization()
    cases = make_cases(samples)
    header |= {
        "vocabulary": f"{tokenization.vocabulary.size} tokens, {tokenization.name}",
        "numbers": f"middle is p50, low p20, high p80 over {rounds} rounds of {samples} calls; one thread; {NOISE}",
    }
    with _progress(console, "compile and mask", compile_and_mask.count_steps(cases, rounds)) as advance:
        measurements = compile_and_mask.measure(tokenization, cases, rounds, advance)
    token = [measurement for measurement in measurements if measurement.unit == "µs"]
    call = [measurement for measurement in measurements if measurement.unit == "ms"]
    _report(console, folder, "compile", header, {"Compile, and a whole call": call, "A token": token})


def _measure_served(console: Console, folder: Path, *, quick: bool) -> None:
    rounds, calls = (2, {1: 4, 8: 16}) if quick else (6, {1: 4, 8: 24})
    header = describe_run(SEED)
    header |= {
        "model": f"the demo model, random weights; at most {served.MAX_TOKENS} tokens a call, temperature 1, seeded",
        "grammars": f"{served.TURNS} turns over and over: those who keep compiled grammars (xgrammar, ours) compile each once",
        "numbers": f"middle with a 95% interval from low to high: over {rounds} rounds, shares over all calls; {NOISE}",
    }
    with _progress(console, "served", served.count_steps(rounds, calls)) as advance:
        measurements = served.measure(SEED, rounds, calls, demo_tokenization().vocabulary, advance)
    _report(console, folder, "served", header, {"Calls through a server": measurements})


def _measure_kernels(folder: Path) -> int:
    from benchmarks.kernels import mask_logits

    folder.mkdir(parents=True, exist_ok=True)
    return mask_logits.main(["--output", str(folder / f"{describe_run(mask_logits.SEED)['date']}_mask_logits.csv")])


@contextmanager
def _progress(console: Console, title: str, total: int) -> Iterator[Callable[[str], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.update(task, advance=1, description=f"{title}: {done}")


def _report(console: Console, folder: Path, kind: str, header: dict[str, str], tables: dict[str, list[Measurement]]) -> None:
    header = header | {"load": f"{header['load']}, {load_average():.1f} after (the run's own included)"}
    for title, measurements in tables.items():
        console.print(make_table(title, measurements, header["numbers"]))
    everything = [measurement for measurements in tables.values() for measurement in measurements]
    console.print(f"written to {write_csv(folder, kind, header, everything)}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
