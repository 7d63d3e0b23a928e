"""Peers of an environment of their own: the newest ones, where vLLM holds back others.

`python -m benchmarks.newest FILE` with PYTHONPATH at the folder that pip put them into: a process that times, and checks, what
it is told to on standard input, a line each, from one file that has every grammar as text and every sample as tokens.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.arms import LLGUIDANCE, OURS, XGRAMMAR, Arm, GuidanceArm, OurArm, allows, make_peers
from benchmarks.compile_and_mask import POSITIONS_CHECKED, DisagreementError, Times, measure_texts
from benchmarks.vocabularies import Tokenization, demo_tokenization, largest_tokenization
from benchmarks.workload import Case

FOLDER = Path(__file__).parents[1] / ".peers"
NEWEST = "{}, newest"
_UNFORCED = "unforced"


class NewestPeers:
    """The process. `versions` are those of its peers."""

    def __init__(self, process: subprocess.Popen[str], cases: Sequence[Case]) -> None:
        self._process = process
        self._numbers = {case.name: number for number, case in enumerate(cases)}
        self.versions: dict[str, str] = self._asked({})["versions"]

    def check(self, case: Case) -> None:
        """Raise `DisagreementError` where a peer differs: in what it accepts, or in a row along a sample."""
        told = self._asked({"check": self._numbers[case.name]})["differs"]
        if told:
            raise DisagreementError(f"case {case.name}: {told}")

    def measure_round(self, case: Case, seed: int) -> dict[str, list[Times]]:
        """As `compile_and_mask.measure_round`, in the process."""
        found = self._asked({"case": self._numbers[case.name], "seed": seed})["times"]
        return {NEWEST.format(arm): [Times(**each) for each in times] for arm, times in found.items()}

    def _asked(self, question: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(question), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise OSError("the process of the newest peers ended")
        return dict(json.loads(answer))


@contextmanager
def newest_peers(
    folder: Path, tokenization: Tokenization, cases: Sequence[Case], *, large: bool
) -> Iterator[NewestPeers | None]:
    """The process over the peers in a folder, which ends with the context; None where there is no such folder."""
    if not folder.exists():
        yield None
        return
    with tempfile.TemporaryDirectory() as beside:
        file = Path(beside) / "cases.json"
        file.write_text(json.dumps({"large": large, "cases": [_written(case, tokenization) for case in cases]}))
        paths = os.pathsep.join(filter(None, (str(folder.resolve()), os.environ.get("PYTHONPATH", ""))))
        command = [sys.executable, "-m", "benchmarks.newest", str(file)]
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=FOLDER.parent,
            env={**os.environ, "PYTHONPATH": paths},
        ) as process:
            try:
                yield NewestPeers(process, cases)
            finally:
                process.kill()


def _written(case: Case, tokenization: Tokenization) -> dict[str, Any]:
    """A case as its texts and tokens, with what each row along a sample has to be, as a hash."""
    unforced = GuidanceArm(tokenization, forcing=False)
    texts = {arm.name: arm.text(case) for arm in make_peers(tokenization)} | {_UNFORCED: unforced.text(case)}
    samples = [tokenization.encode(text) for text in case.samples]
    ours = OurArm(tokenization)
    compiled = ours.compile(ours.text(case))
    rows, checked = [], 0
    for sample in samples:
        if checked < POSITIONS_CHECKED:
            rows.append(_rows(compiled, sample))
            checked += len(sample)
    invalid = [tokenization.encode(text) for text in case.invalid]
    return {
        "texts": texts,
        "samples": samples,
        "invalid": invalid,
        "rows": rows,
        "spelled": not tokenization.vocabulary.special,
    }


def _rows(compiled: Any, tokens: Sequence[int]) -> list[str]:
    following, found = compiled.start(), []
    for token in tokens:
        following.fill()
        found.append(blake2b(following.row.tobytes(), digest_size=8).hexdigest())
        following.accept(token)
    return found


def _differs(case: Mapping[str, Any], arms: Sequence[Arm], unforced: Arm) -> str:
    """What a peer does otherwise than ours; empty where all do the same."""
    for arm in arms:
        compiled = arm.compile(case["texts"][arm.name])
        for kind, expected in (("samples", True), ("invalid", False)):
            for tokens in case[kind]:
                if allows(compiled.start(), tokens) is not expected:
                    return f"{NEWEST.format(arm.name)} {'refuses a sample' if expected else 'allows an invalid text'}"
        if arm.name == LLGUIDANCE:
            compiled = unforced.compile(case["texts"][_UNFORCED])
        elif not case["spelled"]:
            continue
        for tokens, rows in zip(case["samples"], case["rows"], strict=False):
            found = _rows(compiled, tokens)
            if found != rows:
                place = next(place for place, (one, other) in enumerate(zip(found, rows, strict=True)) if one != other)
                return f"{NEWEST.format(arm.name)} and {OURS} have other rows at token {place} of a sample"
    return ""


def main() -> None:
    """Answer questions until standard input ends."""
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    folder = Path(os.environ["PYTHONPATH"].split(os.pathsep)[0])
    tokenization = largest_tokenization() if given["large"] else demo_tokenization()
    arms = [arm for arm in make_peers(tokenization) if _is_in(folder, arm.name)]
    unforced = GuidanceArm(tokenization, forcing=False)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        question = json.loads(line)
        answer: dict[str, Any]
        if "check" in question:
            answer = {"differs": _differs(given["cases"][question["check"]], arms, unforced)}
        elif "case" in question:
            case = given["cases"][question["case"]]
            times = measure_texts(case["texts"], arms, case["samples"], question["seed"])
            answer = {"times": {arm: [asdict(each) for each in found] for arm, found in times.items()}}
        else:
            answer = {"versions": {arm.name: importlib.metadata.version(arm.name) for arm in arms}}
        print(json.dumps(answer), file=answers, flush=True)


def _is_in(folder: Path, name: str) -> bool:
    """Whether a library is the one of a folder."""
    assert name in (LLGUIDANCE, XGRAMMAR)
    spec = find_spec(name)
    return spec is not None and spec.origin is not None and Path(spec.origin).is_relative_to(folder)


if __name__ == "__main__":
    main()
