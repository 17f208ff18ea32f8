"""`signet migrate`: says what is lacking, applies it, and can be repeated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.faults.durability import EngineName, place
from tests.live import run_signet


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_command(engine: EngineName, tmp_path: Path) -> None:
    """--check says what is lacking and exits 1 until --apply has been run; both may be repeated,
    and need to know of the database alone."""
    with place(engine, tmp_path) as at:
        apply_and_check(at.settings, tmp_path)


def apply_and_check(settings: Mapping[str, str], tmp_path: Path) -> None:
    """The whole way from an empty database to the newest schema."""
    lacking = run_signet("migrate", "--check", cwd=tmp_path, settings=settings)
    assert lacking.returncode == 1
    assert "at schema 0; it lacks 0001 log" in lacking.stdout
    applied = run_signet("migrate", "--apply", cwd=tmp_path, settings=settings)
    assert applied.returncode == 0, applied.stderr
    assert "applied 0001 log\n" in applied.stdout
    checked = run_signet("migrate", "--check", cwd=tmp_path, settings=settings)
    assert checked.returncode == 0
    assert "which is the newest" in checked.stdout
    again = run_signet("migrate", "--apply", cwd=tmp_path, settings=settings)
    assert again.returncode == 0
    assert "applied" not in again.stdout


def test_one_of_two(tmp_path: Path) -> None:
    """Without saying whether to check or to apply, nothing is done."""
    for arguments in ([], ["--check", "--apply"]):
        done = run_signet("migrate", *arguments, cwd=tmp_path)
        assert done.returncode == 64
    assert list(tmp_path.iterdir()) == []
