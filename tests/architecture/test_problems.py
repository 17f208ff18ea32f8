"""Every code that can refuse a request has its row in the table, and every row a use."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.architecture.source import SRC, called, modules, texts, tree

from signet.api.problems import PROBLEMS

REFUSING = {"problem", "problem_response", "Refused", "NotAccepted", "Refusal"}
"""What is called with a code, as its first argument or as `code=`."""

ROOMS = ("api", "gateway")
"""Where requests are refused; below, the same words mean other things."""


def codes() -> Iterator[tuple[str, str]]:
    """Every code that is written where a refusal is made, with its place."""
    for path in (path for room in ROOMS for path in modules(SRC / room)):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and called(node) in REFUSING:
                given = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
                for value in given or node.args[:1]:
                    for text in texts(value):
                        yield text, f"{path.relative_to(SRC)}:{node.lineno}"


def test_every_code_has_a_row() -> None:
    """No refusal can meet a KeyError where its status should be."""
    found = dict(codes())
    assert len(found) > 15
    assert {code: place for code, place in found.items() if code not in PROBLEMS} == {}


def test_every_row_is_used() -> None:
    """A row that nothing raises any more is gone from the table, and so from the pages."""
    written = {
        text for path in modules(SRC) if path.name != "problems.py" for text in texts(tree(path))
    }
    assert PROBLEMS.keys() - written == set()
