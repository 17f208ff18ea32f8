"""Exchanges for the storage tests, sealed with real hashes so that chains can be checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from signet.receipts.keys import b64url
from signet.storage.database import Database
from signet.storage.exchanges import (
    ANY_PREV,
    Answer,
    Committed,
    Head,
    PendingExchange,
    Replay,
    Result,
    Sealed,
    commit_exchanges,
)
from signet.storage.receipts import StoredReceipt, head, iter_chain
from signet.storage.tx import ReadTx, Tx

TENANT = "acme"


def key(text: str) -> bytes:
    """An idempotency key's hash."""
    return hashlib.sha256(text.encode()).digest()


def pending(
    name: str,
    *,
    trace: str = "trace-1",
    tenant: str = TENANT,
    body: bytes = b"body",
    keyed: bool = True,
    expected_prev: str | None = ANY_PREV,
    fence: int | None = None,
    **draft: Any,
) -> PendingExchange:
    """The exchange called `name`; `draft` overrides what `seal` puts into it."""
    return PendingExchange(
        tenant=tenant,
        trace_id=trace,
        key_hash=key(f"{tenant}/{name}") if keyed else None,
        fingerprint=hashlib.sha256(body).digest(),
        expected_prev=expected_prev,
        fence=fence,
        draft={"name": name, **draft},
    )


def seal(item: PendingExchange, last: Head | None) -> Sealed:
    """A small receipt that names its predecessor, and an answer that carries it."""
    draft = item.draft
    assert isinstance(draft, dict)
    if "fault" in draft:
        raise RuntimeError(draft["fault"])
    hop = last.hop + 1 if last else 1
    canonical = json.dumps(
        {
            "hop": hop,
            "name": draft["name"],
            "prev_receipt_hash": last.receipt_hash if last else None,
            "tenant": item.tenant,
            "trace_id": item.trace_id,
        },
        sort_keys=True,
    ).encode()
    receipt_hash = text(canonical)
    payload = draft.get("payload", f"payload of {draft['name']}".encode())
    return Sealed(
        hop=draft.get("hop", hop),
        ts_us=draft.get("ts_us", 1_700_000_000_000_000),
        receipt_hash=draft.get("receipt_hash", receipt_hash),
        canonical=canonical,
        jws=f"header.{b64url(canonical)}.{draft['name']}",
        kind=item.kind,
        outcome=draft.get("outcome", "allowed"),
        vex_units=draft.get("vex_units", 1),
        fu_tokens=draft.get("fu_tokens", 0),
        period=draft.get("period", "2026-11"),
        answer=Answer(
            status=200, content_type="application/json", body=b'{"receipt":' + canonical + b"}"
        ),
        payload_cid=text(payload),
        payload=payload,
        audit=draft.get("audit"),
    )


def text(data: bytes) -> str:
    """The hash text of some bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


async def commit(db: Database, *items: PendingExchange) -> list[Result]:
    """One batch in one transaction."""
    return await db.transact(commit_exchanges, items, seal)


async def receipts_of(db: Database, trace: str, tenant: str = TENANT) -> list[StoredReceipt]:
    """The whole chain, checked link by link."""
    end = await db.read_current(head, tenant, trace)
    if end is None:
        return []
    found = [r async for r in iter_chain(db, tenant, trace, upto_hop=end.hop, page=7)]
    previous = None
    for hop, receipt in enumerate(found, start=1):
        members = json.loads(receipt.canonical)
        assert receipt.hop == members["hop"] == hop
        assert receipt.receipt_hash == text(receipt.canonical)
        assert members["prev_receipt_hash"] == previous
        previous = receipt.receipt_hash
    assert end.hop == len(found)
    assert end.receipt_hash == previous
    return found


def hashes(results: Sequence[Result]) -> list[str]:
    """The receipt hashes of results that must all be committed or replayed."""
    found: list[str] = []
    for result in results:
        assert isinstance(result, (Committed, Replay)), result
        found.append(
            result.sealed.receipt_hash if isinstance(result, Committed) else result.receipt_hash
        )
    return found


async def entries_of(db: Database, tenant: str = TENANT) -> list[dict[str, Any]]:
    """A tenant's entries, checked link by link and against the head."""

    async def read(tx: ReadTx) -> tuple[list[bytes], bytes | None]:
        bodies = await tx.all(
            bytes, "SELECT body FROM audit_entries WHERE tenant = :t ORDER BY seq", t=tenant
        )
        head = await tx.one(bytes, "SELECT entry_hash FROM audit_heads WHERE tenant = :t", t=tenant)
        return bodies, head

    bodies, head = await db.read_current(read)
    entries = [json.loads(body) for body in bodies]
    assert [e["seq"] for e in entries] == list(range(1, len(entries) + 1))
    assert all(b["prev_entry_hash"] == a["entry_hash"] for a, b in pairwise(entries))
    if entries:
        assert entries[0]["prev_entry_hash"] is None
        assert head is not None
        assert entries[-1]["entry_hash"] == "sha256:" + head.hex()
    return entries


async def count(tx: Tx) -> int:
    """How many receipts there are."""
    return await tx.one(int, "SELECT count(*) FROM receipts") or 0
