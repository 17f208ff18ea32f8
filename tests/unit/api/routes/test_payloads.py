"""`DELETE /v1/payloads/{cid}`: the content is gone everywhere, and its proof stands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.inprocess import App, Reply, invoice, open_app
from tests.storage.ledger import entries_of

from signet.storage import receipts
from signet.storage.idempotency import Claim, claim
from signet.storage.tx import ReadTx

pytestmark = pytest.mark.anyio

SCOPES = ["exchange", "receipts.read", "payloads.erase"]
KEYS = {
    "acme-key": {"tenant": "acme"},
    "eraser": {"tenant": "acme", "scopes": SCOPES},
    "globex-eraser": {"tenant": "globex", "scopes": SCOPES},
    "vault-key": {"tenant": "vault", "sealed": True, "scopes": SCOPES},
}


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    """A gateway with keys that may erase."""
    async with open_app(tmp_path, keys=KEYS) as opened:
        yield opened


async def erase(app: App, cid: str, api_key: str = "eraser") -> Reply:
    """Ask for an erasure."""
    headers = [(b"x-signet-api-key", api_key.encode())]
    return await app.call("DELETE", f"/v1/payloads/{cid}", headers=headers)


async def test_everything_that_carries_it_is_gone(app: App) -> None:
    """Every receipt with that CID loses payload and answer; replays are 410 with the receipt."""
    first = await app.exchange(invoice(trace_id="t"), key="a")
    second = await app.exchange(invoice(trace_id="t"), key="b")
    cid = first.json["receipt"]["cid"]
    assert cid == second.json["receipt"]["cid"]
    reply = await erase(app, cid)
    assert (reply.status, reply.json) == (200, {"cid": cid, "receipts": 2, "erased": 2})
    for key, answered in (("a", first), ("b", second)):
        replay = await app.exchange(invoice(trace_id="t"), key=key)
        assert (replay.status, replay.code) == (410, "payload_erased")
        assert replay.json["receipt"] == answered.json["receipt"]
        receipt_hash = answered.json["receipt"]["receipt_hash"]
        stored = await app.get(f"/v1/exchanges/{receipt_hash}")
        assert stored.json["normalized"] is None
    assert len(await app.verified("t")) == 2
    assert await _left(app, b"ACME GmbH") == 0


async def test_it_is_audited_once(app: App) -> None:
    """The first erasure leaves a change; asking again erases nothing and says so."""
    cid = (await app.exchange(invoice())).json["receipt"]["cid"]
    await erase(app, cid)
    again = await erase(app, cid)
    assert (again.status, again.json["erased"], again.json["receipts"]) == (200, 0, 1)
    changes = [e for e in await entries_of(app.gateway.database, "acme") if e["before"]]
    assert [(e["action"], e["object"]) for e in changes] == [("payload.erase", cid)]
    assert changes[0]["after"] == {"receipts": 1, "with_payload": 0}
    assert changes[0]["request_id"] is not None


async def test_many_ask_at_once(app: App) -> None:
    """Concurrent erasures agree, and one of them did it."""
    cid = (await app.exchange(invoice())).json["receipt"]["cid"]
    replies = await asyncio.gather(*(erase(app, cid) for _ in range(10)))
    assert {reply.status for reply in replies} == {200}
    assert sum(reply.json["erased"] for reply in replies) == 1


async def test_another_tenant_s_is_not_found(app: App) -> None:
    """Nobody erases, or even finds, what belongs to somebody else."""
    cid = (await app.exchange(invoice(), key="a")).json["receipt"]["cid"]
    foreign = await erase(app, cid, "globex-eraser")
    missing = await erase(app, "sha256:" + "0" * 64, "globex-eraser")
    assert (foreign.status, foreign.body) == (404, missing.body)
    assert (await app.exchange(invoice(), key="a")).status == 200


async def test_it_needs_a_scope_that_is_given_by_name(app: App) -> None:
    """An agent's ordinary key does not destroy content."""
    cid = (await app.exchange(invoice())).json["receipt"]["cid"]
    reply = await erase(app, cid, "acme-key")
    assert (reply.status, reply.code) == (403, "scope_missing")


@pytest.mark.parametrize("cid", ["x", "sha256:", "sha256:" + "G" * 64, "%00", "..%2f"])
async def test_a_malformed_cid(app: App, cid: str) -> None:
    """What is no CID is said to be none, or is no path at all."""
    assert (await erase(app, cid)).status in (400, 404)


async def test_a_sealed_payload_takes_its_salt_along(app: App) -> None:
    """The hash in the receipt is of salt and content; without the salt nobody can guess at it."""
    reply = await app.exchange(invoice(trace_id="t"), api_key="vault-key")
    cid = reply.json["receipt"]["cid"]
    before = await app.gateway.database.read_current(receipts.payload, "vault", cid)
    assert before is not None
    assert before.salt is not None
    assert (await erase(app, cid, "vault-key")).json["erased"] == 1
    after = await app.gateway.database.read_current(receipts.payload, "vault", cid)
    assert after == (None, None)
    assert await _left(app, before.salt) == 0
    assert len(await app.verified("t", api_key="vault-key")) == 1


async def test_not_while_an_exchange_holds_it(app: App) -> None:
    """A payload that is being forwarded would be stored behind its erasure: ask again later."""
    from tests.unit.gateway.calls import subject

    from signet.gateway.intents import Intent

    first = await app.exchange(invoice())
    stored = await app.gateway.database.read_current(
        receipts.payload, "acme", first.json["receipt"]["cid"]
    )
    assert stored is not None
    intent = Intent(
        subject=subject(),
        normalized=stored.body,
        policy=None,
        members={},
        fu_tokens=0,
        url=None,
        headers={},
        idempotent=False,
    )
    wish = Claim(
        tenant="acme",
        trace_id="t",
        key_hash=b"k" * 32,
        fingerprint=b"f",
        owner="another process",
        lease_us=60_000_000,
        intent=intent.encode(),
        spends_key=True,
    )
    await app.gateway.database.transact(claim, wish)
    reply = await erase(app, first.json["receipt"]["cid"])
    assert (reply.status, reply.code) == (409, "payload_in_use")
    assert reply.header("retry-after") == "5"


async def _left(app: App, content: bytes) -> int:
    """In how many cells of any table some content still is."""

    async def count(tx: ReadTx) -> int:
        found = 0
        for table in await tx.all(str, "SELECT name FROM sqlite_schema WHERE type = 'table'"):
            rows: list[tuple[Any, ...]] = await tx.all(
                lambda *row: row,
                f"SELECT * FROM {table}",  # type: ignore[arg-type]
            )
            for row in rows:
                cells = [c.encode() if isinstance(c, str) else c for c in row]
                found += sum(isinstance(c, bytes) and content in c for c in cells)
        return found

    return await app.gateway.database.read_current(count)
