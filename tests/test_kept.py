"""What is kept: within its bytes, and the least recently used goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict

from hypothesis import given, settings
from hypothesis import strategies as st

from routine_grammar.kept import Kept, kept
from tests.scale import SCALE


@settings(max_examples=200 * SCALE, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6), st.integers(0, 9)), max_size=40), st.integers(0, 25))
def test_the_least_recently_used_goes_first(done: list[tuple[bool, int, int]], most: int) -> None:
    values = Kept[int, int](most, lambda size: size)
    expected: OrderedDict[int, int] = OrderedDict()
    for is_put, key, size in done:
        if is_put:
            assert values.put(key, size) == expected.get(key, size)
            expected.setdefault(key, size)
            while sum(expected.values()) > most and len(expected) > 1:
                expected.popitem(last=False)
        else:
            assert values.get(key) == expected.get(key)
            if key in expected:
                expected.move_to_end(key)
        assert (len(values), values.nbytes) == (len(expected), sum(expected.values()))


def test_a_function_is_asked_once_for_what_is_kept() -> None:
    asked: list[str] = []

    @kept(10, len)
    def doubled(text: str) -> str:
        asked.append(text)
        return 2 * text

    assert [doubled(text) for text in ("ab", "ab", "abcd", "ab", "ab")] == ["abab", "abab", "abcdabcd", "abab", "abab"]
    assert asked == ["ab", "abcd", "ab"]


def test_several_threads_find_one_value() -> None:
    values = Kept[int, object](100, lambda _: 1)
    found: list[object] = []
    barrier = threading.Barrier(8)

    def put() -> None:
        barrier.wait()
        found.extend(values.put(key, object()) for key in range(50))

    threads = [threading.Thread(target=put) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 50
