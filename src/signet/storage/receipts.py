"""Reading what the log holds. Receipts are append-only, so pages of one chain never change."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

from signet.storage.database import Database
from signet.storage.exchanges import Head
from signet.storage.tx import ReadTx, Tx


class StoredReceipt(NamedTuple):
    """A receipt as it was signed. `jws` is as it was given when sealed."""

    hop: int
    receipt_hash: str
    canonical: bytes
    jws: str


class StoredPayload(NamedTuple):
    """A payload with its salt, if its hashes are salted; both None once erased."""

    body: bytes | None
    salt: bytes | None


async def head(tx: ReadTx, tenant: str, trace_id: str) -> Head | None:
    """The end of a chain; None: this tenant has no such trace."""
    raise NotImplementedError


async def by_hash(tx: ReadTx, tenant: str, receipt_hash: str) -> StoredReceipt | None:
    """One receipt of this tenant; None also for another tenant's and for a malformed hash."""
    raise NotImplementedError


async def chain(
    tx: ReadTx, tenant: str, trace_id: str, *, from_hop: int = 1, limit: int = 256
) -> list[StoredReceipt]:
    """Up to `limit` receipts from `from_hop` on, in order; empty: no such trace or past its end."""
    raise NotImplementedError


def iter_chain(
    db: Database, tenant: str, trace_id: str, *, upto_hop: int, page: int = 256
) -> AsyncIterator[StoredReceipt]:
    """Hops 1 to `upto_hop` in bounded memory.

    Take `upto_hop` from `head` once and iterate as often as needed: what is at or below it never
    changes, so every pass sees the same bytes without a transaction held open for a slow reader.
    """
    raise NotImplementedError


async def payload(tx: ReadTx, tenant: str, cid: str) -> StoredPayload | None:
    """A payload by its CID; None: never stored here, or expired."""
    raise NotImplementedError


async def erase_payload(tx: Tx, tenant: str, cid: str) -> int:
    """Erase a payload, its salt and every stored answer that carries it; how many receipts it
    concerned. Their replays are `Erased` from then on."""
    raise NotImplementedError
