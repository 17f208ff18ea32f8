"""`signet audit-chains` and its background check: what is damaged is found, and nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import LiteralString

import pytest
from tests.fleet import postgres_settings
from tests.inprocess import App, invoice, open_app
from tests.live import run_signet
from tests.postgres import Postgres, cluster

from signet.gateway.chains import FLAW_KINDS, Flaw, Progress, audit
from signet.storage.tx import Tx
from signet.telemetry.logs import build_logger
from signet.workers.chains import ChainCheck

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """One cluster for this file."""
    with cluster() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgres"])
def storage(request: pytest.FixtureRequest) -> dict[str, str]:
    """Settings for an empty database of each engine."""
    if request.param == "sqlite":
        return {}
    running: Postgres = request.getfixturevalue("postgres")
    return dict(postgres_settings(running.url(running.empty_database())))


@asynccontextmanager
async def filled(directory: Path, storage: dict[str, str]) -> AsyncIterator[App]:
    """A gateway with two chains of three receipts, one of them refused, of two tenants."""
    async with open_app(directory, **storage) as app:
        for tenant in ("acme-key", "globex-key"):
            for _ in range(2):
                assert (await app.exchange(invoice(trace_id="t"), api_key=tenant)).status == 200
            refused = await app.exchange(invoice({}, trace_id="t"), api_key=tenant)
            assert refused.status == 422
        yield app


async def audited(app: App, *, page: int = 256) -> tuple[Progress, list[Flaw]]:
    """Everything that an audit finds."""
    pages = [seen async for seen in audit(app.gateway.database, page=page)]
    return pages[-1][0], [flaw for _, flaws in pages for flaw in flaws]


@pytest.mark.parametrize("page", [1, 2, 256])
async def test_whole_database(tmp_path: Path, storage: dict[str, str], page: int) -> None:
    """An undamaged database has no flaw, however small the pages are."""
    async with filled(tmp_path, storage) as app:
        progress, flaws = await audited(app, page=page)
        assert flaws == []
        assert progress == Progress(receipts=6, chains=2, heads=2, months=2)


DAMAGE: dict[LiteralString, set[str]] = {
    "UPDATE receipts SET canonical = :junk WHERE id = 2": {"receipt_unreadable"},
    "UPDATE receipts SET canonical = :other WHERE id = 2": {
        "receipt_hash",
        "receipt_columns",
        "receipt_signature",
        "chain_link",
    },
    "UPDATE receipts SET receipt_hash = :hash WHERE id = 2": {"receipt_hash", "chain_link"},
    "UPDATE receipts SET outcome = 'denied' WHERE id = 2": {"receipt_columns"},
    "UPDATE receipts SET vex_units = 2 WHERE id = 2": {"receipt_columns", "usage_drift"},
    "UPDATE receipts SET fu_tokens = 5 WHERE id = 2": {"receipt_columns", "usage_drift"},
    "UPDATE receipts SET tenant = 'globex' WHERE id = 3": {"receipt_columns", "chain_owner"},
    "UPDATE receipts SET jws = 'a.b' WHERE id = 2": {"receipt_signature"},
    "UPDATE receipts SET jws = (SELECT r.jws FROM receipts r WHERE r.id = 1) WHERE id = 2": {
        "receipt_signature"
    },
    "DELETE FROM signing_keys": {"receipt_signature"},
    "DELETE FROM receipts WHERE id = 2": {"chain_hop", "usage_drift"},
    "DELETE FROM receipts WHERE id = 1": {"chain_hop", "usage_drift"},
    "DELETE FROM receipts WHERE id = 3": {"head_wrong"},
    "DELETE FROM heads WHERE tenant = 'acme'": {"head_missing"},
    "UPDATE heads SET trace = 99 WHERE tenant = 'acme'": {"head_missing", "head_wrong"},
    "UPDATE heads SET hop = 2 WHERE tenant = 'acme'": {"head_wrong"},
    "UPDATE heads SET receipt_hash = :hash WHERE tenant = 'acme'": {"head_wrong"},
    "UPDATE heads SET hop = 2, receipt_hash = (SELECT receipt_hash FROM receipts WHERE id = 2)"
    " WHERE tenant = 'acme'": {"head_wrong"},
    "UPDATE usage_totals SET units = units + 1 WHERE tenant = 'acme'": {"usage_drift"},
    "DELETE FROM usage_totals WHERE tenant = 'acme'": {"usage_drift"},
    "UPDATE usage_totals SET tenant = 'nobody' WHERE tenant = 'acme'": {"usage_drift"},
}


@pytest.mark.parametrize("statement", DAMAGE)
async def test_damage_is_found(
    tmp_path: Path, storage: dict[str, str], statement: LiteralString
) -> None:
    """Each damage is found as what it is, and only at the tenant whose data was damaged."""

    async def damage(tx: Tx) -> None:
        values = {"junk": b"{", "other": b'{"trace_id":"t"}', "hash": b"x" * 32}
        named = {name: value for name, value in values.items() if f":{name}" in statement}
        assert await tx.execute(statement, **named)

    async with filled(tmp_path, storage) as app:
        await app.gateway.database.transact(damage)
        _, flaws = await audited(app, page=2)
        assert {flaw.kind for flaw in flaws} == DAMAGE[statement]
        if "signing_keys" not in statement:
            assert {flaw.tenant for flaw in flaws} <= {"acme", "nobody"} | (
                {"globex"} if "globex" in statement else set()
            )


def test_every_kind_is_tested() -> None:
    """There is a damage for every kind of flaw."""
    assert set().union(*DAMAGE.values()) == set(FLAW_KINDS)


async def test_background_check(tmp_path: Path) -> None:
    """The slow check rests first, then sees everything, counts what does not hold, rests again."""
    now = [0.0]
    async with filled(tmp_path, {}) as app:

        async def damage(tx: Tx) -> None:
            await tx.execute("UPDATE heads SET hop = 2 WHERE tenant = 'acme'")

        await app.gateway.database.transact(damage)
        metrics = app.gateway.metrics
        check = ChainCheck(
            database=app.gateway.database,
            metrics=metrics,
            log=build_logger("error"),
            monotonic=lambda: now[0],
        )
        for _ in range(5):
            assert await check.run_once() == 0
        assert metrics.registry.get_sample_value("signet_chain_receipts_checked_total") == 0
        for now[0] in (60.0, 61.0, 62.0, 63.0, 64.0, 65.0, 66.0, 67.0, 68.0, 69.0, 70.0):
            assert await check.run_once() == 0
        value = metrics.registry.get_sample_value
        assert value("signet_chain_checks_completed_total") == 1
        assert value("signet_chain_receipts_checked_total") == 6
        assert value("signet_chain_flaws_total", {"kind": "head_wrong"}) == 1
        now[0] = 10_000.0
        await check.run_once()
        assert value("signet_chain_receipts_checked_total") == 12


async def test_command(tmp_path: Path, storage: dict[str, str]) -> None:
    """The command exits 0 with counts, and 1 with a line for each flaw; nothing is changed."""
    settings = {"SP_DATA_DIR": str(tmp_path), **storage}
    if storage:
        settings["SP_PRIVATE_KEY_B64"] = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    async with filled(tmp_path, storage) as app:
        done = run_signet("audit-chains", cwd=tmp_path, settings=settings)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "6 receipts, 2 chains, 2 heads, 2 months: all hold\n"

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
