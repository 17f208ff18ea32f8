"""Tenants and API keys made at run time, and the revision by which gateways see a change.

Who changes anything calls `begin_change` first: it takes the one row that all changes wait for,
so that what is read after it stays true until the commit, and who sees a revision sees everything
that came before it. Nothing is ever deleted; a key ends by a time.
"""

from __future__ import annotations

from typing import NamedTuple

from signet.storage.tx import ReadTx, Tx


class StoredTenant(NamedTuple):
    """A tenant; `document` is the canonical JSON of its members. Times in microseconds."""

    tenant: str
    document: bytes
    created_us: int
    changed_us: int


class StoredKey(NamedTuple):
    """An API key without its secret; `document` is the canonical JSON of its members.

    `hash` has 32 bytes, made with the pepper of that name, or with none. `first` is the public id
    of the first key of its line, `rotated_to` that of its successor. Times in microseconds.
    """

    public_id: str
    tenant: str
    hash: bytes
    pepper: str | None
    label: str
    document: bytes
    first: str
    rotated_to: str | None
    created_us: int
    expires_us: int | None
    revoked_us: int | None


async def begin_change(tx: Tx) -> None:
    """Let every gateway read the keyring anew, and keep other changes out until the commit."""
    await tx.execute("UPDATE keyring SET revision = revision + 1 WHERE id = 1")


async def revision(tx: ReadTx) -> int:
    """Another number than before: something has changed."""
    return await tx.one(int, "SELECT revision FROM keyring WHERE id = 1") or 0


async def add_tenant(tx: Tx, tenant: StoredTenant) -> bool:
    """Insert a tenant; False where the id is taken, and nothing is changed."""
    return bool(
        await tx.execute(
            """
            INSERT INTO tenants (tenant, document, created_us, changed_us)
            VALUES (:tenant, :document, :created_us, :changed_us) ON CONFLICT DO NOTHING
            """,
            **tenant._asdict(),
        )
    )


async def change_tenant(tx: Tx, tenant: str, document: bytes, changed_us: int) -> None:
    """Replace a tenant's document."""
    await tx.execute(
        """
        UPDATE tenants SET document = :document, changed_us = :changed_us WHERE tenant = :tenant
        """,
        tenant=tenant,
        document=document,
        changed_us=changed_us,
    )


async def find_tenant(tx: ReadTx, tenant: str) -> StoredTenant | None:
    """One tenant; None where none was made at run time."""
    return await tx.one(
        StoredTenant,
        "SELECT tenant, document, created_us, changed_us FROM tenants WHERE tenant = :tenant",
        tenant=tenant,
    )


async def tenants_page(tx: ReadTx, *, after: str, limit: int) -> list[StoredTenant]:
    """Tenants behind `after`, in the order of their ids."""
    return await tx.all(
        StoredTenant,
        """
        SELECT tenant, document, created_us, changed_us FROM tenants
        WHERE tenant > :after ORDER BY tenant LIMIT :limit
        """,
        after=after,
        limit=limit,
    )


async def add_key(tx: Tx, key: StoredKey) -> None:
    """Insert a key. Raises `IntegrityViolated` where the public id is taken."""
    await tx.execute(
        """
        INSERT INTO api_keys (public_id, tenant, hash, pepper, label, document, first, rotated_to,
            created_us, expires_us, revoked_us)
        VALUES (:public_id, :tenant, :hash, :pepper, :label, :document, :first, :rotated_to,
            :created_us, :expires_us, :revoked_us)
        """,
        **key._asdict(),
    )


async def end_key(
    tx: Tx,
    public_id: str,
    *,
    expires_us: int | None,
    revoked_us: int | None,
    rotated_to: str | None,
) -> None:
    """Write down how a key ends, and what comes after it."""
    await tx.execute(
        """
        UPDATE api_keys SET expires_us = :expires_us, revoked_us = :revoked_us,
            rotated_to = :rotated_to
        WHERE public_id = :public_id
        """,
        public_id=public_id,
        expires_us=expires_us,
        revoked_us=revoked_us,
        rotated_to=rotated_to,
    )


async def find_key(tx: ReadTx, public_id: str) -> StoredKey | None:
    """One key; None where there is none."""
    return await tx.one(
        StoredKey,
        """
        SELECT public_id, tenant, hash, pepper, label, document, first, rotated_to,
            created_us, expires_us, revoked_us
        FROM api_keys WHERE public_id = :public_id
        """,
        public_id=public_id,
    )


async def keys_page(tx: ReadTx, *, tenant: str | None, after: str, limit: int) -> list[StoredKey]:
    """Keys behind the public id `after`, in its order: a tenant's, or everybody's for None."""
    if tenant is None:
        return await tx.all(
            StoredKey,
            """
            SELECT public_id, tenant, hash, pepper, label, document, first, rotated_to,
                created_us, expires_us, revoked_us
            FROM api_keys WHERE public_id > :after ORDER BY public_id LIMIT :limit
            """,
            after=after,
            limit=limit,
        )
    return await tx.all(
        StoredKey,
        """
        SELECT public_id, tenant, hash, pepper, label, document, first, rotated_to,
            created_us, expires_us, revoked_us
        FROM api_keys WHERE tenant = :tenant AND public_id > :after
        ORDER BY public_id LIMIT :limit
        """,
        tenant=tenant,
        after=after,
        limit=limit,
    )


async def all_tenants(tx: ReadTx) -> list[StoredTenant]:
    """Every tenant."""
    return await tx.all(
        StoredTenant, "SELECT tenant, document, created_us, changed_us FROM tenants"
    )


async def keys_in_force(tx: ReadTx, now_us: int) -> list[StoredKey]:
    """Every key that has neither been revoked nor expired at `now_us`."""
    return await tx.all(
        StoredKey,
        """
        SELECT public_id, tenant, hash, pepper, label, document, first, rotated_to,
            created_us, expires_us, revoked_us
        FROM api_keys
        WHERE revoked_us IS NULL AND (expires_us IS NULL OR expires_us > :now_us)
        """,
        now_us=now_us,
    )
