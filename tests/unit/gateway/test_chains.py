"""An audit finds whatever is damaged, says what it is and whose, and finds nothing else."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import LiteralString

import pytest
from tests.filled import filled
from tests.fleet import postgres_settings
from tests.inprocess import App, invoice
from tests.postgres import Postgres, cluster

from signet.core.audit import Change
from signet.core.ids import TenantId
from signet.gateway.chains import FLAW_KINDS, Flaw, Progress, audit
from signet.storage.audit import prune, record_change
from signet.storage.tx import Tx

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


async def audited(app: App, *, page: int = 256) -> tuple[Progress, list[Flaw]]:
    """Everything that an audit finds."""
    pages = [seen async for seen in audit(app.gateway.database, page=page)]
    return pages[-1][0], [flaw for _, flaws in pages for flaw in flaws]


@pytest.mark.parametrize("page", [1, 2, 256])
async def test_whole_database(tmp_path: Path, storage: dict[str, str], page: int) -> None:
    """An undamaged database has no flaw, however small the pages are."""
    async with filled(tmp_path, storage) as app:
        await app.gateway.database.transact(change, "globex")
        progress, flaws = await audited(app, page=page)
        assert flaws == []
        assert progress == Progress(receipts=6, chains=2, heads=2, months=2, entries=7)


async def test_memory_is_bounded(tmp_path: Path, storage: dict[str, str]) -> None:
    """Six times as many receipts take no more memory: a page of them is held, never all."""
    peaks: list[int] = []
    async with filled(tmp_path, storage) as app:
        for more in (34, 200):
            for number in range(more):
                sent = invoice(trace_id=f"{more}-{number % 5}")
                assert (await app.exchange(sent)).status == 200
            await audited_of_page(app, 8)  # what is loaded and remembered once
            tracemalloc.start()
            try:
                receipts = await audited_of_page(app, 8)
                peaks.append(tracemalloc.get_traced_memory()[1])
            finally:
                tracemalloc.stop()
            assert receipts >= more
    # Each receipt is a row of some kilobytes and a document of more, once it is parsed.
    assert peaks[1] < peaks[0] + 500_000


async def audited_of_page(app: App, page: int) -> int:
    """Go through everything and keep nothing; how many receipts there were."""
    receipts = 0
    async for progress, flaws in audit(app.gateway.database, page=page):
        assert flaws == []
        receipts = progress.receipts
    return receipts


async def change(tx: Tx, tenant: str) -> None:
    """Append an entry to a tenant's audit chain."""
    name = TenantId(tenant)
    await record_change(tx, Change(actor="tests", tenant=name, action="test.do", object="it"))


async def test_pruned_audit_log(tmp_path: Path, storage: dict[str, str]) -> None:
    """An audit chain whose beginning retention removed is whole; without the mark it is not."""
    async with filled(tmp_path, storage) as app:
        database = app.gateway.database
        assert await database.transact(prune, TenantId("acme"), before_us=2**62, limit=2) == 2
        _, flaws = await audited(app, page=2)
        assert flaws == []

        async def unmark(tx: Tx) -> None:
            await change(tx, "globex")
            assert await tx.execute("DELETE FROM audit_entries WHERE tenant = 'globex' AND seq = 1")

        await database.transact(unmark)
        _, flaws = await audited(app, page=2)
        assert [(flaw.kind, flaw.tenant) for flaw in flaws] == [("audit_link", "globex")]


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
    "UPDATE audit_entries SET body = :junk WHERE tenant = 'acme' AND seq = 2": {
        "audit_entry",
        "audit_link",
    },
    "UPDATE audit_entries SET seq = 9 WHERE tenant = 'acme' AND seq = 3": {
        "audit_entry",
        "audit_link",
        "audit_head",
    },
    "DELETE FROM audit_entries WHERE tenant = 'acme' AND seq = 2": {"audit_link"},
    "DELETE FROM audit_entries WHERE tenant = 'acme' AND seq = 3": {"audit_head"},
    "DELETE FROM audit_entries WHERE tenant = 'acme'": {"audit_head"},
    "DELETE FROM audit_heads WHERE tenant = 'acme'": {"audit_head"},
    "UPDATE audit_heads SET entry_hash = :hash WHERE tenant = 'acme'": {"audit_head"},
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
