"""What no source file may contain, however well it works."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.architecture.source import ROOT, SRC, TESTS, called, modules, texts, tree

_SQL = re.compile(
    r"\b(SELECT\b.*\bFROM|INSERT\s+INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM|"
    r"(CREATE|ALTER|DROP)\s+(TABLE|INDEX)|PRAGMA\s+\w+)\b",
    re.DOTALL,
)
_UNWANTED = {
    r"\b(TODO|FIXME|HACK)\b": "work that is left belongs into an issue",
    r"\bfor now\b|\btemporary (hack|fix|solution)\b": "what is written is meant",
    r"/home/\w+|/Users/\w+": "a path of one machine",
}
_NAMES_PUT_TOGETHER = {
    "storage/copying.py": "table and column names of its own, LiteralString all of them",
    "storage/together.py": "whole statements that stand in the code, one beside the other",
}
_MECHANISMS = {"utils", "util", "common", "helpers", "misc"}


def _place(path: Path, node: ast.AST | None = None) -> str:
    line = f":{node.lineno}" if isinstance(node, ast.stmt | ast.expr) else ""
    return f"{path.relative_to(ROOT).as_posix()}{line}"


def test_no_sql_is_put_together() -> None:
    """SQL is never formatted, added or joined from parts: values go in by name."""
    found: list[str] = []
    for path in modules(SRC):
        if path.relative_to(SRC).as_posix() in _NAMES_PUT_TOGETHER:
            continue
        for node in ast.walk(tree(path)):
            match node:
                case ast.JoinedStr() | ast.BinOp(op=ast.Mod() | ast.Add()):
                    made = True
                case ast.Call():
                    made = called(node) in ("format", "join", "replace")
                case _:
                    made = False
            if made and any(_SQL.search(text) for text in texts(node)):
                found.append(_place(path, node))
    assert found == []


def test_no_unwanted_words() -> None:
    """No notes to oneself, and no traces of the machine that it was written on."""
    found = [
        f"{_place(path)}: {match[0]!r}: {reason}"
        for path in [*modules(SRC), *modules(ROOT / "bench"), *ROOT.glob("docs/**/*.md")]
        for pattern, reason in _UNWANTED.items()
        if (match := re.search(pattern, path.read_text("utf-8")))
    ]
    assert found == []


def test_a_module_says_what_it_is_for() -> None:
    """Every module begins with a docstring."""
    silent = [
        _place(path)
        for path in [*modules(SRC), *modules(TESTS), *modules(ROOT / "bench")]
        if path.read_text("utf-8").strip() and not ast.get_docstring(tree(path))
    ]
    assert silent == []


def test_a_test_says_what_must_hold() -> None:
    """Every test has a docstring: the sentence that it proves."""
    silent = [
        f"{_place(path, node)} {node.name}"
        for path in modules(TESTS)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


def test_no_mechanism_for_a_name() -> None:
    """A file is a noun of the domain; `utils`, `common` and `helpers` are none."""
    inside = [path.relative_to(SRC) for path in modules(SRC)]
    assert [path for path in inside if _MECHANISMS & {path.stem, *path.parent.parts}] == []
