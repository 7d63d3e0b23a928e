"""Load on servers: a scripted one whose answers are known, and a real one."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import AsyncIterator
from importlib.metadata import entry_points
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist, fmean
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from benchmarks.command import _parser, main
from benchmarks.results import Measurement, read_csv
from benchmarks.serving.arms import ANY_SPELLING, ARMS, FREE, GUIDANCE, OURS, REQUIRED, UNDRAFTED, XGRAMMAR, Arm
from benchmarks.serving.command import options_of
from benchmarks.serving.load import Answer, RefusedError, closed_loop, open_loop, session
from benchmarks.serving.measure import Cell, Way, run_cell, summarise, whole_rounds
from benchmarks.serving.servers import NUMBERS_OF_DRAFTS, Kind, Server, command
from benchmarks.statistics import mean_interval, percentile, ratio_interval, share_interval, student_t_95
from benchmarks.vocabularies import Tokenization
from benchmarks.workload import SIZES, Size, make_bounded_case
from tests.vocabularies import byte_vocabulary

pytestmark = pytest.mark.filterwarnings("ignore")

BYTES = Tokenization("bytes", byte_vocabulary(), lambda text: list(text.encode()))


class Scripted:
    """A server that answers calls by turns rightly, wrongly, and cut off, in two pieces; its counters say so."""

    def __init__(self, answers: list[tuple[str, str]]) -> None:
        self.answers = answers
        self.asked: list[dict[str, Any]] = []
        self.at_once = self.most_at_once = 0
        self.is_mute = False

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.json())
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        text, reason = self.answers[(len(self.asked) - 1) % len(self.answers)]
        if reason == "refused":
            return web.json_response({"error": "no"}, status=400)
        response = web.StreamResponse()
        await response.prepare(request)
        pieces: list[dict[str, Any]] = [{"choices": [{"delta": {"content": part}}]} for part in (text[:9], text[9:]) if part]
        pieces[-1]["choices"][0]["finish_reason"] = reason
        for piece in [*pieces, {"choices": [], "usage": {"completion_tokens": 7}}]:
            await response.write(f"data: {json.dumps(piece)}\n\n".encode())
            await asyncio.sleep(0.002)
        await response.write(b"data: [DONE]\n\n")
        self.at_once -= 1
        return response

    async def metrics(self, _: web.Request) -> web.Response:
        count = len(self.asked)
        if self.is_mute:
            return web.Response(text="python_info 1.0\n")
        lines = [f'vllm:spec_decode_num_draft_tokens_total{{engine="{n}"}} {2 * count}' for n in range(2)]
        lines.append(f"vllm:generation_tokens_total {7 * count}")
        return web.Response(text="\n".join([*lines, f"vllm:spec_decode_num_accepted_tokens_total {3 * count}", ""]))


@pytest.fixture
async def scripted() -> AsyncIterator[tuple[Scripted, Server]]:
    script = Scripted([])
    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", script.chat), web.get("/metrics", script.metrics)])
    async with TestServer(app, host="127.0.0.1") as server:
        yield script, Server(f"http://127.0.0.1:{server.port}/v1", "m")


async def test_a_round_tells_what_came_of_its_calls(scripted: tuple[Scripted, Server]) -> None:
    script, server = scripted
    turn = make_bounded_case("small", 1)
    script.answers = [(turn.samples[0], "stop"), (turn.samples[0][:12], "length"), ("no call", "stop")]
    async with session() as http:
        cell = await run_cell(http, server, Arm.of(OURS, [turn], BYTES), Way(12, clients=4), "seed")
    assert (len(cell.answers), cell.tokens, cell.invalid, cell.cut_off) == (12, 84, 4, 4)
    assert cell.counted == {"decoded": 84, "drafted": 48, "accepted": 36}
    assert 1 < script.most_at_once <= 4
    assert len({request["seed"] for request in script.asked}) == 12
    assert all(request["structured_outputs"] == {"grammar": turn.grammar.payload} for request in script.asked)
    assert all(0 < answer.first_s <= answer.last_s for answer in cell.answers)
    told = {(line.metric, line.unit): line for line in summarise("small", {(Way(12, clients=4), OURS): [cell, cell]})}
    assert told["passes a call", ""].middle == (84 - 36 + 8) / 12
    assert (told["drafts accepted", "%"].middle, told["drafts accepted", "%"].count) == (75, 96)
    assert told["invalid", "%"].middle == pytest.approx(100 / 3)
    assert told["calls", "/s"].middle == pytest.approx(cell.calls_per_s)


async def test_passes_are_not_told_of_a_server_that_counts_nothing(scripted: tuple[Scripted, Server]) -> None:
    script, server = scripted
    script.answers, script.is_mute = [("x", "stop")], True
    turn, way = make_bounded_case("small", 1), Way(4, clients=2)
    async with session() as http:
        found = {(way, name): [await run_cell(http, server, Arm.of(name, [turn], BYTES), way, "s")] * 2 for name in ARMS}
    told = {line.metric for line in summarise("small", found)}
    assert {"calls", "calls/s to vLLM guidance's"} & told
    assert not any(metric.startswith(("passes", "drafts")) for metric in told)


async def test_random_arrivals_come_whether_or_not_earlier_calls_are_answered(scripted: tuple[Scripted, Server]) -> None:
    script, server = scripted
    script.answers = [("x", "stop")]
    async with session() as http:
        load = await open_loop(http, server.url, lambda number: {"number": number}, 400, 60, 5)
        began = sorted(answer.began_s for answer in load.answers)
        again = await open_loop(http, server.url, lambda number: {"number": number}, 400, 60, 5)
    assert fmean(late - early for early, late in pairwise(began)) > 0.5 / 400
    assert [each.number for each in load.answers] == [each.number for each in again.answers] == list(range(60))


async def test_a_refused_request_ends_the_run(scripted: tuple[Scripted, Server]) -> None:
    script, server = scripted
    script.answers = [("", "refused")]
    async with session() as http:
        with pytest.raises(RefusedError, match="status 400"):
            await closed_loop(http, server.url, lambda _: {}, 1, 1)


def test_an_error_in_a_stream_is_no_answer() -> None:
    answer = Answer(0, 0.0, [(1.0, b'data: {"error": {"message": "out of memory"}}\n')])
    with pytest.raises(RefusedError, match="out of memory"):
        answer.read()


def test_pieces_of_tool_calls_are_joined() -> None:
    def piece(**function: str) -> bytes:
        call = {"index": 0, "function": function}
        return b"data: " + json.dumps({"choices": [{"delta": {"tool_calls": [call]}}]}).encode()

    pieces = [piece(name="a", arguments=""), piece(arguments='{"b": '), piece(arguments="1}")]
    answer = Answer(0, 10.0, list(zip((11.0, 13.0, 14.0), pieces, strict=True)))
    answer.tokens = 4
    answer.read()
    assert answer.calls == [{"name": "a", "arguments": '{"b": 1}'}]
    assert (answer.first_s, answer.last_s, answer.token_s) == (1.0, 4.0, 1.0)


@pytest.mark.parametrize("size", SIZES)
def test_bounded_turns_have_their_samples_on_their_side(size: str) -> None:
    case = make_bounded_case(size, 20, 3)
    assert len(set(case.samples)) > 10
    assert all(map(case.grammar.accepts, case.samples))
    required = Arm.of(REQUIRED, [case], BYTES)
    for text, valid in [*((text, True) for text in case.samples), *((text, False) for text in case.invalid[:4])]:
        document = json.loads(text.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>"))
        call = {"name": document["name"], "arguments": json.dumps(document["arguments"])}
        assert required.judge(Answer(0, 0.0, calls=[call], reason="stop")).valid is valid, text


def test_turns_of_any_size() -> None:
    case = make_bounded_case(Size(300, (3, 6), 400), 1)
    assert len(case.tools) == len({tool["function"]["name"] for tool in case.tools}) == 300


def test_every_arm_constrains_in_its_own_way() -> None:
    turn = make_bounded_case("medium", 2)
    requests = {name: Arm.of(name, [turn], BYTES).request("m", 0, "seed") for name in ARMS}
    assert len({request["seed"] for request in requests.values()}) == 1
    assert requests[FREE]["ignore_eos"] is True
    assert requests[XGRAMMAR]["structured_outputs"]["grammar"].startswith("root ::=")
    assert "start:" in requests[GUIDANCE]["structured_outputs"]["grammar"]
    assert requests[REQUIRED]["tool_choice"] == "required"
    assert requests[UNDRAFTED] == requests[OURS] | {"vllm_xargs": {"routine_drafts": 0}}
    assert Arm.of("ours with 8 drafts", [turn], BYTES).request("m", 0, "seed") == requests[OURS], "on a server of its own"
    judged = Arm.of(OURS, [turn], BYTES).judge(Answer(0, 0.0, content=turn.samples[0][:-2], reason="length"))
    assert (judged.valid, judged.cut_off) == (False, True)


def test_servers_are_started_by_what_tells_them_apart() -> None:
    flags = {kind: list(command(kind, Path("m"), 4)) for kind in Kind}
    drafts = {Kind.UNDRAFTED: "0", Kind.DRAFTED: "4", Kind.ANY_SPELLING: "4", **NUMBERS_OF_DRAFTS}
    for kind, given in flags.items():
        if kind in drafts:
            assert given[-2:] == ["--routine-drafts", str(drafts[kind])]
            assert "routine_grammar.serve" in given
        else:  # vLLM's own server, and nothing of ours that would change it
            assert f'{{"backend": "{kind}"}}' in given
            assert not any("routine_grammar.serve" in part or part.startswith("--routine") for part in given)
            assert "VLLM_PLUGINS=routine_grammar_environment" in given
            assert given[-2:] == ["--host", "127.0.0.1"]
    assert "any" in flags[Kind.ANY_SPELLING]


def test_vllm_s_own_server_finds_that_plugin_and_no_other_of_ours() -> None:
    named = {
        entry.group
        for group in ("general", "platform", "endpoint")
        for entry in entry_points(group=f"vllm.{group}_plugins")
        if entry.name == "routine_grammar_environment"
    }
    assert named == {"vllm.platform_plugins"}


def cells(calls_per_s: list[float], token_ms: list[float], accepted: float = 0) -> list[Cell]:
    made = []
    for rate, token in zip(calls_per_s, token_ms, strict=True):
        answer = Answer(0, 0.0, tokens=11, first_s=0.1, last_s=0.1 + token / 100)
        made.append(Cell([answer], 1 / rate, 0, 0, {"decoded": 11, "drafted": accepted, "accepted": accepted}, None))
    return made


def test_ratios_are_paired_by_round() -> None:
    """A machine that is twice as slow in one round is so for both arms of it."""
    way = Way(1, clients=1)
    found = {
        (way, FREE): cells([5, 2.5, 5, 2.5], [10, 20, 10, 20]),
        (way, XGRAMMAR): cells([4, 2, 4, 2], [12, 24, 12, 24]),
        (way, GUIDANCE): cells([3, 1.5, 3, 1.5], [12, 24, 12, 24]),
        (way, OURS): cells([8, 4, 8.4, 4], [10.1, 20.2, 10.1, 20.2], 8),
        (way, ANY_SPELLING): cells([4, 2, 4.2, 2], [10.1, 20.2, 10.1, 20.2], 8),
    }
    told = {(line.arm, line.metric): line for line in summarise("small", found) if line.unit == "x"}
    ratio = told[OURS, "calls/s to vLLM xgrammar's"]
    assert 1.9 < ratio.low < 2.0 < ratio.middle < ratio.high < 2.2
    assert told[OURS, "passes a call to vLLM xgrammar's"].middle == pytest.approx(4 / 11)
    assert told[OURS, "a token to unconstrained"].middle == pytest.approx(1.01)
    assert told[ANY_SPELLING, "calls/s to ours"].middle == pytest.approx(0.5)


def test_intervals_hold_what_they_claim() -> None:
    quantiles = {1: 12.71, 3: 3.18, 5: 2.571, 19: 2.093, 10_000: 1.96}
    assert list(map(student_t_95, quantiles)) == pytest.approx(list(quantiles.values()), rel=0.01)
    rng, held = random.Random(1), [0, 0, 0]
    for _ in range(1_000):
        values = [rng.gauss(10, 2) for _ in range(8)]
        _, low, high = mean_interval(values)
        held[0] += low <= 10 <= high
        twice = [abs(value) * 2 * math.exp(rng.gauss(0, 0.1)) for value in values]
        _, low, high = ratio_interval(twice, list(map(abs, values)))
        held[1] += low <= 2 <= high
        _, low, high = share_interval(sum(rng.random() < 0.3 for _ in range(50)), 50)
        held[2] += low <= 0.3 <= high
    assert all(920 < count < 980 for count in held), held
    assert percentile([5, 1, 3], 0.5) == 3
    assert NormalDist().cdf(1.959964) == pytest.approx(0.975, abs=1e-6)


@pytest.mark.parametrize(
    "options",
    [["--arms", f"{XGRAMMAR},{GUIDANCE}"], ["--arms", "ours with 8 drafts"], ["--cold", "2"], ["--growth"], ["--drafts", "3"]],
)
def test_what_one_server_cannot_tell_apart_is_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--url", "http://127.0.0.1:9/v1", *options]) == 1
    assert "--url: one server" in capsys.readouterr().out


def test_of_an_interrupted_run_the_whole_rounds_are_told() -> None:
    ways = Way(1, clients=1), Way(1, clients=8)
    found = {(way, arm): cells([4, 2, 4, 2], [10, 20, 10, 20]) for way in ways for arm in (FREE, OURS)}
    found[ways[1], OURS].pop()
    assert {len(each) for each in whole_rounds(found).values()} == {3}
    found[ways[1], OURS][1:] = []
    assert not whole_rounds(found)
    assert not whole_rounds({})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--clients", "0"], "'0': expected numbers of clients above 0"),
        (["--clients", "8,-1"], "expected numbers of clients above 0"),
        (["--rates", "0"], "'0': expected calls a second above 0"),
        (["--rates", "inf"], "expected calls a second above 0"),
        (["--arms", "theirs"], "'theirs' is none of"),
    ],
)
def test_numbers_that_measure_nothing_are_refused(options: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", *options])
    assert told in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("options", [["--arms", ""], ["--clients", "", "--rates", ""]])
def test_nothing_is_not_measured(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *options]) == 1
    assert "there is nothing to measure" in capsys.readouterr().out


def test_arms_and_numbers_that_come_twice_are_measured_once() -> None:
    options = options_of(_parser().parse_args(["serve", "--arms", "ours,ours", "--clients", "1,8,1"]))
    assert (options.arms, options.clients) == ((OURS,), (1, 8))
    assert options_of(_parser().parse_args(["serve", "--url", "http://a/v1/"])).url == "http://a/v1"


def test_one_round_has_no_interval(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--rounds", "1"]) == 1
    assert "--rounds 1: there is no interval" in capsys.readouterr().out


@pytest.mark.server
def test_a_real_server_is_measured(base_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--url", base_url, "--model", "routine-demo", "--arms", f"{FREE},{OURS}", "--sizes", "small"]
    options += ["--clients", "2", "--rates", "20", "--rounds", "2", "--output", str(tmp_path)]
    status, said = main(["serve", *options]), capsys.readouterr().out
    assert status == 0, said
    assert "serve: small, round 2, 20 calls/s at random, " in said
    (file,) = tmp_path.glob("*_serve_small.csv")
    header, lines = read_csv(file)
    assert header["grammars"].startswith("4 turns of each size")
    assert (header["servers"], header["model"], header["rounds"]) == ("one that ran already", "routine-demo", "2")
    told: dict[tuple[str, str, str], Measurement] = {(line.case, line.arm, line.metric): line for line in lines}
    for way in ("small, 2 clients", "small, 20 calls/s at random"):
        assert told[way, OURS, "invalid"].middle == told[way, OURS, "cut off"].middle == 0
        assert told[way, OURS, "calls"].middle > 0
        assert (way, OURS, "passes a call") not in told, "the demo's server counts nothing"
    assert told["small, 2 clients", OURS, "a token to unconstrained"].unit == "x"
