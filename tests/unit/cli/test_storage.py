"""`signet storage copy`: a deployment moves, with every answer it has given."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.faults.durability import place
from tests.fleet import postgres_settings
from tests.inprocess import SEED, invoice, open_app
from tests.live import run_signet

from signet.storage import outbox
from signet.storage.database import SqliteConfig, open_database
from signet.storage.landmark import Landmark

pytestmark = pytest.mark.anyio


async def test_command(tmp_path: Path) -> None:
    """A gateway's SQLite file is moved to PostgreSQL, audited there, and served from it."""
    with place("postgres", tmp_path) as at:
        await moved(tmp_path, at.settings["SP_POSTGRES_URL"])


async def moved(tmp_path: Path, url: str) -> None:
    """Serve, move, move again, serve from there."""
    async with open_app(tmp_path / "data") as app:
        first = await app.exchange(invoice(trace_id="t"), key="first")
        assert first.status == 200
    source = f"sqlite:{tmp_path / 'data' / 'signet.db'}"
    settings = {"SP_POSTGRES_URL": url, "SP_PRIVATE_KEY_B64": SEED}
    for written in ("pass 2: ", "pass 1: "):
        done = run_signet(
            "storage",
            "copy",
            "--from",
            source,
            "--to",
            "postgres:",
            cwd=tmp_path,
            settings=settings,
        )
        assert done.returncode == 0, done.stderr
        *_, last_pass, verdict = done.stdout.splitlines()
        assert last_pass.startswith(written)
        assert last_pass.endswith(" 0 written or removed")
        assert verdict == "1 receipts, 1 chains, 1 heads, 1 months, 1 audit entries: all hold"
    async with open_app(tmp_path / "new", **postgres_settings(url)) as app:
        again = await app.exchange(invoice(trace_id="t"), key="first")
        assert again.body == first.body
        assert again.header("x-signet-idempotency-hit") == "1"
        second = await app.exchange(invoice(trace_id="t"), key="second")
        assert second.json["receipt"]["hop"] == 2


@pytest.mark.parametrize(
    ("source", "target", "code", "said"),
    [
        ("sqlite:none.db", "sqlite:new.db", 69, "there is no database"),
        ("sqlite:a.db", "sqlite:./a.db", 64, "the same database"),
        ("mysql:a", "sqlite:b", 64, "sqlite:PATH"),
        ("sqlite:", "sqlite:b", 64, "sqlite:PATH"),
        ("postgres:", "sqlite:b", 64, "SP_POSTGRES_URL"),
    ],
)
def test_misuse(tmp_path: Path, source: str, target: str, code: int, said: str) -> None:
    """What cannot be copied is told before anything is made."""
    done = run_signet("storage", "copy", "--from", source, "--to", target, cwd=tmp_path)
    assert done.returncode == code
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


async def test_backup_and_restored(tmp_path: Path) -> None:
    """A backup is made once; the restored database says so, is audited, and has a new name."""
    async with open_app(tmp_path / "data") as app:
        assert (await app.exchange(invoice())).status == 200
    settings = {"SP_DATA_DIR": str(tmp_path / "data")}
    for code, said in ((0, "backup.db: "), (64, "a backup never overwrites")):
        done = run_signet("storage", "backup", "backup.db", cwd=tmp_path, settings=settings)
        assert done.returncode == code
        assert said in done.stdout + done.stderr
    settings = {"SP_DB_PATH": str(tmp_path / "backup.db"), "SP_DATA_DIR": str(tmp_path)}
    Landmark(tmp_path / "stripe-sends").keep(3)
    done = run_signet("storage", "restored", cwd=tmp_path, settings=settings)
    assert done.returncode == 0, done.stderr
    assert "1 receipts, 1 chains, 1 heads, 1 months, 1 audit entries: all hold" in done.stdout
    async with open_database(SqliteConfig(path=tmp_path / "backup.db")) as db:
        deployment = await db.transact(outbox.deployment, "unused")
        assert deployment.restored_us is not None
        assert deployment.name != "unused"
        assert deployment.sends == 3  # so that it is not found out once more


def test_backup_of_postgres(tmp_path: Path) -> None:
    """PostgreSQL is not backed up here, and the sentence says by what it is."""
    settings = {"SP_PRIVATE_KEY_B64": SEED, **postgres_settings("postgresql://x@127.0.0.1:1/x")}
    done = run_signet("storage", "backup", "b.db", cwd=tmp_path, settings=settings)
    assert done.returncode == 64
    assert "pg_dump" in done.stderr
