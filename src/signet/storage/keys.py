"""Public signing keys, from which the JWKS is served. A node inserts its key before it signs."""

from __future__ import annotations

from typing import NamedTuple

from signet.storage.tx import ReadTx, Tx


class StoredKey(NamedTuple):
    """An Ed25519 public key and its life; times in microseconds, None where not set."""

    kid: str
    public: bytes
    alias: str | None
    created_us: int
    nbf_us: int | None
    exp_us: int | None
    retired_us: int | None
    revoked_us: int | None


async def publish(tx: Tx, key: StoredKey) -> bool:
    """Insert a key; False when it was there already (its life is left as it is)."""
    return bool(
        await tx.execute(
            """
            INSERT INTO signing_keys (kid, public, alias, created_us, nbf_us, exp_us, retired_us,
                revoked_us)
            VALUES (:kid, :public, :alias, :created_us, :nbf_us, :exp_us, :retired_us, :revoked_us)
            ON CONFLICT DO NOTHING
            """,
            **key._asdict(),
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
        SELECT kid, public, alias, created_us, nbf_us, exp_us, retired_us, revoked_us
        FROM signing_keys ORDER BY created_us, kid
        """,
    )
