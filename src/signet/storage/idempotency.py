"""Idempotency keys: what is known about one, and claims for exchanges that will do network work.

A claim is taken in its own short transaction before anything leaves the process (EXCHANGE: two
transactions around the network) and is closed by `commit_exchanges` under the same fence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from signet.storage.errors import Raced
from signet.storage.exchanges import Known
from signet.storage.exchanges import read_known as lookup
from signet.storage.tx import PerRow, ReadTx, Tx

__all__ = [
    "Claim",
    "Claimed",
    "Orphan",
    "claim",
    "lookup",
    "owners",
    "purge_answers",
    "release",
    "renew",
    "take_expired",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A wish to act under a key.

    `owner` names the process (boot id, pid and start time) so that recovery can prove it dead.
    `lease_us` must exceed the whole deadline of the network work. `intent` is what recovery needs
    to write the receipt. `spends_key` holds for a forward: the key then never acts again, even
    after its answer has expired.
    """

    tenant: str
    trace_id: str
    key_hash: bytes
    fingerprint: bytes
    owner: str
    lease_us: int
    intent: bytes
    spends_key: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """The key is ours until `lease_until_us` on the database's clock, under this fence."""

    fence: int
    lease_until_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """A claim that recovery has taken over, to be closed under the new `fence`."""

    tenant: str
    trace_id: str
    key_hash: bytes
    fingerprint: bytes
    intent: bytes
    fence: int
    claimed_us: int


async def claim(tx: Tx, wish: Claim) -> Claimed | Known:
    """Take the key, or say why not. Never send anything before this has been acknowledged.

    Raises `Raced` when the key was given back at this very moment; the engine then asks again.
    """
    taken = await tx.execute(
        """
        INSERT INTO idempotency (tenant, key_hash, fingerprint, receipt, spent)
        VALUES (:tenant, :key_hash, :fingerprint, NULL, :spent) ON CONFLICT DO NOTHING
        """,
        tenant=wish.tenant,
        key_hash=wish.key_hash,
        fingerprint=wish.fingerprint,
        spent=int(wish.spends_key),
    )
    if not taken:
        known = await lookup(tx, wish.tenant, wish.key_hash, wish.fingerprint)
        if known is None:
            raise Raced("The key was given back while it was asked for.")
        return known
    # A fence is never issued twice for a key, not even after a release: it starts at the clock.
    now_us = await tx.now_us()
    claimed = Claimed(fence=now_us, lease_until_us=now_us + wish.lease_us)
    await tx.execute(
        """
        INSERT INTO claims (tenant, key_hash, trace_id, owner, fence, claimed_us, lease_until_us,
            intent)
        VALUES (:tenant, :key_hash, :trace_id, :owner, :fence, :claimed_us, :lease_until_us,
            :intent)
        """,
        tenant=wish.tenant,
        key_hash=wish.key_hash,
        trace_id=wish.trace_id,
        owner=wish.owner,
        fence=claimed.fence,
        claimed_us=now_us,
        lease_until_us=claimed.lease_until_us,
        intent=wish.intent,
    )
    return claimed


async def renew(tx: Tx, tenant: str, key_hash: bytes, fence: int, lease_us: int) -> bool:
    """Lengthen the lease from now on; False: recovery was first, stop before the next byte."""
    return bool(
        await tx.execute(
            """
            UPDATE claims SET lease_until_us = :until
            WHERE tenant = :tenant AND key_hash = :key_hash AND fence = :fence
            """,
            until=await tx.now_us() + lease_us,
            tenant=tenant,
            key_hash=key_hash,
            fence=fence,
        )
    )


async def advance(tx: Tx, wish: Claim, fence: int) -> Claimed | None:
    """Write down the next step under a claim that is already ours; None: recovery was first.

    The lease begins anew. As with `claim`, nothing is sent before this has been acknowledged.
    """
    until = await tx.now_us() + wish.lease_us
    ours = await tx.execute(
        """
        UPDATE claims SET lease_until_us = :until, intent = :intent
        WHERE tenant = :tenant AND key_hash = :key_hash AND fence = :fence
        """,
        until=until,
        intent=wish.intent,
        tenant=wish.tenant,
        key_hash=wish.key_hash,
        fence=fence,
    )
    if not ours:
        return None
    if wish.spends_key:
        await tx.execute(
            "UPDATE idempotency SET spent = 1 WHERE tenant = :tenant AND key_hash = :key_hash",
            tenant=wish.tenant,
            key_hash=wish.key_hash,
        )
    return Claimed(fence=fence, lease_until_us=until)


async def release(tx: Tx, tenant: str, key_hash: bytes, fence: int) -> bool:
    """Give the key back as if never claimed; only when it is certain that nothing was sent.

    False: the claim is no longer ours.
    """
    closed = await tx.execute(
        "DELETE FROM claims WHERE tenant = :tenant AND key_hash = :key_hash AND fence = :fence",
        tenant=tenant,
        key_hash=key_hash,
        fence=fence,
    )
    if closed:
        await tx.execute(
            """
            DELETE FROM idempotency
            WHERE tenant = :tenant AND key_hash = :key_hash AND receipt IS NULL
            """,
            tenant=tenant,
            key_hash=key_hash,
        )
    return bool(closed)


async def owners(tx: ReadTx) -> list[str]:
    """Whoever holds open claims, so that the caller can find out which of them are dead."""
    return await tx.all(str, "SELECT DISTINCT owner FROM claims ORDER BY owner")


async def take_expired(
    tx: Tx, *, owner: str, lease_us: int, limit: int, dead: Sequence[str] = ()
) -> list[Orphan]:
    """Take over claims whose lease has ended, or whose owner is in `dead`; raises their fences.

    `limit` bounds each of the two kinds. Several recoverers may run at once: no claim is given to
    two of them.
    """
    now_us = await tx.now_us()
    found = await tx.each(_Open, _OF_OWNER, [(name, limit) for name in sorted(set(dead))])
    found += await tx.each(_Open, _EXPIRED, [(now_us, limit)])
    orphans = [
        Orphan(
            tenant=row.tenant,
            trace_id=row.trace_id,
            key_hash=row.key_hash,
            fingerprint=row.fingerprint,
            intent=row.intent,
            fence=max(now_us, row.fence + 1),
            claimed_us=row.claimed_us,
        )
        for row in {(row.tenant, row.key_hash): row for row in found}.values()
    ]
    await tx.execute_each(
        _TAKE, [(o.tenant, o.key_hash, owner, o.fence, now_us + lease_us) for o in orphans]
    )
    return orphans


async def purge_answers(tx: Tx, before_us: int, limit: int) -> int:
    """Forget up to `limit` answers of receipts older than `before_us`; how many went.

    The keys become free again, except those that claimed a forward: they stay spent.
    """
    old = await tx.all(
        _Old,
        """
        SELECT receipt, tenant, key_hash FROM answers
        WHERE ts_us < :before ORDER BY ts_us LIMIT :limit
        """,
        before=before_us,
        limit=limit,
    )
    await tx.execute_each(_FREE_KEYS, [(row.tenant, row.key_hash, row.receipt) for row in old])
    return await tx.execute_each(_FORGET, [(row.receipt,) for row in old])


class _Open(NamedTuple):
    tenant: str
    key_hash: bytes
    fingerprint: bytes
    trace_id: str
    fence: int
    claimed_us: int
    intent: bytes


class _Old(NamedTuple):
    receipt: int
    tenant: str
    key_hash: bytes


# On PostgreSQL a claim that is being closed or taken by somebody else is passed over.
_EXPIRED = PerRow(
    sqlite="""
        SELECT c.tenant, c.key_hash, i.fingerprint, c.trace_id, c.fence, c.claimed_us, c.intent
        FROM claims c JOIN idempotency i ON i.tenant = c.tenant AND i.key_hash = c.key_hash
        WHERE c.lease_until_us <= ? ORDER BY c.lease_until_us LIMIT ?
    """,
    postgres="""
        SELECT c.tenant, c.key_hash, i.fingerprint, c.trace_id, c.fence, c.claimed_us, c.intent
        FROM claims c JOIN idempotency i ON i.tenant = c.tenant AND i.key_hash = c.key_hash
        WHERE c.lease_until_us <= ($1::bigint[])[1]
        ORDER BY c.lease_until_us LIMIT ($2::bigint[])[1] FOR UPDATE OF c SKIP LOCKED
    """,
)
_OF_OWNER = PerRow(
    sqlite="""
        SELECT c.tenant, c.key_hash, i.fingerprint, c.trace_id, c.fence, c.claimed_us, c.intent
        FROM claims c JOIN idempotency i ON i.tenant = c.tenant AND i.key_hash = c.key_hash
        WHERE c.owner = ? LIMIT ?
    """,
    postgres="""
        SELECT c.tenant, c.key_hash, i.fingerprint, c.trace_id, c.fence, c.claimed_us, c.intent
        FROM claims c JOIN idempotency i ON i.tenant = c.tenant AND i.key_hash = c.key_hash
        WHERE c.owner = ANY ($1::text[])
        LIMIT ($2::bigint[])[1] FOR UPDATE OF c SKIP LOCKED
    """,
)
_TAKE = PerRow(
    sqlite="""
        UPDATE claims SET owner = ?3, fence = ?4, lease_until_us = ?5
        WHERE tenant = ?1 AND key_hash = ?2
    """,
    postgres="""
        UPDATE claims c SET owner = k.owner, fence = k.fence, lease_until_us = k.until
        FROM unnest($1::text[], $2::bytea[], $3::text[], $4::bigint[], $5::bigint[])
            AS k (tenant, key_hash, owner, fence, until)
        WHERE c.tenant = k.tenant AND c.key_hash = k.key_hash
    """,
)
_FREE_KEYS = PerRow(
    sqlite="""
        DELETE FROM idempotency WHERE tenant = ? AND key_hash = ? AND receipt = ? AND spent = 0
    """,
    postgres="""
        DELETE FROM idempotency i
        USING unnest($1::text[], $2::bytea[], $3::bigint[]) AS k (tenant, key_hash, receipt)
        WHERE i.tenant = k.tenant AND i.key_hash = k.key_hash AND i.receipt = k.receipt
            AND i.spent = 0
    """,
)
_FORGET = PerRow(
    sqlite="DELETE FROM answers WHERE receipt = ?",
    postgres="DELETE FROM answers WHERE receipt = ANY ($1::bigint[])",
)
