"""Every source file has a test file of its own, where a reader would look for it."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.architecture.source import SRC, TESTS, modules, tree

EXEMPT = {
    "api/routes/audit.py": "tests/api/test_audit.py asks every route",
    "api/routes/billing.py": "tests/api/test_billing.py asks every route",
    "api/routes/api_keys.py": "tests/api/test_tenants.py asks every route",
    "api/routes/tenants.py": "tests/api/test_tenants.py asks every route",
    "gateway/api_keys.py": "tests/api/test_tenants.py administers as administrators do",
    "gateway/tenants.py": "tests/api/test_tenants.py administers as administrators do",
    "gateway/events.py": "one query; tests/api/test_billing.py reads what it tells",
    "gateway/fallback.py": "tests/api/test_fallback.py drives it with the real SDK",
    "cli/demo/exact.py": "a chapter; tests/acceptance/test_demo.py plays it",
    "cli/demo/mistakes.py": "a chapter; tests/acceptance/test_demo.py plays it",
    "cli/demo/proof.py": "a chapter; tests/acceptance/test_demo.py plays it",
    "gateway/ports.py": "Protocols only",
    "receipts/value.py": "one type alias",
    "storage/config.py": "two dataclasses without behaviour",
    "storage/errors.py": "errors without behaviour",
    "storage/tx.py": "Protocols only; tests/storage holds both engines to them",
}
"""Files without a twin, and why."""

WHOLE_ROOM = {"receipts/test_isolation.py": "what importing the library loads"}
"""Unit tests of a room rather than of one of its files."""


def _needs_a_twin(path: Path) -> bool:
    """Whether a file has anything but a docstring, imports and names."""
    plain = (ast.Expr, ast.Import, ast.ImportFrom, ast.Assign)
    return path.name != "__init__.py" and any(
        not isinstance(node, plain) for node in tree(path).body
    )


def test_every_file_has_a_twin() -> None:
    """`room/file.py` has `tests/unit/room/test_file.py`, or one in the room's own suite."""
    alone = [
        name
        for path in modules(SRC)
        if _needs_a_twin(path) and not _has_twin(name := path.relative_to(SRC).as_posix())
    ]
    assert [name for name in alone if name not in EXEMPT] == []


def test_no_exemption_is_stale() -> None:
    """Who has a twin, or is gone, needs no exemption."""
    assert [n for n in EXEMPT if _has_twin(n) or not (SRC / n).exists()] == []


def test_no_twin_without_a_source() -> None:
    """A unit test whose file was renamed or removed moves or goes with it."""
    unit = TESTS / "unit"
    astray = [
        name.as_posix()
        for path in modules(unit)
        if (name := path.relative_to(unit)).name.startswith("test_")
        and not (SRC / name.parent / name.name.removeprefix("test_")).exists()
        and not (SRC / name.parent / name.stem.removeprefix("test_")).is_dir()
    ]
    assert [name for name in astray if name not in WHOLE_ROOM] == []


def _has_twin(name: str) -> bool:
    room, _, file = name.rpartition("/")
    places = [TESTS / "unit" / room / f"test_{file}", TESTS / room / f"test_{file}"]
    return any(place.exists() for place in places)
