"""What the demo's turns accept, judged by `re`, by llguidance and by Lark: 1,000 texts of theirs and 1,000 edits."""

from __future__ import annotations

import random
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from itertools import cycle

import lark
import pytest

from routine_grammar import MemoryKey, Vocabulary
from routine_grammar.api import CompiledRoutine, Turn
from routine_grammar.automaton.automaton import Automaton
from routine_grammar.demo.model import demo_model_path
from routine_grammar.grammar.lark_reader import read_lark
from routine_grammar.grammar.turn import position_rule
from tests.grammar.calls import TEXT, call
from tests.grammar.peer import PeerMatcher, peer_tokenizer
from tests.grammar.samples import Sampler
from tests.scale import SCALE
from tests.vocabularies import byte_vocabulary

MARKER = re.compile(rb"(</?tool_call>)")


@dataclass(frozen=True)
class Said:
    """Bytes said at a turn; `drawn`: they are a text of its grammar, not an edit of one."""

    turn: Turn
    data: bytes
    drawn: bool

    @property
    def text(self) -> str | None:
        """The text that the bytes are; None where they are not UTF-8."""
        try:
            return self.data.decode()
        except UnicodeDecodeError:
            return None


EXTRA = (
    MemoryKey("memory_9_note", TEXT, "a note"),
    MemoryKey("memory_9_count", {"type": "integer"}),
    MemoryKey("memory_9_office", None, "Europe/Berlin"),
    MemoryKey("memory_9_unknown"),
)


def turns_of(compiled: CompiledRoutine) -> Iterable[Turn]:
    """The turns at every position: with the keys written on every path, on some path, and with others beside them."""
    for position in compiled.graph.positions:
        always, sometimes = compiled.graph.keys_before(position)
        yield compiled.turn(position, always)
        yield compiled.turn(position, sometimes)
        yield compiled.turn(position, [*sometimes, *EXTRA])


@pytest.fixture(scope="module")
def said(demo: dict[str, CompiledRoutine]) -> list[Said]:
    """Distinct texts of all turns, round and round, each followed by an edit of one byte."""
    samplers = [
        (turn, Sampler(turn.tree, number)) for compiled in demo.values() for number, turn in enumerate(turns_of(compiled))
    ]
    rng, seen, found = random.Random(1), set[tuple[int, str]](), list[Said]()
    for turn, sampler in cycle(samplers):
        if len(found) == 2_000 * SCALE:
            break
        text = sampler.text()
        if (id(turn), text) not in seen:
            seen.add((id(turn), text))
            found += [Said(turn, text.encode(), True), Said(turn, edited(text.encode(), rng), False)]
    return found


def edited(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one replaced, added, removed, or swapped with the next; they may be UTF-8 no longer."""
    place = rng.randrange(len(data))
    byte = bytes((rng.choice((rng.randrange(256), rng.choice(b'"\\<>{}[],: 01aeu_\n'), rng.choice(data))),))
    before, here, after = data[:place], data[place : place + 1], data[place + 1 :]
    return rng.choice(
        (before + byte + after, before + byte + here + after, before + after, before + after[:1] + here + after[1:])
    )


def agreed(said: list[Said], judge: Callable[[Said], bool]) -> None:
    """Hold a judge against `accepts` on all that was said, and see that there was enough of every kind."""
    counts: Counter[str] = Counter()
    for each in said:
        accepted = each.turn._automaton.accepts(each.data)
        assert accepted == (each.text is not None and each.turn.accepts(each.text))
        assert judge(each) == accepted, (each.turn.position, each.data)
        counts[f"{'drawn' if each.drawn else 'edited'}, {'valid' if accepted else 'invalid'}"] += 1
        counts["no UTF-8"] += each.text is None
    assert counts["drawn, valid"] == 1_000 * SCALE
    assert counts["edited, valid"] + counts["edited, invalid"] == 1_000 * SCALE
    assert min(counts["edited, valid"], counts["edited, invalid"], counts["no UTF-8"]) > 50 * SCALE, counts


def test_the_regular_expression_of_a_turn_matches_what_it_accepts(said: list[Said]) -> None:
    patterns = cache(re.compile)
    agreed(said, lambda each: each.text is not None and bool(patterns(each.turn.regex).fullmatch(each.text)))


def test_llguidance_over_bytes_accepts_what_a_turn_accepts(said: list[Said]) -> None:
    vocabulary = byte_vocabulary()
    tokenizer = peer_tokenizer(vocabulary)
    peers = cache(lambda lark_text: PeerMatcher(tokenizer, lark_text))
    agreed(said, lambda each: peers(each.turn.lark_for("llguidance", vocabulary)).accepts(list(each.data)))


@pytest.fixture(scope="module")
def demo_vocabulary() -> Vocabulary:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoTokenizer

        return Vocabulary.from_tokenizer(AutoTokenizer.from_pretrained(str(demo_model_path())))


def test_llguidance_over_tokens_accepts_what_a_turn_accepts(said: list[Said], demo_vocabulary: Vocabulary) -> None:
    """Some spelling of the text in tokens, the markers as their own; with markers spelled by other tokens, none."""
    tokenizer = peer_tokenizer(demo_vocabulary)
    peers = cache(lambda lark_text: PeerMatcher(tokenizer, lark_text))
    tokens_by_text = {token: number for number, token in enumerate(demo_vocabulary.tokens) if token}
    rng, spelled_markers = random.Random(2), 0

    def judge(each: Said) -> bool:
        nonlocal spelled_markers
        peer = peers(each.turn.lark_for("llguidance", demo_vocabulary))
        if MARKER.search(each.data):
            spelled_markers += 1
            assert not peer.accepts(spelling(each.data, tokens_by_text, rng))
        tokens = [
            token
            for part in MARKER.split(each.data)
            for token in (
                [demo_vocabulary.special[part.decode()]] if MARKER.fullmatch(part) else spelling(part, tokens_by_text, rng)
            )
        ]
        accepted = peer.accepts(tokens)
        matcher = each.turn.matcher(demo_vocabulary)
        assert (all(map(matcher.advance, tokens)) and matcher.may_end) == accepted
        return accepted

    agreed(said, judge)
    assert spelled_markers > 1_000 * SCALE


def test_the_bounds_of_lists_and_thoughts_are_the_same_to_all_judges(demo: dict[str, CompiledRoutine]) -> None:
    office = "memory_input_first_office"
    convert = call("convert_time", source_timezone="Asia/Tokyo", time="09:30", target_timezone=office)
    policy = demo["expense_approval"].turn("1", demo["expense_approval"].graph.keys_before("1")[0])
    branch = demo["meeting_times"].turn("1", demo["meeting_times"].graph.keys_before("1")[0])
    texts = [
        (policy, call("check_policy", report="memory_1_report", rules=["limits"] * count), 1 <= count <= 4)
        for count in range(7)
    ]
    texts += [(branch, f"Thought: {'é' * chars}\nStep 2\n{convert}", 1 <= chars <= 60) for chars in (0, 1, 59, 60, 61, 90)]
    vocabulary = byte_vocabulary()
    tokenizer = peer_tokenizer(vocabulary)
    for turn, text, expected in texts:
        assert turn.accepts(text) == expected, text
        assert bool(re.fullmatch(turn.regex, text)) == expected, text
        peer = PeerMatcher(tokenizer, turn.lark_for("llguidance", vocabulary))
        assert peer.accepts(list(text.encode())) == expected, text


def spelling(data: bytes, tokens: dict[bytes, int], rng: random.Random) -> list[int]:
    """Tokens that spell the bytes: at each place the longest, or any other one."""
    spelled = []
    while data:
        fitting = [data[:length] for length in range(min(len(data), 24), 0, -1) if data[:length] in tokens]
        token = fitting[0] if rng.random() < 0.7 else rng.choice(fitting)
        spelled.append(tokens[token])
        data = data[len(token) :]
    return spelled


def test_the_whole_routine_is_one_grammar_with_a_rule_for_each_position(demo: dict[str, CompiledRoutine]) -> None:
    verdicts: Counter[bool] = Counter()
    for compiled in demo.values():
        rules = {position: position_rule(position) for position in compiled.graph.positions}
        assert len(set(rules.values())) == len(rules)
        judge = lark.Lark(compiled.lark, start=list(rules.values()), parser="earley")
        read = read_lark(compiled.lark)
        for position, rule in rules.items():
            turn = compiled.turn(position, compiled.graph.keys_before(position)[1])
            ours, sampler = Automaton(replace(read, root=read.rules[rule])), Sampler(turn.tree, 3)
            for _ in range(4 * SCALE):
                text = sampler.text()
                for candidate in (text, sampler.edited(text)):
                    accepted = turn.accepts(candidate)
                    assert parses(judge, candidate, rule) == ours.accepts(candidate.encode()) == accepted, candidate
                    verdicts[accepted] += 1
    assert min(verdicts.values()) > 40 * SCALE, verdicts
    assert position_rule("2-1_10-1_1") == "at_2_1_10_1_1"


def parses(judge: lark.Lark, text: str, start: str) -> bool:
    try:
        judge.parse(text, start=start)
    except lark.exceptions.UnexpectedInput:
        return False
    return True
