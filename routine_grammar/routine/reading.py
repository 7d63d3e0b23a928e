"""A file or a text to a Routine: decodes, bounds, and picks the form by suffix or content."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from routine_grammar.errors import RoutineError
from routine_grammar.routine.documents import Document, read_bytes, read_json, read_yaml
from routine_grammar.routine.flat import is_flat, unflattened
from routine_grammar.routine.forms import routine_from_document
from routine_grammar.routine.model import Routine
from routine_grammar.routine.problems import NO_FILE, Origin
from routine_grammar.routine.text import read_text

MAX_BYTES = 2**20

# The text form begins at once, or at a <routines> line after other text.
_TEXT_FORM = re.compile(r"\A(?:Routine:|Step +1[.:])|^<routines>[ \t\r]*$", re.MULTILINE)

_Reader = Callable[[str, str], Document]
_BY_SUFFIX: dict[str, _Reader] = {
    ".yaml": read_yaml,
    ".yml": read_yaml,
    ".json": read_json,
    ".txt": read_text,
    ".md": read_text,
}


def load_routine(path: Path) -> Routine:
    """Read a Routine from a file; raises `RoutineError`."""
    try:
        content = read_bytes(path, MAX_BYTES)
    except ValueError as error:
        raise RoutineError(f"{path}: {error}") from error
    except OSError as error:
        raise RoutineError(f"{path}: can't be read: {error.strerror or error}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise RoutineError(f"{path}:{line}: not UTF-8: byte 0x{content[error.start]:02x}") from error
    return _read(text, str(path), _BY_SUFFIX.get(path.suffix.lower()) or _reader_for(text))


def routines_beside(path: Path, routine: Routine) -> dict[str, Routine]:
    """Read the Routines that one runs, and those that these run, from files of their names in the folder of its file.

    What is not there is left out. Raises `RoutineError` for a file that is no Routine.
    """
    found: dict[str, Routine] = {}
    waiting = [routine]
    while waiting:
        for name in {step.routine for step in waiting.pop() if step.routine is not None} - found.keys():
            files = (path.parent / f"{name}{suffix}" for suffix in _BY_SUFFIX if is_file_name(name))
            for file in (file for file in files if file.is_file()):
                found[name] = load_routine(file)
                waiting.append(found[name])
                break
    return found


def is_file_name(name: str) -> bool:
    """Tell whether a Routine's name names a file in a folder, and none elsewhere."""
    return Path(name).name == name


def parse_routine(text: str) -> Routine:
    """Read a Routine from a text, in the form that it looks like; raises `RoutineError`."""
    if len(text) > MAX_BYTES:
        raise RoutineError(f"the text is longer than {MAX_BYTES} characters")
    return _read(text, None, _reader_for(text))


def _reader_for(text: str) -> _Reader:
    if text.lstrip()[:1] in {"{", "["}:
        return read_json
    return read_text if _TEXT_FORM.search(text.lstrip()) else read_yaml


def _read(text: str, file: str | None, reader: _Reader) -> Routine:
    label = file or NO_FILE
    if not text.strip():
        raise RoutineError(f"{label}: empty; expected a Routine")
    if "\0" in text:
        raise RoutineError(f"{label}:{text[: text.index(chr(0))].count(chr(10)) + 1}: a NUL character; expected text")
    document = reader(text, label)
    try:
        json.dumps(document.value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise RoutineError(f"{label}: a text holds half of a surrogate pair, which is no character") from error
    if is_flat(document.value):
        document = unflattened(document, label)
    return routine_from_document(document.value, Origin(file, document.lines))
