from __future__ import annotations

import csv
import importlib.metadata
import importlib.util
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import host_report
from benchmarks.arms import LLGUIDANCE, OURS, OURS_COLD, OURS_LARK, OURS_TREE, XGRAMMAR
from benchmarks.command import RESULTS, main
from benchmarks.compare import compare
from benchmarks.compile_and_mask import DisagreementError
from benchmarks.newest import NEWEST, newest_peers
from benchmarks.report import PAGE, Aim, page
from benchmarks.results import Measurement, describe_run, make_table, quantiles, read_csv, write_csv
from benchmarks.vocabularies import demo_tokenization, sized_tokenization
from benchmarks.workload import PLAIN, QUICK, SIZES, make_cases

pytestmark = pytest.mark.filterwarnings("ignore")


def read(file: Path) -> tuple[dict[str, str], list[dict[str, str]]]:
    lines = file.read_text(encoding="utf-8").splitlines()
    header = dict(line.removeprefix("# ").split(": ", 1) for line in lines if line.startswith("# "))
    return header, list(csv.DictReader(line for line in lines if not line.startswith("# ")))


@pytest.mark.filterwarnings("ignore")
def test_a_quick_run_times_every_arm_in_every_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    assert main(["compile", "masks", "--quick", "--output", str(tmp_path), "--newest", str(tmp_path / "none")]) == 0
    file, masks, scaled, picture = sorted(tmp_path.iterdir())
    header, rows = read(file)
    names = [f"{header['date']}_{kind}.csv" for kind in ("compile", "masks", "scaling")]
    assert [file.name, masks.name, scaled.name, picture.name] == [*names, "host.svg"]
    assert {"processor", "versions", "commit", "seed", "vocabulary", "load"} <= header.keys()
    peers = {name for name in (LLGUIDANCE, XGRAMMAR) if importlib.util.find_spec(name)}
    cases = [*QUICK, *map(PLAIN.format, QUICK)]
    assert {(row["case"], row["arm"]) for row in rows} == {
        *((case, arm) for case in cases for arm in {OURS, OURS_COLD, OURS_TREE, OURS_LARK} | peers),
        ("restart", OURS),
    }
    of_masks = read(masks)[1]
    assert {(row["case"], row["arm"]) for row in of_masks} == {(case, arm) for case in cases for arm in {OURS} | peers}
    assert {row["case"].split()[1] for row in read(scaled)[1]} == {"tools", "parameters", "keys", "characters"}
    drawn = picture.read_text(encoding="utf-8")
    assert all(text in drawn for text in ("whole call, plain strings", "Growth: keys", "a mask of 64", "llguidance"))
    assert {row["metric"] for row in of_masks} >= {"one mask", "a mask of 64", "a token taken of 64"}
    for row in (*rows, *of_masks):
        assert 0 < float(row["low"]) <= float(row["middle"]) <= float(row["high"])
    assert "text to first mask" in capsys.readouterr().out


def test_an_unknown_subcommand_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train"])
    assert "invalid choice" in capsys.readouterr().err


def test_results_name_neither_host_nor_path(tmp_path: Path) -> None:
    header = describe_run(7)
    file = write_csv(tmp_path / "new", "kind", header, [quantiles("a case", "an arm", "time", "µs", [3, 1, 2, 5, 4, 6])])
    assert [list(part.values()) for part in read(file)[1]] == [["a case", "an arm", "time", "µs", "3", "2", "5", "6"]]
    assert read(file)[0] == header
    for secret in (str(Path.home()), str(Path(__file__).parent.parent.parent)):
        assert secret not in file.read_text(encoding="utf-8")


def test_the_newest_results_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", "--output", str(tmp_path)]) == 1
    assert "no *_compile.csv" in capsys.readouterr().out
    shutil.copy(newest("compile"), tmp_path)
    assert main(["plot", "--output", str(tmp_path)]) == 1
    assert "no *_serve_medium.csv" in capsys.readouterr().out
    run = describe_run(1)
    measured = [
        Measurement(f"{size}, {way}", arm, metric, unit, 3.0, 2.0, 4.0, 5)
        for size in SIZES
        for way in ("1 client", "8 clients", "4 calls/s at random")
        for arm in ("unconstrained", "vLLM xgrammar", "ours")
        for metric, unit in (("calls", "/s"), ("passes a call", ""), ("a token p50", "ms"))
    ]
    grown = [
        Measurement(f"{number} tools", "ours", f"first token, {kind} grammar", "ms", number, number, number, 2)
        for number in (1, 10, 100)
        for kind in ("new", "known")
    ]
    parts = {size: [each for each in measured if each.case.startswith(size)] for size in SIZES} | {"growth": grown}
    for date, part in (("2026-01-01", "small"), *(("2026-01-02", part) for part in parts)):
        write_csv(tmp_path, f"serve_{part}", {**run, "date": date}, parts[part])
    assert main(["plot", "--output", str(tmp_path)]) == 0
    picture, served = ((tmp_path / name).read_text(encoding="utf-8") for name in ("benchmark.svg", "serve.svg"))
    for text in ("routine_grammar", "llguidance", "vLLM xgrammar", ">clients<", read(newest("compile"))[0]["processor"]):
        assert text in picture
    for text in ("medium: forward passes a call", "Growth: tools", "ours, known grammar", "2026-01-02", "unconstrained"):
        assert text in served
    assert "unconstrained" not in picture


def test_the_pictures_are_those_of_the_newest_results(tmp_path: Path) -> None:
    for file in RESULTS.glob("*.csv"):
        shutil.copy(file, tmp_path)
    assert main(["plot", "--output", str(tmp_path)]) == 0
    for name in ("benchmark.svg", "serve.svg", "host.svg"):
        drawn, kept = (re.findall("<text[^>]*>([^<]*)</text>", (folder / name).read_text()) for folder in (tmp_path, RESULTS))
        assert len(drawn) > 20
        assert drawn == kept, "run `python -m benchmarks plot` and commit what it draws"


def test_the_pages_are_of_the_newest_results() -> None:
    again = "run `python -m benchmarks report` and commit what it writes"
    assert page(RESULTS) == PAGE.read_text(encoding="utf-8"), again
    assert host_report.page(RESULTS) == host_report.PAGE.read_text(encoding="utf-8"), again
    readme = host_report.README.read_text(encoding="utf-8")
    assert host_report.with_figures(readme, RESULTS) == readme, again


@pytest.mark.filterwarnings("ignore")
def test_peers_of_another_folder_take_their_turns() -> None:
    """Here the installed ones stand for others."""
    folder = Path(importlib.import_module("llguidance").__file__ or "").parents[1]
    tokenization, cases = demo_tokenization(), make_cases(2, ("small",))
    with newest_peers(folder, tokenization, cases, large=False) as newest:
        assert newest is not None
        assert newest.versions == {name: importlib.metadata.version(name) for name in (LLGUIDANCE, XGRAMMAR)}
        newest.check(cases[0])
        found = newest.measure_round(cases[0], 1)
        assert set(found) == {NEWEST.format(LLGUIDANCE), NEWEST.format(XGRAMMAR)}
        assert all(0 < times.compile_s < times.whole_s for each in found.values() for times in each)
    wrong = replace(cases[0], samples=(*cases[0].samples, "no call"))
    with newest_peers(folder, tokenization, [wrong], large=False) as newest:
        assert newest is not None
        with pytest.raises(DisagreementError, match="llguidance, newest refuses a sample"):
            newest.check(wrong)
    with newest_peers(folder / "none", tokenization, cases, large=False) as newest:
        assert newest is None


def test_vocabularies_of_any_size_spell_any_text() -> None:
    for size in (2_000, 200_000):
        sized = sized_tokenization(size)
        assert sized.vocabulary.size == size
        text = 'naïve 東京 {"a": 1} 🙂'
        assert b"".join(sized.vocabulary.tokens[token] for token in sized.encode(text)).decode() == text


@pytest.mark.parametrize(
    ("low", "high", "at_least", "at_most"),
    [
        (1.0, 1.4, "reached", "not resolved"),
        (0.9, 1.1, "not resolved", "not resolved"),
        (0.8, 0.9, "**missed**", "reached"),
        (1.1, 1.2, "reached", "**missed**"),
    ],
)
def test_an_aim_is_reached_where_its_whole_interval_is_on_its_side(
    low: float, high: float, at_least: str, at_most: str
) -> None:
    found = Measurement("small, 1 client", "ours", "calls/s to theirs", "x", (low + high) / 2, low, high, 20)
    for is_least, verdict in ((True, at_least), (False, at_most)):
        assert Aim("calls", "ours", "calls/s to ", 1.0, is_least).verdict(found) == verdict


def newest(kind: str) -> Path:
    return max(RESULTS.glob(f"*_{kind}.csv"))


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    measured = [Measurement("a case, with a comma", "arm", "calls", "/s", 1.5, 1.0, 2.0, 3)]
    assert read_csv(write_csv(tmp_path, "kind", {"date": "2026-01-02", "note": "a: b"}, measured)) == (
        {"date": "2026-01-02", "note": "a: b"},
        measured,
    )


def test_a_table_has_a_line_for_every_case_and_arm() -> None:
    measured = [Measurement(case, arm, "calls", "/s", 1.5, 1, 2, 3) for case in ("one", "two") for arm in ("ours", "theirs")]
    table = make_table("Title", measured, "caption")
    assert table.row_count == 4
    assert list(table.columns[0].cells) == ["one", "", "two", ""]


def test_two_runs_are_held_against_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = []
    for name, calls in (("first", 2.0), ("second", 3.0)):
        line = Measurement("1 client", "ours", "calls", "/s", calls, calls - 0.5, calls + 0.5, 5)
        files.append(str(write_csv(tmp_path / name, "serve", {"date": "2026-01-02"}, [line])))
    assert main(["compare", *files]) == 0
    assert "1.5" in capsys.readouterr().out
    (ratio,) = compare(read_csv(Path(files[0])), read_csv(Path(files[1])))
    assert [ratio.middle, ratio.low, ratio.high] == pytest.approx([1.5, 1.0, 3.5 / 1.5])
    assert ratio.unit == "x"
    other = write_csv(tmp_path, "serve", {"date": "2026-01-02"}, [Measurement("8 clients", "ours", "calls", "/s", 1, 1, 1, 1)])
    assert main(["compare", files[0], str(other)]) == 1
    assert "no number in common" in capsys.readouterr().out
    (tmp_path / "none.md").write_text("# A page\n\ntext\n")
    assert main(["compare", files[0], str(tmp_path / "none.md")]) == 1
    assert "is no results of these benchmarks" in capsys.readouterr().out


def test_what_was_0_is_compared_by_its_difference() -> None:
    def run(invalid: tuple[float, float, float], wait: float) -> list[Measurement]:
        return [
            Measurement("1 client", "ours", "invalid", "%", *invalid, 3),
            Measurement("1 client", "ours", "wait", "ms", wait, wait, 2 * wait, 3),
        ]

    before, after = run((0.0, 0.0, 0.2), 0.0), run((5.0, 4.0, 6.0), 1.0)
    found = {each.metric: each for each in compare(({}, before), ({}, after))}
    invalid, wait = found["invalid, more"], found["wait, more"]
    assert (invalid.middle, invalid.low, invalid.high, invalid.unit) == (5.0, 3.8, 6.0, "%")
    assert (wait.middle, wait.low, wait.high, wait.unit) == (1.0, 1.0, 2.0, "ms")


def test_an_earlier_run_of_a_day_is_kept(tmp_path: Path) -> None:
    lines = [[Measurement("a", "ours", "calls", "/s", number, number, number, 2)] for number in (1.0, 2.0, 3.0)]
    for line in lines:
        file = write_csv(tmp_path, "serve_small", {"date": "2026-01-02"}, line)
    assert read_csv(file)[1] == lines[2]
    assert [read_csv(file.with_suffix(f".{number}.csv"))[1] for number in (1, 2)] == lines[:2]
