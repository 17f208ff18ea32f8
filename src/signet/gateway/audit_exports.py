"""Reading the audit log: pages for whoever may see them, and signed exports of a whole chain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from signet.core.ids import TenantId
from signet.gateway.ports import Clock
from signet.receipts.audit import MANIFEST_KIND, seal_manifest
from signet.receipts.canonical import Json, parse_for_verification
from signet.receipts.keys import SigningKey
from signet.receipts.receipt import timestamp
from signet.storage import audit as stored
from signet.storage.database import Database
from signet.storage.errors import StorageError
from signet.storage.hashes import hash_text
from signet.storage.tx import ReadTx

_PAGE: Final = 500


class ChainPruned(StorageError):
    """Retention removed entries while they were being exported; ask again."""

    code = "audit_pruned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """The end of an export: its signed manifest, and how many entries came before it."""

    manifest: bytes
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditExports:
    """The use cases that read the audit log."""

    database: Database
    clock: Clock

    async def page(
        self,
        tenant: TenantId,
        *,
        after: int,
        from_us: int | None,
        to_us: int | None,
        action: str | None,
        limit: int,
    ) -> tuple[stored.Page, stored.Head | None]:
        """Return a page of a tenant's entries, and where the chain ended when it was read."""

        async def read(tx: ReadTx) -> tuple[stored.Page, stored.Head | None]:
            page = await stored.page(
                tx,
                tenant,
                after=after,
                from_us=from_us,
                to_us=to_us,
                action=action,
                limit=limit,
            )
            return page, await stored.head(tx, tenant)

        return await self.database.read(read)

    async def export(
        self,
        tenant: TenantId,
        *,
        issuer: str,
        key: SigningKey,
        jwks: dict[str, Json],
        from_us: int | None = None,
        to_us: int | None = None,
    ) -> AsyncIterator[bytes | Exported]:
        """Yield the canonical entries of a chain as it stands now, and at last its manifest.

        Memory does not grow with the chain. Raises `ChainPruned`.
        """
        end = await self.database.read_current(stored.head, tenant)
        after, count = 0, 0
        first: bytes | None = None
        last: bytes | None = None
        while end is not None:
            page = await self.database.read_current(
                stored.page,
                tenant,
                after=after,
                from_us=from_us if after == 0 else None,
                to_us=to_us,
                limit=_PAGE,
            )
            for seq, body in page.entries:
                if seq > end.seq:  # it came while this was being read
                    break
                if after and seq != after + 1:
                    raise ChainPruned("entries were pruned while they were read; export again")
                first, last = first or body, body
                after, count = seq, count + 1
                yield body
            if page.next_after is None or after == end.seq:
                break
            await asyncio.sleep(0)  # with SQLite nothing else here ever suspends
        members: dict[str, Json] = {
            "v": 1,
            "kind": MANIFEST_KIND,
            "iss": issuer,
            "tenant": tenant,
            "exported_at": timestamp(self.clock()),
            "from": None if from_us is None else timestamp(from_us),
            "to": None if to_us is None else timestamp(to_us),
            "count": count,
            "first_seq": _member(first, "seq"),
            "last_seq": _member(last, "seq"),
            "first_prev_entry_hash": _member(first, "prev_entry_hash"),
            "last_entry_hash": _member(last, "entry_hash"),
            "head_seq": 0 if end is None else end.seq,
            "head_entry_hash": None if end is None else hash_text(end.entry_hash),
            "jwks": jwks,
        }
        yield Exported(manifest=seal_manifest(members, key), count=count)


def _member(entry: bytes | None, name: str) -> Json:
    if entry is None:
        return None
    members = parse_for_verification(entry)
    assert isinstance(members, dict), "it was sealed as an object"
    return members[name]
