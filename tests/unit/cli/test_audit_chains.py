"""`signet audit-chains`: exit code, counts, a line for each flaw, and nothing changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.filled import filled
from tests.live import run_signet

from signet.storage.tx import Tx

pytestmark = pytest.mark.anyio


async def test_command(tmp_path: Path) -> None:
    """The command exits 0 with counts, and 1 with a line for each flaw; nothing is changed."""
    settings = {"SP_DATA_DIR": str(tmp_path)}
    async with filled(tmp_path, {}) as app:
        done = run_signet("audit-chains", cwd=tmp_path, settings=settings)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "6 receipts, 2 chains, 2 heads, 2 months, 6 audit entries: all hold\n"

        async def damage(tx: Tx) -> None:
            await tx.execute("UPDATE heads SET hop = 2 WHERE tenant = 'acme'")

        await app.gateway.database.transact(damage)
        done = run_signet("audit-chains", cwd=tmp_path, settings=settings)
        assert done.returncode == 1
        assert done.stdout.startswith("head_wrong: tenant acme, t head at hop 2: it names another")
        done = run_signet("audit-chains", "--json", cwd=tmp_path, settings=settings)
        assert json.loads(done.stdout)["found"][0]["kind"] == "head_wrong"


def test_nothing_to_audit(tmp_path: Path) -> None:
    """A database that is not there is no database without flaws, and none is made."""
    done = run_signet("audit-chains", cwd=tmp_path, settings={"SP_DATA_DIR": str(tmp_path)})
    assert done.returncode == 69
    assert "there is no database" in done.stderr
    assert list(tmp_path.iterdir()) == []
