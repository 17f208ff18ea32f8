"""Registering among others who do the same: bounds hold, changes are audited, nothing is lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.gateway.calls import registry

from signet.core.ids import TenantId
from signet.core.registry import Kind, Origin
from signet.gateway.registering import Actor, NotRegistered, Registered, Registrations
from signet.gateway.registry import Registries
from signet.providers.registry_check import RegistryCheck
from signet.storage.database import Database, SqliteConfig, open_database
from signet.storage.registry import Bounds
from signet.storage.tx import ReadTx
from signet.telemetry.logs import build_logger
from signet.telemetry.metrics import Metrics

pytestmark = pytest.mark.anyio

ACME = TenantId("acme")
CALLER = Actor(key_id="key_1")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database."""
    async with open_database(SqliteConfig(path=tmp_path / "signet.db")) as opened:
        yield opened


def _process(database: Database, *, documents: int = 10) -> Registrations:
    """The use cases as one process of many has them."""
    registries = Registries(registry(), database, metrics=Metrics(), log=build_logger("error"))
    return Registrations(
        registries=registries,
        database=database,
        check=RegistryCheck(),
        bounds_of=lambda _owner: Bounds(documents=documents, size_bytes=1 << 20),
        max_depth=64,
        clock=lambda: 1_700_000_000_000_000,
    )


async def _audited(tx: ReadTx) -> list[bytes]:
    return await tx.all(bytes, "SELECT body FROM audit_entries ORDER BY tenant, seq")


async def test_one_version_registered_by_many_at_once(database: Database) -> None:
    """In two processes, at the same time: it is new once, and everybody has it then."""
    one, two = _process(database), _process(database)
    results = await asyncio.gather(
        *(p.register(CALLER, ACME, Kind.TYPE, "a.v1", b"{}") for p in (one, two, one, two))
    )
    assert all(isinstance(result, Registered) for result in results)
    assert [r.new for r in results if isinstance(r, Registered)].count(True) == 1


async def test_two_contents_of_one_name(database: Database) -> None:
    """Whoever comes second hears of the conflict, whichever process it asked."""
    one, two = _process(database), _process(database)
    results = await asyncio.gather(
        one.register(CALLER, ACME, Kind.TYPE, "a.v1", b"{}"),
        two.register(CALLER, ACME, Kind.TYPE, "a.v1", b'{"type":"object"}'),
    )
    assert {type(result) for result in results} == {Registered, NotRegistered}
    (refused,) = [r for r in results if isinstance(r, NotRegistered)]
    assert refused.code == "registry_conflict"


async def test_each_is_checked_beside_all_that_is_kept(database: Database) -> None:
    """One that was stored meanwhile is checked with, and counts; the bound is never passed."""
    processes = [_process(database, documents=2) for _ in range(3)]
    results = await asyncio.gather(
        *(
            process.register(CALLER, ACME, Kind.TYPE, f"a{number}.v1", b"{}")
            for number, process in enumerate(processes)
        )
    )
    refused = [r.code for r in results if isinstance(r, NotRegistered)]
    assert refused == ["registry_full"]


async def test_changes_are_audited_and_only_changes(database: Database) -> None:
    """Who, what, and the state before and after; saying the same again is no change."""
    process = _process(database)
    for _ in range(2):
        await process.register(CALLER, ACME, Kind.TYPE, "a.v1", b"{}")
        await process.deprecate(CALLER, ACME, Kind.TYPE, "a.v1", detail="old", successor="a.v2")
    await process.restore(CALLER, ACME, Kind.TYPE, "a.v1")
    await process.register(CALLER, None, Kind.TYPE, "g.v1", b"{}")
    entries = [json.loads(body) for body in await database.read_current(_audited)]
    assert [(e["tenant"], e["action"], e["object"]) for e in entries] == [
        ("_system", "registry.register", "type/g.v1"),
        ("acme", "registry.register", "type/a.v1"),
        ("acme", "registry.deprecate", "type/a.v1"),
        ("acme", "registry.restore", "type/a.v1"),
    ]
    assert {entry["actor"] for entry in entries} == {"key_1"}
    assert entries[2]["after"]["deprecation"] == {"detail": "old", "successor": "a.v2"}
    assert entries[2]["before"] == entries[3]["after"]


async def test_what_everybody_has_is_no_tenant_s(database: Database) -> None:
    """A tenant gives no name anew that everybody has, and deprecates nothing of everybody's."""
    process = _process(database)
    shared = await process.register(CALLER, None, Kind.TYPE, "g.v1", b"{}")
    assert isinstance(shared, Registered)
    assert shared.entry.origin is Origin.GLOBAL
    same = await process.register(CALLER, ACME, Kind.TYPE, "g.v1", b"{}")
    assert same == Registered(entry=shared.entry, new=False)
    other = await process.register(CALLER, ACME, Kind.TYPE, "g.v1", b'{"type":"object"}')
    assert isinstance(other, NotRegistered)
    gone = await process.restore(CALLER, ACME, Kind.TYPE, "g.v1")
    assert gone == NotRegistered(code="not_found", detail="there is no type g.v1 to change")
