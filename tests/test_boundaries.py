"""A package imports only what stands to its left in the pipeline; the table of what each must not know."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import routine_grammar

ROOT = Path(routine_grammar.__file__).parent
ALLOWED = {
    "errors": set[str](),
    "kept": set(),
    "effort": {"errors"},
    "patterns": {"errors", "effort", "jit", "kept"},
    "routine": {"errors", "patterns"},
    "grammar": {"errors", "effort", "patterns", "routine", "jit", "kept"},
    "jit": set(),
    "automaton": {"errors", "patterns", "grammar", "jit"},
    "masks": {"errors", "grammar", "automaton", "jit", "kept"},
    "kernels": {"errors", "jit"},
    "warm_up": {"errors", "grammar", "automaton", "masks", "kernels", "explanation", "jit"},
    "engines": {"errors", "effort", "grammar", "automaton", "masks", "kernels", "warm_up"},
    "agent": {"errors", "routine", "grammar", "automaton", "masks"},
    "console": set(),
    "runs": {"errors", "routine", "agent", "console"},
    "demo": {"errors", "console", "routine", "grammar", "automaton", "masks", "kernels", "engines", "agent", "api", "serve"},
    "serve": {"errors", "routine", "grammar", "automaton", "masks", "kernels", "engines", "agent", "api", "demo", "kept"},
    "explanation": {"errors", "patterns", "routine", "grammar", "automaton"},
    "api": {"errors", "effort", "routine", "grammar", "automaton", "masks", "kernels", "engines", "explanation"},
    "__init__": {"api", "masks", "routine"},
    "__main__": {"errors", "routine", "grammar", "engines", "agent", "api", "serve", "demo", "warm_up", "runs"},
}
ONLY_IN = {
    "vllm": {"engines", "serve", "api", "demo"},
    "triton": {"kernels"},
    "torch": {"kernels", "engines", "warm_up"},
    "lark": {"routine", "grammar"},
    "numba": {"jit", "automaton", "kernels"},
    "mcp": {"agent"},
    "mcp_types": {"agent"},
    "httpx2": {"agent"},
    "openai": {"agent", "demo", "runs"},
    "sqlalchemy": {"runs"},
    "pydantic": {"routine", "agent", "serve"},
    "transformers": {"engines", "demo"},
    "outlines": {"engines"},
}


def imports_of(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "routine_grammar")


def package_of(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def files() -> list[Path]:
    return sorted(file for folder in (ROOT, ROOT / "kernels") for file in folder.rglob("*.py"))


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_a_module_imports_only_what_its_package_may_know(file: Path) -> None:
    package = package_of(file)
    for name in imports_of(file):
        top, _, rest = name.partition(".")
        if top == "routine_grammar" and rest:
            other = rest.partition(".")[0]
            assert other == package or other in ALLOWED[package], f"{package} imports {name}"
        elif top in ONLY_IN:
            assert package in ONLY_IN[top], f"{package} imports {name}"
