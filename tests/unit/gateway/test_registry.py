"""Every process has every tenant's registry as it is, and an exchange has one of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.gateway.calls import registry

from signet.core.ids import TenantId
from signet.core.registry import Kind, Origin
from signet.gateway.registry import Registries
from signet.receipts.canonical import content_id
from signet.storage.database import Database, SqliteConfig, open_database
from signet.storage.registry import EVERYONE, Bounds, StoredDocument, deprecate, put
from signet.telemetry.logs import build_logger
from signet.telemetry.metrics import Metrics

pytestmark = pytest.mark.anyio

ACME, GLOBEX = TenantId("acme"), TenantId("globex")
WIDE = Bounds(documents=100, size_bytes=1 << 20)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database."""
    async with open_database(SqliteConfig(path=tmp_path / "signet.db")) as opened:
        yield opened


def _registries(database: Database, metrics: Metrics | None = None) -> Registries:
    return Registries(registry(), database, metrics=metrics or Metrics(), log=build_logger("error"))


async def _store(database: Database, tenant: str, name: str, body: bytes = b"{}") -> None:
    kind = "tool" if body.startswith(b'{"name"') else "mapping" if "--" in name else "type"
    document = StoredDocument(tenant, kind, name, body, content_id(body), 1)
    for beside in range(100):
        if await database.transact(put, document, WIDE, beside=beside) == "stored":
            return


async def test_two_processes_agree_after_a_refresh(database: Database) -> None:
    """What one has written the other finds, its owner's only; what was handed out stays."""
    here, there = _registries(database), _registries(database)
    before = await there.of(ACME)
    await _store(database, ACME, "a.v1")
    assert await here.refresh() == 1
    assert "a.v1" in (await here.of(ACME)).schemas
    assert "a.v1" not in (await there.of(ACME)).schemas
    await there.refresh()
    assert "a.v1" in (await there.of(ACME)).schemas
    assert "a.v1" not in (await there.of(GLOBEX)).schemas
    assert "a.v1" not in before.schemas
    assert await there.refresh() == 0


async def test_global_documents_are_under_everybody_s(database: Database) -> None:
    """A tenant's mapping may lead to a global type, which may come later than the tenant's own."""
    registries = _registries(database)
    await _store(database, ACME, "a.v1")
    await registries.refresh()
    assert "a.v1" in (await registries.of(ACME)).schemas
    await _store(database, EVERYONE, "g.v1")
    await registries.refresh()
    assert {"a.v1", "g.v1"} <= (await registries.of(ACME)).schemas.keys()
    assert "g.v1" in registries.shared.schemas
    await _store(database, ACME, "a.v1--g.v1", b'{"fields":{"x":"y"}}')
    await registries.refresh()
    assert (await registries.of(ACME)).mappings["a.v1", "g.v1"].trusted is False


async def test_a_deprecation_is_a_change(database: Database) -> None:
    """It is found by the same poll, and withdrawn by it."""
    registries = _registries(database)
    await _store(database, ACME, "a.v1")
    said = {"deprecated_us": 5, "deprecation": '{"detail":"old","successor":"a.v2"}'}
    await database.transact(deprecate, ACME, "type", "a.v1", **said)
    await registries.refresh()
    entry = (await registries.of(ACME)).deprecated[Kind.TYPE, "a.v1"]
    assert entry.deprecated is not None
    assert entry.deprecated.successor == "a.v2"
    await database.transact(deprecate, ACME, "type", "a.v1", deprecated_us=None, deprecation=None)
    await registries.refresh()
    assert (await registries.of(ACME)).deprecated == {}


async def test_whoever_had_a_name_first_keeps_its_meaning(database: Database) -> None:
    """A name that a new release or the operator takes later is hidden from that tenant, openly."""
    registries = _registries(database)
    await _store(database, ACME, "line.v1", b'{"type":"string"}')
    await registries.refresh()
    theirs = (await registries.of(ACME)).entries[Kind.TYPE, "line.v1"]
    assert (theirs.origin, theirs.shadows) == (Origin.TENANT, Origin.OPERATOR)
    assert (await registries.of(GLOBEX)).entries[Kind.TYPE, "line.v1"].shadows is None


async def test_a_document_that_cannot_be_used_hides_no_other(database: Database) -> None:
    """It is left out, counted and logged; the owner's others serve."""
    metrics = Metrics()
    registries = _registries(database, metrics)
    await _store(database, ACME, "bad.v1", b'{"type":1}')
    await _store(database, ACME, "good.v1")
    await registries.refresh()
    schemas = (await registries.of(ACME)).schemas
    assert "good.v1" in schemas
    assert "bad.v1" not in schemas
    assert metrics.registry.get_sample_value("signet_registry_unusable_total") == 1


async def test_many_tenants_are_not_all_kept(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has not called for longest is compiled anew at the next call."""
    monkeypatch.setattr("signet.gateway.registry._MOST_TENANTS", 2)
    registries = _registries(database)
    for tenant in ("a", "b", "c"):
        await _store(database, tenant, f"{tenant}.v1")
    await registries.refresh()
    first = await registries.of(TenantId("a"))
    await registries.of(TenantId("b"))
    assert await registries.of(TenantId("a")) is first
    await registries.of(TenantId("c"))
    assert await registries.of(TenantId("a")) is first
    assert "b.v1" in (await registries.of(TenantId("b"))).schemas
