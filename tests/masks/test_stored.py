"""Rows kept in a file: as those that were made, read by any number of processes, made anew where the file is no good."""

from __future__ import annotations

import json
import logging
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from routine_grammar.api import compile_schema
from routine_grammar.automaton.automaton import Automaton
from routine_grammar.automaton.leaf import LeafLibrary
from routine_grammar.grammar.terminals import load
from routine_grammar.grammar.tree import Choice, Grammar, Leaf
from routine_grammar.grammar.usual import usual_terminals
from routine_grammar.masks import stored
from routine_grammar.masks.leaf_rows import VocabularyRows
from routine_grammar.masks.matcher import Matcher
from routine_grammar.masks.rows import TokenRows
from routine_grammar.masks.stored import MAGIC, make_ready
from routine_grammar.masks.vocabulary import Vocabulary
from tests.vocabularies import byte_vocabulary

WORDS = ('": "', '", "', "ab", 'c", ', "memory_", "12", "é", "\\u00", '"}', "3, ", '"a', "<", "true")
TERMINALS = usual_terminals()[:6]


def vocabulary() -> Vocabulary:
    return byte_vocabulary(WORDS)


def rows_of_leaves(over: VocabularyRows) -> list[tuple[bytes, ...]]:
    """All that rows of the terminals' states say."""
    leaves = tuple(Leaf(f"L{number}", terminal) for number, terminal in enumerate(TERMINALS))
    automaton = Automaton(Grammar(Choice(leaves)), library=over.library)
    found = []
    for terminal in TERMINALS:
        start = over.library.start(terminal)
        for state in range(start, start + over.library.count(terminal)):
            row = over.leaf_row(state, automaton.handle)
            tries = [getattr(row.rests, name) for name in ("byte", "depth", "skip", "token", "same", "root")]
            found.append(tuple(each.tobytes() for each in (row.base, row.starts, row.exits, *tries)))
    return found


def test_what_is_read_is_what_was_made(tmp_path: Path) -> None:
    made = rows_of_leaves(VocabularyRows(vocabulary(), LeafLibrary()))
    file = make_ready(vocabulary(), TERMINALS, tmp_path)
    assert [file] == list(tmp_path.iterdir())
    written = file.read_bytes()
    again = vocabulary()
    assert make_ready(again, TERMINALS, tmp_path) == file
    assert file.read_bytes() == written
    for name in ("byte", "depth", "skip", "token", "same", "root"):
        assert np.array_equal(getattr(again.trie, name), getattr(vocabulary().trie, name))
    shared = VocabularyRows.shared(again)
    start = shared.library.start(TERMINALS[0])
    assert start in shared._given
    assert rows_of_leaves(shared) == made
    later = VocabularyRows.shared(again, LeafLibrary())  # a library that took the place of the first
    assert later is not shared
    assert rows_of_leaves(later) == made


def test_what_compiled_code_knows_stays_where_it_is(tmp_path: Path) -> None:
    """A vocabulary may have rows in use as it is made ready, once more too: by every engine of a process."""
    make_ready(vocabulary(), TERMINALS, tmp_path)
    over = vocabulary()
    tree = compile_schema({"type": "string"}).tree
    rows = TokenRows(Automaton(tree), VocabularyRows.shared(over))
    matcher, trie = Matcher(rows), over.trie
    for _ in range(2):
        make_ready(over, TERMINALS, tmp_path)
        assert over.trie is trie
        given = VocabularyRows.shared(over)._given
        assert given
    assert [over.tokens[token] for token in matcher.allowed().tolist() if over.tokens[token][:2] == b'"a'] == [b'"a']


def test_masks_over_rows_that_were_read_are_the_same(tmp_path: Path) -> None:
    make_ready(vocabulary(), usual_terminals(), tmp_path)
    read, plain = vocabulary(), vocabulary()
    make_ready(read, usual_terminals(), tmp_path)
    tree = compile_schema({"type": "object", "additionalProperties": {"type": ["string", "number", "integer"]}}).tree
    library = LeafLibrary()
    matchers = [Matcher(TokenRows(Automaton(tree, library=library), VocabularyRows(plain, library)))]
    shared = VocabularyRows.shared(read)
    matchers.append(Matcher(TokenRows(Automaton(tree, library=shared.library), shared)))
    rng = random.Random(3)
    for _ in range(80):
        one, other = (matcher.allowed() for matcher in matchers)
        assert np.array_equal(one, other)
        token = int(rng.choice(one))
        if not all(matcher.advance(token) for matcher in matchers) or matchers[0].finished:
            break


def of_another_vocabulary(_: bytes) -> bytes:
    """A file that is whole, with rows over fewer tokens."""
    with TemporaryDirectory() as folder:
        return make_ready(byte_vocabulary(WORDS[:3]), TERMINALS, Path(folder)).read_bytes()


@pytest.mark.parametrize(
    ("spoiled", "told"),
    [
        (lambda data: b"", "does not begin"),
        (lambda data: data[:100], "checksum"),
        (lambda data: data[:-1], "checksum"),
        (lambda data: data[:5_000] + bytes((data[5_000] ^ 1,)) + data[5_001:], "checksum"),
        (lambda data: b"PK\x03\x04" + data[4:], "does not begin"),
        (lambda data: data[: len(MAGIC)] + bytes(32) + data[len(MAGIC) + 32 :], "checksum"),
        (of_another_vocabulary, "the trie is not of this vocabulary"),
    ],
)
def test_a_file_that_is_no_good_is_told_and_made_anew(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    spoiled: Callable[[bytes], bytes],
    told: str,
) -> None:
    file = make_ready(vocabulary(), TERMINALS, tmp_path)
    written = file.read_bytes()
    file.write_bytes(spoiled(written))
    with caplog.at_level(logging.WARNING, logger=stored.__name__):
        again = vocabulary()
        make_ready(again, TERMINALS, tmp_path)
    assert f"{file} is damaged, and made anew: " in caplog.text
    assert told in caplog.text
    assert file.read_bytes() == written
    assert rows_of_leaves(VocabularyRows.shared(again)) == rows_of_leaves(VocabularyRows(vocabulary(), LeafLibrary()))


def test_another_version_or_vocabulary_has_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {make_ready(vocabulary(), TERMINALS, tmp_path).name}
    names.add(make_ready(byte_vocabulary((*WORDS, "more")), TERMINALS, tmp_path).name)
    names.add(make_ready(vocabulary(), TERMINALS[:2], tmp_path).name)
    monkeypatch.setattr(stored, "_source", lambda: b"another")
    names.add(make_ready(vocabulary(), TERMINALS, tmp_path).name)
    assert len(names) == 4
    assert {file.name for file in tmp_path.iterdir()} == names


def test_a_folder_that_is_none_costs_time_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    over = vocabulary()
    assert not make_ready(over, TERMINALS, tmp_path / "file" / "rows").exists()
    assert rows_of_leaves(VocabularyRows.shared(over)) == rows_of_leaves(VocabularyRows(vocabulary(), LeafLibrary()))


def test_the_format_is_as_it_is_told(tmp_path: Path) -> None:
    data = make_ready(vocabulary(), TERMINALS, tmp_path).read_bytes()
    begin = len(MAGIC) + 32
    size = int.from_bytes(data[begin : begin + 8], "little")
    header = json.loads(data[begin + 8 : begin + 8 + size])
    assert tuple(map(load, header["leaves"])) == TERMINALS
    end = begin + 8 + size
    for _, dtype, count in header["arrays"]:
        end += -end % 64 + count * np.dtype(dtype).itemsize
    assert end == len(data)


WRITER = """
import sys
from pathlib import Path
from routine_grammar.masks.stored import make_ready
from tests.masks.test_stored import TERMINALS, vocabulary
for _ in range(6):
    print(make_ready(vocabulary(), TERMINALS, Path(sys.argv[1])).stat().st_size)
"""


def test_several_processes_may_write_one_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    root = Path(__file__).parents[2]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root) for _ in range(3)
    ]
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    assert len({line for out, _ in said for line in out.split()}) == 1
    assert not any("damaged" in error for _, error in said)
    assert len(list(tmp_path.iterdir())) == 1
