"""An export is one chain as it stood, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.inprocess import signing_key

from signet.core.audit import Entry
from signet.core.ids import TenantId
from signet.gateway.audit_exports import AuditExports, ChainPruned, Exported
from signet.receipts.audit import verify_jsonl
from signet.receipts.keys import KeySet
from signet.storage.audit import append, prune
from signet.storage.database import Database, SqliteConfig, open_database

pytestmark = pytest.mark.anyio

ACME = TenantId("acme")
KEY = signing_key()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """A database whose chain is longer than a page."""
    async with open_database(SqliteConfig(path=tmp_path / "signet.db")) as opened:
        await opened.transact(append, entries(1200))
        yield opened


def entries(count: int) -> list[Entry]:
    """Entries one microsecond apart."""
    return [
        Entry(tenant=ACME, ts_us=n + 1, actor="k", action="a", object=str(n)) for n in range(count)
    ]


def exporting(database: Database) -> AsyncIterator[bytes | Exported]:
    """An export of the whole chain."""
    exports = AuditExports(database=database, clock=lambda: 1_700_000_000_000_000)
    return exports.export(ACME, issuer="i", key=KEY, jwks=KeySet.of([KEY.public]).jwks())


async def test_what_comes_meanwhile_is_not_in_it(database: Database) -> None:
    """The chain may grow while it is read; the export ends where it ended at the beginning."""
    lines: list[bytes] = []
    async for part in exporting(database):
        if isinstance(part, Exported):
            lines.append(part.manifest)
            assert part.count == 1200
        else:
            lines.append(part)
            if len(lines) == 3:
                await database.transact(append, entries(5))
    assert verify_jsonl(lines, trust=[KEY.kid]).last_seq == 1200


async def test_a_pruned_chain_is_exported_whole(database: Database) -> None:
    """What is left after retention verifies, anchor included."""
    await database.transact(prune, ACME, before_us=601, limit=600)
    lines = [p.manifest if isinstance(p, Exported) else p async for p in exporting(database)]
    report = verify_jsonl(lines, trust=[KEY.kid])
    assert (report.first_seq, report.last_seq, report.whole) == (601, 1201, True)


async def test_pruned_while_it_is_read(database: Database) -> None:
    """An export never passes over what retention took away under its hands."""
    reading = exporting(database)
    assert isinstance(await anext(reading), bytes)
    await database.transact(prune, ACME, before_us=1101, limit=1100)
    with pytest.raises(ChainPruned):
        [part async for part in reading]
