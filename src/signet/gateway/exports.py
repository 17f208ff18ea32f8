"""What can be asked afterwards: a receipt, a chain, a signed export, the public keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, Protocol, TypeVar

from signet.core.errors import SignetError
from signet.core.tenant import Principal
from signet.gateway.ports import Clock
from signet.gateway.signing import KeyFor, public_key
from signet.receipts.bundle import BundleDraft, PageOf, SealedBundle
from signet.receipts.canonical import Json, parse_for_verification
from signet.receipts.keys import KeySet
from signet.receipts.receipt import KEY_TENANT, KEY_TRACE, timestamp
from signet.storage import keys as stored_keys
from signet.storage import receipts as stored
from signet.storage.database import Database
from signet.storage.exchanges import Head
from signet.storage.receipts import StoredReceipt
from signet.storage.tx import ReadTx

T = TypeVar("T")

MAX_PAGE: Final = 1000
WEBHOOK_USE: Final = "webhook"
_RECEIPTS_A_TURN: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredExchange:
    """One receipt with the payload it names, where that is still kept."""

    receipt: StoredReceipt
    normalized: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainPart:
    """Consecutive receipts of a trace, and where the whole trace ended when they were read."""

    receipts: list[StoredReceipt]
    head: Head


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """A signed document: its headers are known before `chunks` begins."""

    bundle: SealedBundle
    chunks: AsyncIterator[bytes]


class PageBeyondEnd(SignetError):
    """The page asked for starts behind the last receipt of the trace."""

    code = "not_found"


class _Reading(Protocol):
    def __call__(self) -> AsyncIterable[StoredReceipt]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Exports:
    """The use cases that read. Each sees only what belongs to the principal's tenant."""

    database: Database
    key_for: KeyFor
    clock: Clock

    async def exchange(self, principal: Principal, receipt_hash: str) -> StoredExchange | None:
        """Return one receipt of this tenant; None where there is none."""
        return await self.database.read_current(_exchange, principal.tenant.id, receipt_hash)

    async def chain(
        self, principal: Principal, trace_id: str, *, from_hop: int, limit: int
    ) -> ChainPart | None:
        """Return up to `limit` receipts of a trace; None where this tenant has no such trace."""
        return await self.database.read_current(
            _chain, principal.tenant.id, trace_id, from_hop, min(limit, MAX_PAGE)
        )

    async def export(self, principal: Principal, trace_id: str) -> Export | None:
        """Sign the whole trace as it stands now, in memory that does not grow with it."""
        tenant = principal.tenant.id
        head = await self.database.read_current(stored.head, tenant, trace_id)
        if head is None:
            return None
        return await self._sign(lambda: self._chain(tenant, trace_id, head), trace_id, None)

    async def export_page(
        self, principal: Principal, trace_id: str, *, from_hop: int, limit: int
    ) -> Export | None:
        """Sign a part of a trace. Pages prove nothing alone; the verifier wants all of them.

        Raises `PageBeyondEnd`.
        """
        part = await self.chain(principal, trace_id, from_hop=from_hop, limit=limit)
        if part is None:
            return None
        if not part.receipts:
            raise PageBeyondEnd(f"the trace ends at hop {part.head.hop}")
        page = PageOf(
            from_hop=from_hop, head_hop=part.head.hop, head_receipt_hash=part.head.receipt_hash
        )
        return await self._sign(lambda: _replay(part.receipts), trace_id, page)

    async def jwks(self) -> dict[str, Json]:
        """Return every key ever published, retired ones with the end of their life.

        The keys that sign forwards are there too, for another use: they prove no receipt.
        """
        keys = await self.database.read_current(stored_keys.published)
        published = KeySet.of(public_key(key) for key in keys).jwks()["keys"]
        assert isinstance(published, list), "a key set is a list"
        webhooks: list[Json] = [
            {**public_key(key._replace(public=key.webhook, alias=None)).jwk(), "use": WEBHOOK_USE}
            for key in keys
            if key.webhook is not None
        ]
        return {"keys": [*published, *webhooks]}

    async def key_log(self) -> Export | None:
        """Sign the public chain of the signing keys' lives; None before the first rotation."""
        head = await self.database.read_current(stored.head, KEY_TENANT, KEY_TRACE)
        if head is None:
            return None
        chain = await self.database.read_current(
            stored_keys.countersignatures, KEY_TENANT, KEY_TRACE, upto_hop=head.hop
        )
        return await self._sign(
            lambda: self._chain(KEY_TENANT, KEY_TRACE, head),
            KEY_TRACE,
            None,
            previous={one.hop: one.jws for one in chain},
        )

    async def _keys(self) -> KeySet:
        return await published_keys(self.database)

    def _chain(self, tenant: str, trace_id: str, head: Head) -> AsyncIterator[StoredReceipt]:
        return _paced(stored.iter_chain(self.database, tenant, trace_id, upto_hop=head.hop))

    async def _sign(
        self,
        reading: _Reading,
        trace_id: str,
        page: PageOf | None,
        *,
        previous: Mapping[int, str] | None = None,
    ) -> Export:
        now_us = self.clock()
        key = await self.key_for(now_us)
        draft = BundleDraft(
            trace_id=trace_id, exported_at=timestamp(now_us), page=page, previous=previous
        )
        async for receipt in reading():
            draft.add_receipt(receipt.canonical)
        async for receipt in reading():
            draft.add_signature(receipt.jws)
        bundle = draft.seal(key, jwks=(await self._keys()).jwks())
        chunks = bundle.achunks(
            _each(reading(), attrgetter("canonical")), _each(reading(), attrgetter("jws"))
        )
        return Export(bundle=bundle, chunks=chunks)


async def published_keys(database: Database) -> KeySet:
    """Return every signing key ever published."""
    return KeySet.of(public_key(key) for key in await database.read_current(stored_keys.published))


async def _exchange(tx: ReadTx, tenant: str, receipt_hash: str) -> StoredExchange | None:
    receipt = await stored.by_hash(tx, tenant, receipt_hash)
    if receipt is None:
        return None
    document = parse_for_verification(receipt.canonical)
    assert isinstance(document, dict), "it was sealed as an object"
    cid = document.get("cid")
    payload = await stored.payload(tx, tenant, cid) if isinstance(cid, str) else None
    return StoredExchange(receipt=receipt, normalized=payload.body if payload else None)


async def _chain(
    tx: ReadTx, tenant: str, trace_id: str, from_hop: int, limit: int
) -> ChainPart | None:
    head = await stored.head(tx, tenant, trace_id)
    if head is None:
        return None
    receipts = await stored.chain(tx, tenant, trace_id, from_hop=from_hop, limit=limit)
    return ChainPart(receipts=receipts, head=head)


async def _paced(receipts: AsyncIterable[StoredReceipt]) -> AsyncIterator[StoredReceipt]:
    """Let others have their turn: with SQLite nothing else here ever suspends."""
    async for receipt in receipts:
        if receipt.hop % _RECEIPTS_A_TURN == 0:
            await asyncio.sleep(0)
        yield receipt


async def _replay(receipts: list[StoredReceipt]) -> AsyncIterator[StoredReceipt]:
    for receipt in receipts:
        yield receipt


async def _each(
    receipts: AsyncIterable[StoredReceipt], part: Callable[[StoredReceipt], T]
) -> AsyncIterator[T]:
    async for receipt in receipts:
        yield part(receipt)
