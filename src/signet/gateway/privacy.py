"""What is forgotten: payloads on request or by age, answers and audit entries by age.

A receipt never goes. It names what it is about by a hash, so a proof stands without its content.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from signet.core.audit import RETENTION, Change, Entry, Origin
from signet.core.ids import TenantId
from signet.core.tenant import Principal, Tenant
from signet.gateway.intents import Intent
from signet.gateway.ports import Clock
from signet.gateway.sealing import salted_id
from signet.receipts.receipt import timestamp
from signet.storage import audit, idempotency, receipts, retention
from signet.storage.audit import record_change
from signet.storage.database import Database
from signet.storage.tx import ReadTx, Tx
from signet.telemetry.metrics import Metrics

_DAY_US: Final = 86_400_000_000
# Small enough that exchanges hardly wait for it.
_PAYLOADS: Final = 200
_ANSWERS: Final = 500
_ENTRIES: Final = 2000
_TENANTS: Final = 100
_INTENTS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """The payload is gone, now or before. `erased` of its `receipts` had it until now."""

    receipts: int
    erased: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnderWay:
    """An exchange with this very payload has not ended; it would be stored behind the erasure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """The use case behind `DELETE /v1/payloads/{cid}`."""

    database: Database
    metrics: Metrics

    async def erase(
        self, principal: Principal, cid: str, origin: Origin
    ) -> Erased | UnderWay | None:
        """Erase a payload of the principal's tenant, its salt, and every answer that carries it.

        Doing it again changes nothing. None: this tenant never had such a payload.
        """
        found = await self.database.transact(_erase, principal, cid, origin)
        if isinstance(found, Erased):
            self.metrics.payloads_erased.labels("request").inc(found.erased)
        return found


async def _erase(
    tx: Tx, principal: Principal, cid: str, origin: Origin
) -> Erased | UnderWay | None:
    tenant = principal.tenant.id
    held = await retention.held(tx, tenant, cid)
    if not held.receipts:
        return None
    if await _is_under_way(tx, tenant, cid):
        return UnderWay()
    erased = await receipts.erase_payload(tx, tenant, cid)
    if erased:
        change = Change(
            actor=principal.key_id,
            tenant=tenant,
            action="payload.erase",
            object=cid,
            before={"receipts": held.receipts, "with_payload": held.live},
            after={"receipts": held.receipts, "with_payload": 0},
            origin=origin,
        )
        await record_change(tx, change)
    return Erased(receipts=held.receipts, erased=erased)


async def _is_under_way(tx: ReadTx, tenant: TenantId, cid: str) -> bool:
    for stored in await retention.intents(tx, tenant, _INTENTS):
        intent = Intent.decode(stored)
        body = intent.normalized
        if body is not None and salted_id(intent.subject.salt, body) == cid:
            return True
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """The use case that a worker calls: what is too old goes, a bounded part at a time.

    A tenant's own `payload_retention_days` go before `payload_days`; None and 0 keep for ever.
    """

    database: Database
    tenants: Callable[[], Mapping[TenantId, Tenant]]
    payload_days: int | None
    audit_days: int | None
    answer_s: int
    metrics: Metrics
    clock: Clock

    async def run_once(self) -> int:
        """Remove some of what is too old; return how much, 0 when nothing is left."""
        now_us = self.clock()
        answers = await self.database.transact(
            idempotency.purge_answers, now_us - self.answer_s * 1_000_000, _ANSWERS
        )
        return answers + await self._expire(now_us) + await self._prune(now_us)

    async def _expire(self, now_us: int) -> int:
        tenants, gone, name = self.tenants(), 0, ""
        while (found := await self.database.read_current(retention.next_tenant, name)) is not None:
            name = found
            tenant = tenants.get(TenantId(name))
            own = None if tenant is None else tenant.payload_retention_days
            days = self.payload_days if own is None else own
            if days:
                gone += await self.database.transact(
                    _expire, TenantId(name), now_us - days * _DAY_US
                )
        self.metrics.payloads_erased.labels("age").inc(gone)
        return gone

    async def _prune(self, now_us: int) -> int:
        if not self.audit_days:
            return 0
        before_us = now_us - self.audit_days * _DAY_US
        gone = 0
        for tenant in await self.database.read_current(audit.with_older, before_us, _TENANTS):
            gone += await self.database.transact(
                audit.prune, TenantId(tenant), before_us=before_us, limit=_ENTRIES
            )
        return gone


async def _expire(tx: Tx, tenant: TenantId, before_us: int) -> int:
    gone = await retention.expire(tx, tenant, before_us=before_us, limit=_PAYLOADS)
    if gone:
        entry = Entry(
            tenant=tenant,
            ts_us=await tx.now_us(),
            actor=RETENTION,
            action="payload.expire",
            after={"older_than": timestamp(before_us), "receipts": gone},
        )
        await audit.append(tx, [entry])
    return gone
