"""What belongs to a vocabulary, kept in a file: its trie, and the rows of the leaves that most grammars have.

Made once and read at every later start. A file is the MAGIC, the SHA-256 of all that follows, the length of the header (8
bytes, little-endian), the header (JSON: the arrays in order, each as `[name, dtype, elements]`, and the `leaves` as terminals
are dumped), and the arrays, little-endian, each beginning at a multiple of 64 bytes. Its name is a hash of the tokens, the
terminals and this package's source: a file of another version is never found. One that is damaged is told by a warning and made
anew. It is put in its place as a whole, so that any number of processes may do so.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from routine_grammar.automaton.automaton import Automaton
from routine_grammar.automaton.compiling import LeafAutomaton
from routine_grammar.automaton.step import RETURN
from routine_grammar.grammar.terminals import Terminal, dump, load
from routine_grammar.grammar.tree import Choice, Grammar, Leaf
from routine_grammar.jit import PACKAGE, own_folder
from routine_grammar.masks.leaf_rows import LeafRow, Stored, VocabularyRows
from routine_grammar.masks.trie import Trie
from routine_grammar.masks.vocabulary import Vocabulary

_LOG = logging.getLogger(__name__)
MAGIC = b"routine_grammar rows 1\n\0"
_HEAD = len(MAGIC) + 32 + 8
_ALIGNED = 64
_TRIE = ("byte", "depth", "skip", "token", "same", "root")
_NODES = ("byte", "depth", "skip", "token")  # of a trie: an element for each node

Arrays = Mapping[str, npt.NDArray[Any]]


def make_ready(vocabulary: Vocabulary, terminals: Sequence[Terminal], folder: Path | None = None) -> Path:
    """Have the rows of some terminals ready for a vocabulary: read from their file, or made and written to it.

    `folder`: where files are, None for that of this package's machine code. Returns where the file is, or would be.
    """
    file = (folder or own_folder() / "rows") / f"{_name(vocabulary, terminals)}.rows"
    if VocabularyRows.has_stored(vocabulary):
        return file
    try:
        stored = _read(file, vocabulary)
    except FileNotFoundError:
        stored = None
    except (ValueError, KeyError, TypeError, IndexError, OSError) as error:
        _LOG.warning("%s is damaged, and made anew: %s", file, error)
        stored = None
    if stored is not None:
        vocabulary.__dict__.setdefault("trie", stored.trie)  # compiled code may know where another stands by now
        VocabularyRows.shared(vocabulary).adopt(stored)
        return file
    rows = VocabularyRows.shared(vocabulary)
    made = _made(rows, terminals)
    rows.adopt(made)
    with suppress(OSError):  # a folder that can't be written to costs the next start some tenths of a second
        _write(file, _arrays(made), [dump(terminal) for terminal in terminals])
    return file


def _name(vocabulary: Vocabulary, terminals: Sequence[Terminal]) -> str:
    told = hashlib.sha256(MAGIC + _source())
    told.update(vocabulary.offsets.tobytes())
    told.update(vocabulary.blob.tobytes())
    told.update(json.dumps([dump(terminal) for terminal in terminals]).encode())
    return told.hexdigest()[:32]


@cache
def _source() -> bytes:
    """A hash of this package's source: what rows are may be told by any of it."""
    told = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        told.update(file.read_bytes())
    return told.digest()


def _made(rows: VocabularyRows, terminals: Sequence[Terminal]) -> Stored:
    """Make the rows of every state of some terminals."""
    leaves = [Leaf(f"LEAF_{number}", terminal) for number, terminal in enumerate(terminals)]
    automaton = Automaton(Grammar(Choice(tuple(leaves))), library=rows.library)
    library, found, automata = rows.library, list[LeafRow](), []
    for terminal in terminals:
        start, count = library.start(terminal), library.count(terminal)
        table = library.table[start : start + count]
        accepting = library.accepting[start : start + count].copy()
        automata.append(LeafAutomaton(np.where(table >= 0, table - start, table), accepting))
        found += [rows.leaf_row(state, automaton.handle) for state in range(start, start + count)]
    return Stored(rows.vocabulary.trie, tuple(terminals), tuple(automata), found.__getitem__)


# As arrays


def _arrays(stored: Stored) -> dict[str, npt.NDArray[Any]]:
    states = [len(leaf.table) for leaf in stored.automata]
    rows = [stored.row(number) for number in range(sum(states))]
    arrays: dict[str, npt.NDArray[Any]] = {f"trie.{name}": getattr(stored.trie, name) for name in _TRIE}
    arrays["leaves.states"] = np.array(states, np.int32)
    arrays["leaves.table"] = np.concatenate([leaf.table for leaf in stored.automata]).astype(np.int32)
    arrays["leaves.accepting"] = np.concatenate([leaf.accepting for leaf in stored.automata]).astype(np.uint8)
    arrays["rows.base"] = np.concatenate([row.base for row in rows])
    arrays["rows.sizes"] = np.array([[len(row.starts), len(row.exits), len(row.rests.byte)] for row in rows], np.int32)
    for name in ("starts", "exits"):
        arrays[f"rows.{name}"] = np.concatenate([getattr(row, name) for row in rows]).astype(np.int32)
    for name in _TRIE:
        arrays[f"rests.{name}"] = np.concatenate([getattr(row.rests, name) for row in rows])
    return arrays


def _stored(arrays: Arrays, leaves: Sequence[Any], vocabulary: Vocabulary) -> Stored:
    """What arrays say. Raises `ValueError` where they don't fit each other, or the vocabulary."""
    states = arrays["leaves.states"].tolist()
    table = arrays["leaves.table"].reshape(sum(states), 256)
    accepting = arrays["leaves.accepting"].astype(np.bool_)
    if not (len(leaves) == len(states) and len(accepting) == sum(states)):
        raise ValueError("leaves and their states differ in number")
    begins = np.cumsum([0, *states]).tolist()
    automata = tuple(LeafAutomaton(table[begin:end], accepting[begin:end]) for begin, end in pairwise(begins))
    if any(((leaf.table < RETURN) | (leaf.table >= len(leaf.table))).any() for leaf in automata):
        raise ValueError("a leaf leads to a state that it has not")
    trie = Trie(*(arrays[f"trie.{name}"] for name in _TRIE))
    if len(trie.same) != vocabulary.size or len({len(getattr(trie, name)) for name in _NODES}) != 1:
        raise ValueError("the trie is not of this vocabulary")
    return Stored(trie, tuple(map(load, leaves)), automata, _Rows(arrays, sum(states), vocabulary).row)


class _Rows:
    """The rows of a file, each made when it is asked for."""

    def __init__(self, arrays: Arrays, count: int, vocabulary: Vocabulary) -> None:
        self._arrays = arrays
        self._bases = arrays["rows.base"].reshape(count, vocabulary.words)
        sizes = arrays["rows.sizes"].reshape(count, 3)
        self._starts, self._exits, self._nodes, self._rests = (
            np.concatenate([[0], np.cumsum(column)]).tolist() for column in (*sizes.T, sizes[:, 0] - 1)
        )
        self._roots = arrays["rests.root"].reshape(count, 256)
        self._uncounted = np.zeros(vocabulary.size, np.int32)
        lengths = {"rows.starts": self._starts, "rows.exits": self._exits, "rests.same": self._rests}
        lengths |= {f"rests.{name}": self._nodes for name in _NODES}
        for name, ends in lengths.items():
            if len(arrays[name]) != ends[-1]:
                raise ValueError(f"{name} has {len(arrays[name])} elements; expected {ends[-1]}")

    def row(self, number: int) -> LeafRow:
        """The row of a state."""

        def part(name: str, ends: Sequence[int]) -> Any:
            return self._arrays[name][ends[number] : ends[number + 1]]

        byte, depth, skip, token = (part(f"rests.{name}", self._nodes) for name in _NODES)
        rests = Trie(byte, depth, skip, token, part("rests.same", self._rests), self._roots[number])
        starts, exits = part("rows.starts", self._starts), part("rows.exits", self._exits)
        return LeafRow(self._bases[number], rests, starts, exits, self._uncounted)


# As bytes


def _write(file: Path, arrays: Arrays, leaves: Sequence[Any]) -> None:
    """Put a file in its place as a whole."""
    told = [[name, array.dtype.str, array.size] for name, array in arrays.items()]
    header = json.dumps({"arrays": told, "leaves": leaves}).encode()
    parts = [len(header).to_bytes(8, "little"), header]
    size = len(MAGIC) + 32 + sum(map(len, parts))
    for array in arrays.values():
        data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        parts += [bytes(-size % _ALIGNED), data]
        size += -size % _ALIGNED + len(data)
    behind = b"".join(parts)
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=file.parent)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(MAGIC + hashlib.sha256(behind).digest() + behind)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _read(file: Path, vocabulary: Vocabulary) -> Stored:
    """Read a file. Raises `FileNotFoundError` where there is none, another error where it is damaged."""
    data = bytearray(file.read_bytes())  # what is made of it is written to by nobody, but compiled code takes no other
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError("it does not begin as such files do")
    if hashlib.sha256(memoryview(data)[len(MAGIC) + 32 :]).digest() != data[len(MAGIC) : len(MAGIC) + 32]:
        raise ValueError("its checksum is another")
    end = _HEAD + int.from_bytes(data[_HEAD - 8 : _HEAD], "little")
    header = json.loads(data[_HEAD:end])
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, dtype, count in header["arrays"]:
        begin = end + -end % _ALIGNED
        arrays[name] = np.frombuffer(data, np.dtype(dtype), count, begin)
        end = begin + arrays[name].nbytes
    return _stored(arrays, header["leaves"], vocabulary)
