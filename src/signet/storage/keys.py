"""Public signing keys and their lives, from which the JWKS is served.

A node inserts its key before it signs. Which key signs is decided here, for every process alike:
the one whose `signs_from_us` came last, from that moment until it retires.
"""

from __future__ import annotations

from typing import NamedTuple

from signet.storage.hashes import digest
from signet.storage.tx import ReadTx, Tx


class StoredKey(NamedTuple):
    """An Ed25519 public key and its life; times in microseconds, None where not set.

    Without `signs_from_us` it is published only. From `retired_us` on it signs nothing new;
    signatures that it made count before `exp_us` and `revoked_us`. `webhook` is the public key
    derived from it for forwards.
    """

    kid: str
    public: bytes
    alias: str | None
    created_us: int
    nbf_us: int | None
    exp_us: int | None
    retired_us: int | None
    revoked_us: int | None
    signs_from_us: int | None = None
    webhook: bytes | None = None


class Countersigned(NamedTuple):
    """A receipt of the key log by its hop, with the signature of the key before it."""

    hop: int
    jws: str


async def take_turn(tx: Tx) -> None:
    """Wait until no other process changes the keys' lives, and keep others out until the commit."""
    await tx.execute("UPDATE signing_turn SET changes = changes + 1 WHERE id = 1")


async def publish(tx: Tx, key: StoredKey) -> bool:
    """Insert a key; False when it was there already (its life is left as it is).

    An alias that another key has stays with that key: one name for two keys would spoil the set.
    """
    inserted = await tx.execute(
        """
        INSERT INTO signing_keys (kid, public, alias, created_us, nbf_us, exp_us, retired_us,
            revoked_us, signs_from_us, webhook)
        VALUES (:kid, :public,
            CASE WHEN EXISTS (SELECT 1 FROM signing_keys WHERE alias = :alias)
                THEN NULL ELSE :alias END,
            :created_us, :nbf_us, :exp_us, :retired_us, :revoked_us, :signs_from_us, :webhook)
        ON CONFLICT DO NOTHING
        """,
        **key._asdict(),
    )
    # Rows of older releases have none.
    await tx.execute(
        "UPDATE signing_keys SET webhook = :webhook WHERE kid = :kid AND webhook IS NULL",
        kid=key.kid,
        webhook=key.webhook,
    )
    return bool(inserted)


async def begin(tx: Tx, kid: str, *, signs_from_us: int) -> bool:
    """The key signs from then on; False: unknown, or it has begun or ended before."""
    return bool(
        await tx.execute(
            """
            UPDATE signing_keys SET signs_from_us = :signs_from_us
            WHERE kid = :kid AND signs_from_us IS NULL AND retired_us IS NULL
                AND revoked_us IS NULL
            """,
            kid=kid,
            signs_from_us=signs_from_us,
        )
    )


async def retire(tx: Tx, kid: str, *, retired_us: int, exp_us: int | None = None) -> bool:
    """The key signs nothing new from then on; False: unknown or retired before."""
    return bool(
        await tx.execute(
            """
            UPDATE signing_keys SET retired_us = :retired_us, exp_us = coalesce(:exp_us, exp_us)
            WHERE kid = :kid AND retired_us IS NULL
            """,
            retired_us=retired_us,
            exp_us=exp_us,
            kid=kid,
        )
    )


async def revoke(tx: Tx, kid: str, revoked_us: int) -> bool:
    """The key is not to be trusted any more; False: unknown or revoked before."""
    return bool(
        await tx.execute(
            """
            UPDATE signing_keys SET revoked_us = :revoked_us
            WHERE kid = :kid AND revoked_us IS NULL
            """,
            revoked_us=revoked_us,
            kid=kid,
        )
    )


async def published(tx: ReadTx) -> list[StoredKey]:
    """Every key ever published, oldest first."""
    return await tx.all(
        StoredKey,
        """
        SELECT kid, public, alias, created_us, nbf_us, exp_us, retired_us, revoked_us,
            signs_from_us, webhook
        FROM signing_keys ORDER BY created_us, kid
        """,
    )


async def countersign(tx: Tx, receipt_hash: str, jws: str) -> None:
    """Keep the signature of the key before over the receipt of a rotation."""
    await tx.execute(
        "INSERT INTO key_countersignatures (receipt_hash, jws) VALUES (:receipt_hash, :jws)",
        receipt_hash=digest(receipt_hash),
        jws=jws,
    )


async def countersignatures(
    tx: ReadTx, tenant: str, trace_id: str, *, upto_hop: int
) -> list[Countersigned]:
    """Which receipts of a chain the key before signed as well, in order."""
    return await tx.all(
        Countersigned,
        """
        SELECT r.hop, c.jws
        FROM heads h
        JOIN receipts r ON r.trace = h.trace AND r.hop <= :upto_hop
        JOIN key_countersignatures c ON c.receipt_hash = r.receipt_hash
        WHERE h.tenant = :tenant AND h.trace_id = :trace_id
        ORDER BY r.hop
        """,
        tenant=tenant,
        trace_id=trace_id,
        upto_hop=upto_hop,
    )
