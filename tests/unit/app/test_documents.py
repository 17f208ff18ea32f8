"""The documents that a registry is built of."""

from __future__ import annotations

from pathlib import Path

import pytest

from signet.app.documents import registry_documents
from signet.app.refused import StartRefused
from signet.core.registry import Registry


def test_the_built_in_ones_are_in_order() -> None:
    """They compile, and the mission's types are among them."""
    registry = Registry.build(registry_documents(None))
    assert {"openai.tooluse.invoice.v1", "invoice.iso20022.v1"} <= registry.schemas.keys()


def test_the_operator_s_come_after(tmp_path: Path) -> None:
    """In the order of their names; other files are none of our business."""
    for name in ("b.v1.schema.json", "a.v1.schema.json", "x.tools.json", "README.md"):
        (tmp_path / name).write_text("{}")
    names = [name for name, _ in registry_documents(tmp_path)]
    assert names[-3:] == ["a.v1.schema.json", "b.v1.schema.json", "x.tools.json"]
    assert "README.md" not in names


def test_a_directory_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """A missing one, a file in its place, and a directory named like a document."""
    (tmp_path / "file").touch()
    (tmp_path / "types" / "a.v1.schema.json").mkdir(parents=True)
    for path in (tmp_path / "missing", tmp_path / "file", tmp_path / "types"):
        with pytest.raises(StartRefused, match="SP_REGISTRY_DIR"):
            list(registry_documents(path))
