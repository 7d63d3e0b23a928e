"""What asks for much work is refused after about a second of it, and what only looks so is compiled."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from routine_grammar.api import compile_lark, compile_regex, compile_schema
from routine_grammar.effort import MAX_EFFORT, bounded, spend
from routine_grammar.errors import GrammarError, GrammarTooLargeError, UnsupportedSchemaError

TOO_MUCH = r"takes more than about a second to compile, the bound"
ANY_WORD = {"type": "string"}


def doubling(levels: int) -> Any:
    definitions: dict[str, Any] = {"d0": {"type": "object"}}
    for level in range(1, levels + 1):
        property_of_it = {"required": [f"x{level}"], "properties": {f"x{level}": {"type": "integer"}}}
        definitions[f"d{level}"] = {"oneOf": [{"$ref": f"#/$defs/d{level - 1}"}, property_of_it]}
    return {"$ref": f"#/$defs/d{levels}", "$defs": definitions}


SCHEMAS = {
    "bounds": {"type": "object", "properties": {f"p{n}": {"type": "integer", "minimum": n} for n in range(10_000)}},
    "expressions": {"oneOf": [{**ANY_WORD, "pattern": f"^a{{{n}}}b*$"} for n in range(200)]},
    "doubling": doubling(14),
    "alternatives": {"oneOf": [{"required": [f"k{n}"], "properties": {f"k{n}": {"const": 1}}} for n in range(200)]},
    "names": {"type": "object", "patternProperties": {f"^p{n}$": ANY_WORD for n in range(3_000)}},
    "objects": {"properties": {f"p{n}": {"properties": {"a": {"type": "integer"}, "b": ANY_WORD}} for n in range(10_000)}},
    "references": {
        "properties": {f"p{n}": {"$ref": f"#/$defs/d{n}"} for n in range(10_000)},
        "$defs": {f"d{n}": {"properties": {"a": {"type": "integer"}}} for n in range(10_000)},
    },
    "values": {"enum": [{"a": n, "b": [n]} for n in range(29_999)]},
    "conditions": {
        "oneOf": [
            {"anyOf": [{"propertyNames": {"maxLength": 1}}]},
            {"patternProperties": {"^a": {"multipleOf": 1.5}, "[^a]": {"$ref": "#", "type": "object"}}},
        ]
    },
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_that_asks_for_too_much_is_refused_by_a_keyword(name: str) -> None:
    schema = SCHEMAS[name]
    with pytest.raises(UnsupportedSchemaError, match=TOO_MUCH) as refused:
        compile_schema(schema)
    value: Any = schema
    for part in refused.value.pointer.split("/")[1:-1]:
        value = value[int(part) if isinstance(value, list) else part]
    assert refused.value.keyword in value


@pytest.mark.parametrize(
    "pattern", ["(?:^|x)" * 1_500, f"({'|'.join('a' * n for n in range(1, 600))})*"], ids=["edges", "words"]
)
def test_an_expression_that_asks_for_too_much_is_refused(pattern: str) -> None:
    with pytest.raises(GrammarTooLargeError, match=TOO_MUCH):
        compile_regex(pattern)


@pytest.mark.parametrize(
    "text",
    [
        "start: " + " | ".join(f'"word {n}"' for n in range(40_000)),
        "start: r0\n" + "".join(f'r{n}: "w"\n' for n in range(20_000)),
    ],
    ids=["alternatives", "rules"],
)
def test_a_lark_text_that_asks_for_too_much_is_refused(text: str) -> None:
    with pytest.raises(GrammarTooLargeError, match=TOO_MUCH):
        compile_lark(text)


@pytest.mark.parametrize("pattern", ["x*" * 5_000, "(?:x|y)*" * 3_000, "(?:.|x)*" * 2_000], ids=["x", "x or y", "any"])
def test_many_loops_in_a_row_take_no_more_than_others(pattern: str) -> None:
    grammar = compile_regex(pattern)
    assert grammar.accepts("x" * 40)
    assert not grammar.accepts("x\n")


def test_what_a_bound_does_not_hold_for_is_not_counted() -> None:
    spend(2 * MAX_EFFORT)
    with bounded(10):
        spend(10)
        with bounded(1_000), pytest.raises(GrammarTooLargeError, match=TOO_MUCH):  # the outer bound holds
            spend(1)
    with bounded(10):
        spend(10)


@pytest.mark.parametrize("compiled", [lambda: compile_regex("a+"), lambda: compile_schema({"type": "integer"})])
def test_every_compile_has_a_bound_of_its_own(compiled: Callable[[], object]) -> None:
    for _ in range(3):
        with pytest.raises(GrammarError, match=TOO_MUCH):
            compile_regex("(?:^|x)" * 1_500)
        compiled()


@pytest.mark.parametrize("is_on", [True, False])
def test_garbage_is_collected_as_before_once_all_threads_have_compiled(is_on: bool) -> None:
    both, was_on = threading.Barrier(2, timeout=60), gc.isenabled()
    seen: list[bool] = []

    def compile_beside(waits_longer: bool) -> None:
        with suppress(GrammarTooLargeError), bounded(10):
            both.wait()
            seen.append(gc.isenabled())
            if waits_longer:
                both.wait()
                seen.append(gc.isenabled())
            spend(11)
        if not waits_longer:
            both.wait()

    try:
        (gc.enable if is_on else gc.disable)()
        threads = [threading.Thread(target=compile_beside, args=(longer,)) for longer in (False, True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [False] * 3
        assert gc.isenabled() == is_on
    finally:
        (gc.enable if was_on else gc.disable)()
