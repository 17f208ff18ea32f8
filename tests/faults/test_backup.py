"""Backups taken under load, restored, and verified: what they hold, holds."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.faults.durability import place
from tests.fleet import Heard, gateway, load, postgres_settings, under_load
from tests.inprocess import SEED, invoice
from tests.live import run_signet
from tests.postgres import cluster

pytestmark = pytest.mark.anyio


async def test_sqlite(tmp_path: Path) -> None:
    """`signet storage backup` under load: the copy is whole, has what was acknowledged before it,
    and serves; its chains go on."""
    heard, backup = Heard(), tmp_path / "backup.db"
    with place("sqlite", tmp_path) as at:
        with gateway(tmp_path / "gateway", workers=2, **at.settings) as live:
            await load([live.port], heard, callers=8, each=5)
            before = dict(heard.acknowledged)
            async with under_load([live.port], heard):
                done = await asyncio.to_thread(
                    run_signet, "storage", "backup", str(backup), cwd=tmp_path, settings=at.settings
                )
        assert done.returncode == 0, done.stderr
    settings = {"SP_DB_PATH": str(backup), "SP_DATA_DIR": str(tmp_path)}
    await restored_and_whole(tmp_path, settings, before)


async def test_postgres_dump(tmp_path: Path) -> None:
    """pg_dump under load, restored by pg_restore into an empty database of another cluster."""
    heard = Heard()
    with cluster(options={"fsync": "on"}) as old, cluster() as new:
        name = old.empty_database()
        with gateway(tmp_path / "gateway", **postgres_settings(old.url(name))) as live:
            await load([live.port], heard, callers=8, each=5)
            before = dict(heard.acknowledged)
            dump = old.folder / "signet.dump"
            async with under_load([live.port], heard):
                await asyncio.to_thread(
                    old.run, "pg_dump", "-Fc", "-f", str(dump),
                    "-h", str(old.folder), "-p", str(old.port), "-U", "signet", name,
                )  # fmt: skip
        dump.chmod(0o644)
        old.folder.chmod(0o755)
        target = new.empty_database()
        new.run(
            "pg_restore", "--no-owner", "-d", target,
            "-h", str(new.folder), "-p", str(new.port), "-U", "signet", str(dump),
        )  # fmt: skip
        settings = {"SP_PRIVATE_KEY_B64": SEED, **postgres_settings(new.url(target))}
        await restored_and_whole(tmp_path, settings, before)


async def restored_and_whole(
    tmp_path: Path, settings: dict[str, str], before: dict[str, str]
) -> None:
    """The audit passes; every key answered before the backup replays; a chain goes on."""
    done = run_signet("audit-chains", cwd=tmp_path, settings=settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split(" ")[0]) >= len(before)
    with gateway(tmp_path / "restored", **settings) as live:
        for receipt_hash in list(before.values())[:5]:
            assert live.get(f"/v1/exchanges/{receipt_hash}").status == 200
        assert live.exchange(invoice(trace_id="shared-1"), key="after").json["receipt"]["hop"] > 1
