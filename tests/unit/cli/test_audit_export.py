"""`signet audit export` leaves whole files or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from signet.cli.audit_export import export
from signet.cli.exits import CommandFailed


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_without_a_database_nothing_is_left(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure in the middle leaves neither entries nor a manifest."""
    monkeypatch.setenv("SP_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "out").mkdir()
    with pytest.raises(CommandFailed, match="no database"):
        export("acme", form=form, out=tmp_path / "out" / "log", from_time=None, to_time=None)
    assert list((tmp_path / "out").iterdir()) == []
