"""Fallback-unit quota: a hold is taken before the call and settled with what was really used.

The check and the reservation are one conditional statement, so concurrent callers never pass the
limit together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from signet.storage.tx import ReadTx, Tx


class Standing(NamedTuple):
    """How much of a period's quota is used and held."""

    used: int
    reserved: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The tokens are reserved under this id until it is settled or expires."""

    hold_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaExceeded:
    """Too little is left; `available` is what a smaller hold could still get."""

    available: int


class ExpiredHold(NamedTuple):
    """A hold whose owner did not, or cannot any more, settle it."""

    hold_id: str
    tenant: str
    period: str
    tokens: int


async def hold(
    tx: Tx, *, hold_id: str, tenant: str, period: str, tokens: int, limit: int, ttl_us: int
) -> Held | QuotaExceeded:
    """Reserve `tokens` of the tenant's `limit` for `period`. The same id again changes nothing."""
    noted = await tx.execute(
        """
        INSERT INTO fu_holds (hold_id, tenant, period, tokens, expires_us, estimated)
        VALUES (:hold_id, :tenant, :period, :tokens, :expires_us, 0) ON CONFLICT DO NOTHING
        """,
        hold_id=hold_id,
        tenant=tenant,
        period=period,
        tokens=tokens,
        expires_us=await tx.now_us() + ttl_us,
    )
    if not noted:
        return Held(hold_id=hold_id)
    reserved = await tx.execute(
        """
        INSERT INTO fu_quota AS q (tenant, period, used, reserved)
        SELECT :tenant, :period, 0, CAST(:tokens AS BIGINT)
        WHERE CAST(:tokens AS BIGINT) <= CAST(:limit AS BIGINT)
        ON CONFLICT (tenant, period) DO UPDATE SET reserved = q.reserved + excluded.reserved
        WHERE q.used + q.reserved + excluded.reserved <= CAST(:limit AS BIGINT)
        """,
        tenant=tenant,
        period=period,
        tokens=tokens,
        limit=limit,
    )
    if reserved:
        return Held(hold_id=hold_id)
    await tx.execute("DELETE FROM fu_holds WHERE hold_id = :hold_id", hold_id=hold_id)
    now = await standing(tx, tenant, period)
    return QuotaExceeded(available=max(limit - now.used - now.reserved, 0))


async def settle(tx: Tx, hold_id: str, *, used: int, estimated: bool = False) -> bool:
    """Turn a hold into real usage, even beyond what was held: spent is spent.

    Idempotent by id: True the first time, False when it is already settled or unknown.
    """
    held = await tx.one(
        _Held,
        """
        UPDATE fu_holds SET settled_us = :now, used = :used, estimated = :estimated
        WHERE hold_id = :hold_id AND settled_us IS NULL RETURNING tenant, period, tokens
        """,
        now=await tx.now_us(),
        used=used,
        estimated=int(estimated),
        hold_id=hold_id,
    )
    if held is None:
        return False
    await tx.execute(
        """
        UPDATE fu_quota SET reserved = reserved - :tokens, used = used + :used
        WHERE tenant = :tenant AND period = :period
        """,
        tokens=held.tokens,
        used=used,
        tenant=held.tenant,
        period=held.period,
    )
    return True


async def expired(tx: ReadTx, limit: int) -> list[ExpiredHold]:
    """Holds past their time, oldest first. Whoever reads this settles them."""
    return await tx.all(
        ExpiredHold,
        """
        SELECT hold_id, tenant, period, tokens FROM fu_holds
        WHERE settled_us IS NULL AND expires_us <= :now ORDER BY expires_us LIMIT :limit
        """,
        now=await tx.now_us(),
        limit=limit,
    )


async def held_under(tx: ReadTx, prefix: str, limit: int) -> list[ExpiredHold]:
    """Open holds whose id begins with `prefix`: those of one exchange, whose owner has died."""
    return await tx.all(
        ExpiredHold,
        """
        SELECT hold_id, tenant, period, tokens FROM fu_holds
        WHERE hold_id >= :first AND hold_id < :beyond AND settled_us IS NULL
        ORDER BY hold_id LIMIT :limit
        """,
        first=prefix,
        beyond=prefix + "\x7f",
        limit=limit,
    )


async def purge_settled(tx: Tx, before_us: int, limit: int) -> int:
    """Forget up to `limit` holds settled before `before_us`; how many went."""
    return await tx.execute(
        """
        DELETE FROM fu_holds WHERE hold_id IN (
            SELECT hold_id FROM fu_holds WHERE settled_us IS NOT NULL AND settled_us < :before
            ORDER BY settled_us LIMIT :limit
        )
        """,
        before=before_us,
        limit=limit,
    )


async def standing(tx: ReadTx, tenant: str, period: str) -> Standing:
    """What a period's quota looks like now; zeros when nothing was ever held."""
    found = await tx.one(
        Standing,
        "SELECT used, reserved FROM fu_quota WHERE tenant = :tenant AND period = :period",
        tenant=tenant,
        period=period,
    )
    return found or Standing(0, 0)


class _Held(NamedTuple):
    tenant: str
    period: str
    tokens: int
