from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from routine_grammar.__main__ import main
from routine_grammar.demo.catalogue import demo_folder, demo_routines
from routine_grammar.jit import is_complete
from routine_grammar.masks import stored
from routine_grammar.routine import Routine, to_yaml

TOOLS = str(demo_folder() / "tools.json")
MEETING = demo_folder() / "routines" / "meeting_times.yaml"
REVIEW = demo_folder() / "routines" / "repository_review.yaml"
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {"time": {"command": sys.executable, "args": ["-m", "mcp_server_time"]}}}))
    return str(path)


def written(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_check_finds_nothing_in_the_demo(capsys: Captured) -> None:
    assert main(["check", str(MEETING), str(REVIEW), "--tools", TOOLS]) == 0
    assert capsys.readouterr() == ("2 routines, no problems\n", "")
    assert main(["check", str(MEETING)]) == 0
    assert capsys.readouterr().out == "1 routine, no problems (tools are checked with --mcp or --tools)\n"


def test_check_lists_every_problem_of_every_file(tmp_path: Path, capsys: Captured) -> None:
    text = REVIEW.read_text()
    wrong_tools = text.replace("tool: git_log", "tool: git_lgo").replace("max_count", "max_cuont")
    first = written(tmp_path, "first.yaml", wrong_tools.replace("revision: {const", "revison: {const"))
    second = written(tmp_path, "second.yaml", "name: r\nsteps:\n  - name: a\n    tool: git_status\n    argumets: {}\n")
    third = written(tmp_path, "third.txt", "Step 1. a: use the t tool.\nStep 3. b: use the t tool.\n")
    fourth = written(tmp_path, "fourth.yaml", "name: [\n")
    missing = str(tmp_path / "missing.yaml")
    assert main(["check", first, second, third, fourth, str(MEETING), missing, "--tools", TOOLS]) == 1
    shown = capsys.readouterr()
    *lines, total = shown.out.splitlines()
    line_of = {
        part: next(n for n, line in enumerate(Path(first).read_text().splitlines(), 1) if part in line)
        for part in ("revison", "git_lgo")
    }
    assert lines[0].startswith(f"{first}:{line_of['revison']}: routine 'repository_review', Branch 1-2 Step 1, ")
    assert lines[0].endswith("tool 'git_show' has no parameter 'revison'; did you mean 'revision'?")
    assert lines[1] == (
        f"{first}:{line_of['git_lgo']}: routine 'repository_review', Step 2, field tool: unknown tool 'git_lgo'; "
        "did you mean 'git_log'?"
    )
    assert lines[2].startswith(f"{second}:5: routine 'r', Step 1, field argumets: unknown field")
    assert "did you mean 'arguments'?" in lines[2]
    assert lines[3].startswith(f"{third}:2: Step 3 is out of order; expected Step 2")
    assert lines[4].startswith(f"{fourth}:")
    assert lines[5] == f"{missing}: can't be read: No such file or directory"
    assert total == "6 problems in 6 files"
    assert shown.err == ""


def test_check_tells_what_no_grammar_can_hold(tmp_path: Path, capsys: Captured) -> None:
    schema = {"type": "object", "properties": {"rows": {"type": "array", "uniqueItems": True, "minItems": 9}}}
    tools = written(tmp_path, "tools.json", json.dumps({"tools": [{"name": "store", "inputSchema": schema}]}))
    file = written(tmp_path, "r.yaml", "name: r\nsteps:\n  - {name: a, tool: store}\n")
    assert main(["check", file, "--tools", tools]) == 1
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith(f"{file}:3: routine 'r', Step 1, field arguments.rows: tool 'store': ")
    assert "'uniqueItems'" in line


def test_check_tells_all_at_once_what_no_plan_and_no_grammar_can_hold(tmp_path: Path, capsys: Captured) -> None:
    text, dated, shaped = {"type": "string"}, {"type": "string", "format": "moon"}, {"type": "string", "pattern": r"(x)\1"}
    tools = [
        {"name": name, "inputSchema": {"type": "object", "properties": {"a": schema}}}
        for name, schema in (("t", text), ("dated", dated), ("shaped", shaped))
    ]
    record = written(tmp_path, "tools.json", json.dumps(tools))
    file = written(
        tmp_path,
        "r.yaml",
        "name: r\nsteps:\n"
        "  - {name: a, tool: t, arguments: {a: {const: memory_bad}}}\n"
        "  - {name: b, tool: dated}\n"
        "  - {name: c, tool: missing}\n"
        "  - {name: d, tool: shaped}\n"
        "  - {name: e, tool: t, arguments: {a: {const: memory_bad2}}}\n"
        "  - {name: f, tool: shaped, arguments: {a: {const: x}}}\n",
    )
    assert main(["check", file, "--tools", record]) == 1
    *lines, total = capsys.readouterr().out.splitlines()
    wanted = (
        "arguments.a: tool 't': the constant 'memory_bad' ",
        "'format'",
        "unknown tool",
        "a back-reference",
        "'memory_bad2'",
    )
    for number, (line, part) in enumerate(zip(lines, (*wanted, "'pattern' can't be judged"), strict=True), 1):
        assert line.startswith(f"{file}:{number + 2}: routine 'r', Step {number}, field ")
        assert part in line
    assert total == "6 problems in 1 file"


def test_check_and_lark_with_running_servers(config: str, capsys: Captured) -> None:
    assert main(["check", str(MEETING), "--mcp", config]) == 0
    assert main(["check", str(REVIEW), "--mcp", config]) == 1
    assert "unknown tool 'git_status'" in capsys.readouterr().out
    assert main(["lark", str(MEETING), "--mcp", config, "--position", "start"]) == 0
    assert "get_current_time" in capsys.readouterr().out


def test_tools_are_listed_and_recorded(config: str, tmp_path: Path, capsys: Captured) -> None:
    assert main(["tools", "--mcp", config]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "get_current_time(timezone): Get current time in a specific timezone"
    record = str(tmp_path / "tools.json")
    assert main(["tools", "--mcp", config, "--record", record]) == 0
    assert capsys.readouterr().out == f"2 tools written to {record}\n"
    assert main(["check", str(MEETING), "--tools", record]) == 0
    assert main(["tools", "--mcp", config, "--record", str(tmp_path / "no" / "folder")]) == 2
    assert "can't be written: No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["yaml", "json", "flat", "text"])
def test_convert_changes_nothing_but_the_form(form: str, tmp_path: Path, capsys: Captured) -> None:
    for routine in demo_routines():
        file = tmp_path / f"{routine.name}.yaml"
        file.write_text(to_yaml(routine))
        assert main(["convert", str(file), "--to", form]) == 0
        assert Routine.parse(capsys.readouterr().out) == routine


def test_show_draws_a_routine_and_its_problems(capsys: Captured) -> None:
    broken = "docs/examples/broken.yaml"
    assert main(["show", broken, "--tools", TOOLS]) == 0
    assert "did you mean" not in (shown := capsys.readouterr().out)
    assert shown.startswith("flowchart TD\n")
    assert shown.count(":::problem") == 2
    assert main(["show", broken, "--as", "svg"]) == 0
    svg = capsys.readouterr().out
    assert svg.startswith("<svg ")
    assert " bad" not in svg.replace(".bad", "")


def test_lark_prints_the_whole_routine_or_one_turn(capsys: Captured) -> None:
    assert main(["lark", str(MEETING), "--tools", TOOLS]) == 0
    whole = capsys.readouterr().out
    assert "start: at_start" in whole
    assert "at_1_1_1:" in whole
    assert main(["lark", str(MEETING), "--tools", TOOLS, "--position", "2", "--dialect", "hermes"]) == 0
    turn = capsys.readouterr().out
    assert turn.count("convert_time") == 1
    assert "memory_input_second_office" in turn


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lark", str(MEETING), "--tools", TOOLS, "--position", "9"], "has no position '9'; its positions are start, 1"),
        (["lark", str(MEETING), "--tools", TOOLS, "--dialect", "zulu"], "there is no dialect 'zulu'"),
        (["lark", "missing.yaml", "--tools", TOOLS], "missing.yaml: can't be read"),
        (["lark", str(MEETING), "--tools", "missing.json"], "missing.json: can't be read"),
        (["check", str(MEETING), "--mcp", "missing.json"], "missing.json: can't be read"),
        (["tools", "--mcp", "missing.json"], "missing.json: can't be read"),
        (["demo", "--routine", "repository_revue"], "did you mean 'repository_review'?"),
    ],
)
def test_an_error_is_one_message_and_status_2(arguments: list[str], message: str, capsys: Captured) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert message in shown.err
    assert "Traceback" not in shown.err


@pytest.mark.parametrize("arguments", [[], ["chekc"], ["check"], ["lark", "x"], ["check", "x", "--tool", "y"]])
def test_unknown_or_missing_arguments_are_refused(arguments: list[str], capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m routine_grammar" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_traceback() -> None:
    command = f"{sys.executable} -m routine_grammar lark {MEETING} --tools {TOOLS} | true"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("encoding", "redirected", "message"),
    [
        ("ascii", "", "error: the output has '\\u8abf', which ascii lacks: set PYTHONIOENCODING=utf-8"),
        ("utf-8", "> /dev/full", "error: the output: No space left on device"),
        ("utf-8", ">&-", ""),
    ],
)
def test_an_output_that_cannot_be_written(tmp_path: Path, encoding: str, redirected: str, message: str) -> None:
    file = written(tmp_path, "a.yaml", "name: r\nsteps: [{name: 調べる, tool: t}]\n")
    command = f"{sys.executable} -m routine_grammar convert {file} {redirected}"
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    ran = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr.strip()) == (2 if message else 0, message)


def test_check_escapes_what_the_output_lacks(tmp_path: Path) -> None:
    file = written(tmp_path, "a.yaml", "name: r\nsteps: [{name: a, tools: 調べる}]\n")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "routine_grammar", "check", file]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (1, "")


def test_a_routine_that_runs_another_is_checked_with_the_file_beside_it(tmp_path: Path, capsys: Captured) -> None:
    file = written(tmp_path, "a.yaml", "name: a\nsteps: [{name: b, routine: b, arguments: {x: {const: 5}}}]\n")
    tools = written(tmp_path, "tools.json", '[{"name": "t", "inputSchema": {"type": "object"}}]')
    assert main(["check", file, "--tools", tools]) == 1
    assert "field routine: unknown routine 'b'" in capsys.readouterr().out
    written(tmp_path, "b.yaml", "name: b\ninputs: {x: {type: string}}\nsteps: [{name: c, tool: t}]\n")
    assert main(["check", file, "--tools", tools]) == 1
    assert "constant 5 does not fit the input: 5 is not of type 'string'" in capsys.readouterr().out
    written(tmp_path, "b.yaml", "name: b\ninputs: {x: {type: integer}}\nsteps: [{name: c, tool: t}]\n")
    assert main(["check", file, "--tools", tools]) == 0
    capsys.readouterr()
    assert main(["lark", file, "--tools", tools]) == 0
    assert "at_1_1_1: ANSWER" in capsys.readouterr().out


TYPED = "name: b\ninputs: {x: {type: integer}}\nsteps: [{name: c, tool: t}]\n"
LISTED = '[{"name": "t", "inputSchema": {"type": "object"}}]'


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{key: memory_input_s}", "the type of memory_input_s does not fit the parameter: expected"),
        ("{key: memory_9_nix}", "nothing writes memory_9_nix"),
        ("{key: memory_input_n}", None),
    ],
)
def test_what_is_given_to_a_routine_has_the_type_of_its_input(
    given: str, message: str | None, tmp_path: Path, capsys: Captured
) -> None:
    written(tmp_path, "b.yaml", TYPED)
    inputs = "inputs: {s: {type: string}, n: {type: integer}}\n"
    file = written(tmp_path, "a.yaml", f"name: a\n{inputs}steps:\n  - {{name: b, routine: b, arguments: {{x: {given}}}}}\n")
    assert main(["check", file, "--tools", written(tmp_path, "tools.json", LISTED)]) == (message is not None)
    said = capsys.readouterr().out
    assert (message or "no problems") in said
    assert message is None or "a.yaml:4: routine 'a', Step 1, field arguments.x" in said


def test_a_routine_that_never_ends_is_told_without_tools(tmp_path: Path, capsys: Captured) -> None:
    file = written(tmp_path, "a.yaml", "name: a\nsteps: [{name: b, routine: a}, {name: c, routine: nix}]\n")
    assert main(["check", file]) == 1
    said = capsys.readouterr().out
    assert "never ends: a runs a" in said
    assert "unknown routine 'nix'" in said


@pytest.mark.parametrize("form", ["mermaid", "svg"])
def test_show_marks_a_step_by_what_is_wrong_inside_the_routine_that_it_runs(
    form: str, tmp_path: Path, capsys: Captured
) -> None:
    written(tmp_path, "b.yaml", TYPED.replace("tool: t", "tool: unknown_tool"))
    run = "steps: [{name: first, tool: t}, {name: then, routine: b, arguments: {x: {const: 5}}}]\n"
    file = written(tmp_path, "a.yaml", f"name: a\n{run}")
    assert main(["show", file, "--as", form, "--tools", written(tmp_path, "tools.json", LISTED)]) == 0
    shown = capsys.readouterr().out
    assert "Branch 2-1 Step 1" in shown
    assert shown.count(":::problem" if form == "mermaid" else 'bad"') == 1


def test_lark_at_a_position_has_every_way_whichever_keys_are_live(capsys: Captured) -> None:
    examples = "docs/examples"
    listed = [f"{examples}/stale_pages.yaml", "--tools", f"{examples}/wiki_tools.json", "--position"]
    assert main(["lark", *listed, "1-1_1@0"]) == 0
    inside = capsys.readouterr().out
    assert all(tool in inside for tool in ("note", "ask", "read_page", "post"))
    assert main(["lark", *listed, "1"]) == 0
    assert "post" in capsys.readouterr().out  # the way of an empty list


def test_the_rows_of_a_model_are_prepared(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    from routine_grammar.demo.model import demo_model_path

    monkeypatch.setattr(stored, "own_folder", lambda: tmp_path)
    assert main(["prepare", str(demo_model_path())]) == 0
    (file,) = (tmp_path / "rows").iterdir()
    assert f"rows of its vocabulary are in {file}" in capsys.readouterr().out
    assert main(["prepare", str(tmp_path / "none")]) == 2
    assert "has no tokenizer that can be loaded" in capsys.readouterr().err


def test_machine_code_is_prepared(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare"]) == 0
    folder = Path(capsys.readouterr().out.removeprefix("machine code is in ").strip())
    assert is_complete(folder)
