from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from rich.console import Console

from routine_grammar.agent.calls import ToolCall
from routine_grammar.agent.execution import CallMade, End, Finished, TurnTaken
from routine_grammar.agent.tools import ServerConfig, ToolResult, ToolServers
from routine_grammar.api import compile_routine
from routine_grammar.console import Waiting, one_line, wrapped
from routine_grammar.demo.catalogue import demo_routines, demo_tools
from routine_grammar.demo.repository import throwaway_repository
from routine_grammar.demo.run import carry_out, require_packages, run_demo
from routine_grammar.demo.server import model_server as served
from routine_grammar.demo.view import share, show_end, show_turn
from routine_grammar.errors import EngineError, RoutineError, RunError, ToolError
from routine_grammar.masks.vocabulary import Vocabulary
from routine_grammar.routine import MemoryKey, Routine
from tests.agent.model_server import model_server, say

SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/v1/models" else 404); self.end_headers()
    def log_message(self, *arguments): pass
print("\\x1b[32mloading\\x1b[0m the model", flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[-1])), Handler).serve_forever()
"""
REVIEW = [
    say("", ("git_status", {"repo_path": "memory_input_repo_path"})),
    say("Thought: changed", ("git_diff_unstaged", {"repo_path": "memory_input_repo_path"})),
    say("", ("git_diff_staged", {"repo_path": "memory_input_repo_path", "context_lines": 3})),
    say("", ("git_log", {"repo_path": "memory_input_repo_path", "max_count": 3})),
    say("", ("git_branch", {"repo_path": "memory_input_repo_path", "branch_type": "local"})),
    say("", ("git_diff", {"repo_path": "memory_input_repo_path", "target": "HEAD", "context_lines": "memory_input_wide_view"})),
    say("", ("get_current_time", {"timezone": "Etc/UTC"})),
    say("One file is changed."),
]


def git(*arguments: str) -> str:
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout


def checkout(folder: Path) -> Path:
    git("init", "-q", str(folder))
    for number in range(2):
        (folder / "code.py").write_text(f"print({number})\n")
        git("-C", str(folder), "add", ".")
        git("-C", str(folder), "commit", "-q", "-m", f"commit {number}")
    return folder / "code.py"


def console(width: int = 100) -> tuple[Console, io.StringIO]:
    output = io.StringIO()
    return Console(file=output, width=width, highlight=False), output


def test_the_repository_is_a_clone_with_a_change(tmp_path: Path) -> None:
    file = checkout(tmp_path / "checkout")
    folder = throwaway_repository(tmp_path, file)
    assert git("-C", str(folder), "log", "--format=%s") == "commit 1\ncommit 0\n"
    assert git("-C", str(folder), "status", "--porcelain") == " M code.py\n"
    assert git("-C", str(file.parent), "status", "--porcelain") == ""


def test_a_small_repository_where_there_is_no_whole_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = checkout(tmp_path / "checkout")
    git("clone", "-q", "--depth", "1", f"file://{file.parent}", str(tmp_path / "shallow"))
    untracked = file.parent / "untracked.py"
    untracked.touch()
    monkeypatch.setenv("GIT_DIR", str(file.parent / ".git"))
    for number, source in enumerate((tmp_path / "shallow" / "code.py", untracked, tmp_path / "nothing.py")):
        parent = tmp_path / str(number)
        parent.mkdir()
        folder = throwaway_repository(parent, source)
        with monkeypatch.context() as outside:
            outside.delenv("GIT_DIR")
            assert len(git("-C", str(folder), "log", "--format=%s").splitlines()) == 3
            assert git("-C", str(folder), "status", "--porcelain") == " M README.md\n"


def test_a_machine_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match="git is not installed"):
        throwaway_repository(tmp_path)


def gone(process: int) -> bool:
    """Whether a process has ended, waited for or not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def test_a_server_is_started_and_stopped_with_its_children(tmp_path: Path) -> None:
    told: list[str] = []
    started = tmp_path / "started"
    child = "import os, subprocess\nchild = subprocess.Popen(['sleep', '600'])\n"
    note = f"open({str(started)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
    async with served(lambda elapsed, line: told.append(line), (sys.executable, "-c", child + note + SERVER)) as url:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1", url)
        processes = [int(number) for number in started.read_text().split()]
        assert not any(gone(process) for process in processes)
    assert set(told) <= {"", "loading the model"}
    time.sleep(0.1)
    assert all(gone(process) for process in processes)


@pytest.mark.parametrize(
    ("code", "timeout_s", "message"),
    [
        ("print('no such flag'); raise SystemExit(3)", 20, r"ended with status 3; the end of its log:\n  no such flag"),
        ("import time; print('busy', flush=True); time.sleep(60)", 1.5, r"did not answer within 1.5 s; .*\n  busy"),
    ],
)
async def test_a_server_that_does_not_start(code: str, timeout_s: float, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        async with served(lambda elapsed, line: None, (sys.executable, "-c", code), start_timeout_s=timeout_s):
            pass


async def test_a_server_that_dies_meanwhile_shows_its_log() -> None:
    dies = SERVER.replace("404)", "os._exit(7))").replace("import http.server, sys", "import http.server, os, sys")

    async def use_it() -> None:
        async with served(lambda elapsed, line: None, (sys.executable, "-c", dies)) as url:
            with pytest.raises(httpx.HTTPError):
                httpx.get(f"{url}/other", trust_env=False)
            time.sleep(0.2)
            raise RunError("no answer")

    with pytest.raises(EngineError, match=r"(?s)ended with status 7 \(no answer\); the end of its log:\n  loading the model"):
        await use_it()


def review() -> Routine:
    return next(routine for routine in demo_routines() if routine.name == "repository_review")


def test_forced_tokens_are_counted() -> None:
    tokens = [bytes((byte,)) for byte in range(256)]
    vocabulary = Vocabulary([*tokens, b"", b"", b""], {"<tool_call>": 256, "</tool_call>": 257}, [258])
    compiled = compile_routine(review(), demo_tools())
    keys = [
        MemoryKey(f"memory_input_{name}", {"type": kind}) for name, kind in (("repo_path", "string"), ("wide_view", "integer"))
    ]
    call = b'\n{"name": "git_status", "arguments": {"repo_path": "memory_input_repo_path"}}\n'
    turn = compiled.turn("start", keys)
    assert turn.matcher(vocabulary).count_forced([256, *call, 257, 258]) == len(call) + 3
    assert turn.matcher(vocabulary).count_forced([256, *call[:5]]) == 6
    assert turn.matcher(vocabulary).count_forced([256, *call, 256]) is None
    assert turn.matcher(vocabulary).count_forced([999]) is None
    # At a branch: whether there is a thought, and which of `git_diff…` and `git_show` it is, is not forced.
    call = b'\n{"name": "git_show", "arguments": {"repo_path": "memory_input_repo_path", "revision": "HEAD"}}\n'
    turn = compiled.turn("1", [*keys, MemoryKey("memory_1_status", {"type": "string"})])
    assert turn.matcher(vocabulary).count_forced([256, *call, 257, 258]) == len(call) + 3 - 2


async def test_a_whole_review_is_shown(tmp_path: Path) -> None:
    repository = throwaway_repository(tmp_path)
    configs = [ServerConfig(name, sys.executable, ("-m", f"mcp_server_{name}")) for name in ("git", "time")]
    inputs = {"repo_path": str(repository), "narrow_view": 1, "wide_view": 8}
    shown, output = console()
    routine = review()
    with model_server(REVIEW, routines=[{"name": routine.name}]) as played:
        http = DefaultAsyncHttpxClient(trust_env=False)
        async with (
            ToolServers(configs) as servers,
            AsyncOpenAI(base_url=played.base_url, api_key="none", http_client=http) as client,
        ):
            await carry_out(routine, servers, client, inputs, shown)
    text = output.getvalue()
    assert max(map(len, text.splitlines())) <= 100
    assert not re.search(r"[ \t]$", text, re.MULTILINE)
    assert "\x1b" not in text
    assert "may come  git_diff_unstaged or git_show" in text
    assert "decoded   Thought: changed\n          git_diff_unstaged {" in text
    assert "step      Step 5. Note the time of the review" in text
    assert re.search(r"memory_1_status +Repository status", text)
    assert re.search(r"\nanswer    One file is changed\.\n\nDone: 7 turns, every call valid, \d+\.\d s\n$", text)
    assert git("-C", str(repository), "diff", "--cached") == ""
    assert all(request["return_token_ids"] for request in played.requests)


async def test_a_server_without_a_model() -> None:
    shown, _ = console()
    with model_server([], models=[]) as played:
        http = DefaultAsyncHttpxClient(trust_env=False)
        async with ToolServers([]) as servers, AsyncOpenAI(base_url=played.base_url, api_key="x", http_client=http) as client:
            with pytest.raises(RunError, match="serves no model"):
                await carry_out(review(), servers, client, {}, shown)


def a_turn(text: str = "ok", structured: object = None, *, is_error: bool = False, **fields: Any) -> TurnTaken:
    step = review().step("1")
    given: dict[str, Any] = {
        "number": 1,
        "position": "start",
        "permitted": ("git_status",),
        "may_end": False,
        "live_keys": (),
        "content": "",
        "calls": (CallMade(ToolCall("1", "git_status", "{}"), step, {}, {}, ToolResult(text, structured, is_error), text),),
        "token_ids": (),
        "attempts": 1,
    }
    return TurnTaken(**(given | fields))


def test_what_a_tool_says_is_neither_markup_nor_a_control_sequence() -> None:
    shown, output = console(60)
    show_turn(shown, a_turn("[bold]x[/bold]\n\x1b[2Jy\n" + "z" * 500 + "\n1\n2\n3\n4\n5", may_end=True), None)
    text = output.getvalue()
    assert "result    [bold]x[/bold]\n           [2Jy\n" in text
    assert "… and 2 more lines" in text
    assert "may come  git_status or a final answer" in text
    assert "keys      none" in text
    assert max(map(len, text.splitlines())) <= 60


def test_a_structured_result_is_shown_in_few_rows() -> None:
    shown, output = console(60)
    show_turn(shown, a_turn("{\n}", {"word": "x " * 200}, token_ids=(1, 2, 3)), 2)
    rows = output.getvalue().partition("result")[2].splitlines()
    assert len(rows) == 4
    assert rows[2].endswith("…")
    assert rows[3] == "tokens    3 tokens, 2 of them forced (67 %)"


def test_the_sum_is_only_told_where_all_is_known() -> None:
    turns = [a_turn(token_ids=(1, 2)), a_turn(token_ids=(3, 4))]
    for forced, expected in (([2, 1], "4 tokens, 3 of them forced (75 %)"), ([2, None], "4 tokens")):
        shown, output = console()
        show_end(shown, turns, Finished(End.STEPS_DONE, "5", 2), forced, 1.25)
        assert f"Done: 2 turns, every call valid, {expected}, 1.2 s" in output.getvalue()
    assert share(0, 0) == "0 tokens"


def test_lines_are_cut_by_columns() -> None:
    assert one_line("a\tb\nc", 80) == "a b c"
    assert one_line("abcdef", 4) == "abc…"
    assert one_line("漢字漢字", 5) == "漢字…"
    assert wrapped("one two three", 8) == ["one two", "three"]
    assert wrapped("", 8) == [""]


def test_waiting_prints_lines_now_and_then_where_there_is_no_terminal() -> None:
    shown, output = console(60)
    with Waiting(shown, "starting") as waiting:
        for elapsed_s in range(0, 25, 5):
            waiting.update(elapsed_s, "loading [weights]")
    assert output.getvalue().splitlines() == [
        "starting …",
        "starting, 10 s: loading [weights]",
        "starting, 20 s: loading [weights]",
    ]


def test_waiting_moves_on_a_terminal() -> None:
    output = io.StringIO()
    shown = Console(file=output, width=60, force_terminal=True)
    with Waiting(shown, "starting") as waiting:
        waiting.update(3, "loading [weights]")
    assert "starting" in output.getvalue()


def test_missing_packages_are_named() -> None:
    require_packages("mcp_server_git")
    with pytest.raises(ToolError, match=r"missing \(no_such_module\); install them: pip install json no-such-module"):
        require_packages("json", "no_such_module")


@pytest.mark.parametrize(("name", "hint"), [("repository_revew", "did you mean 'repository_review'"), ("expense_approval", "")])
def test_a_routine_that_can_not_be_shown(name: str, hint: str) -> None:
    with pytest.raises(
        RoutineError, match=rf"no demo of a Routine '{name}'; there are meeting_times, repository_review.*{hint}"
    ):
        run_demo(routine=name)


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(RunError, match=r"no model server answers at http://127\.0\.0\.1:9/v1/"):
        run_demo("http://127.0.0.1:9/v1", "meeting_times", console()[0])


def test_sigterm_stops_the_demo_with_its_tools(tmp_path: Path) -> None:
    with model_server([say("", ("get_current_time", {"timezone": "memory_input_first_office"}))], delay_s=3) as played:
        command = [sys.executable, "-m", "routine_grammar", "demo", "--base-url", played.base_url, "--routine", "meeting_times"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while not played.requests and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "interrupted\n")
