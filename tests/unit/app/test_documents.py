"""The documents that a registry is built of."""

from __future__ import annotations

from pathlib import Path

import pytest

from signet.app.documents import base_registry
from signet.app.refused import StartRefused
from signet.core.registry import Kind, Origin


def test_the_built_in_ones_are_in_order() -> None:
    """They compile, and the mission's types are among them."""
    registry = base_registry(None)
    assert {"openai.tooluse.invoice.v1", "invoice.iso20022.v1"} <= registry.schemas.keys()


def test_the_operator_s_come_after(tmp_path: Path) -> None:
    """Each says where it came from; other files are none of our business."""
    for name in ("b.v1.schema.json", "a.v1.schema.json", "README.md"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "x.tools.json").write_text('[{"name": "pay"}]')
    entries = base_registry(tmp_path).entries
    theirs = {key for key, entry in entries.items() if entry.origin is Origin.OPERATOR}
    assert theirs == {(Kind.TYPE, "a.v1"), (Kind.TYPE, "b.v1"), (Kind.TOOL, "pay")}
    assert entries[Kind.TYPE, "invoice.iso20022.v1"].origin is Origin.BUILT_IN


def test_a_directory_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """A missing one, a file in its place, and a directory named like a document."""
    (tmp_path / "file").touch()
    (tmp_path / "types" / "a.v1.schema.json").mkdir(parents=True)
    for path in (tmp_path / "missing", tmp_path / "file", tmp_path / "types"):
        with pytest.raises(StartRefused, match="SP_REGISTRY_DIR"):
            base_registry(path)
