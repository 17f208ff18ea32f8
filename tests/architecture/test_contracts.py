"""The import contracts of pyproject.toml hold, and `receipts` loads no network at run time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.architecture.source import ROOT


def test_import_contracts(tmp_path: Path) -> None:
    """Imports fall through the rooms; import-linter says where one does not."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--cache-dir", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "never"),
    [
        ("signet.cli.main", ("asyncio", "socket", "ssl", "http", "urllib", "signet.app")),
        ("signet.receipts", ("asyncio", "socket", "ssl", "http", "urllib", "signet.core")),
        ("signet.cli.verify", ("asyncio", "socket", "ssl", "http", "urllib", "signet.core")),
        ("signet.egress", ("signet.core", "signet.receipts", "starlette")),
        ("signet.core.exchange", ("asyncio", "signet.storage", "starlette")),
    ],
)
def test_what_an_import_loads(module: str, never: tuple[str, ...]) -> None:
    """Importing a module loads nothing of what it promises to do without, indirectly either."""
    program = (
        "import sys; before = set(sys.modules)\n"
        f"import {module}\n"
        f"print(sorted(set({never!r}) & (set(sys.modules) - before)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout == "[]\n"
