"""Tenants and API keys as rows, on both engines."""

from __future__ import annotations

import pytest

from signet.storage import tenants
from signet.storage.database import Database
from signet.storage.errors import IntegrityViolated
from signet.storage.tenants import StoredKey, StoredTenant
from signet.storage.tx import Tx

pytestmark = pytest.mark.anyio


def tenant(name: str = "acme", document: bytes = b"{}") -> StoredTenant:
    """A tenant."""
    return StoredTenant(name, document, 1, 1)


def key(public_id: str, of: str = "acme", **changes: object) -> StoredKey:
    """A key without an end."""
    made = StoredKey(
        public_id=public_id,
        tenant=of,
        hash=public_id.encode().ljust(32, b"."),
        pepper=None,
        label="",
        document=b"{}",
        first=public_id,
        rotated_to=None,
        created_us=1,
        expires_us=None,
        revoked_us=None,
    )
    return made._replace(**changes)  # type: ignore[arg-type]


async def test_an_id_is_given_once(db: Database) -> None:
    """The second is told so, and the first stays as it is."""
    assert await db.transact(tenants.add_tenant, tenant())
    assert not await db.transact(tenants.add_tenant, tenant(document=b"[]"))
    assert await db.read_current(tenants.find_tenant, "acme") == tenant()
    assert await db.read_current(tenants.find_tenant, "globex") is None
    await db.transact(tenants.change_tenant, "acme", b"[1]", 9)
    assert await db.read_current(tenants.all_tenants) == [StoredTenant("acme", b"[1]", 1, 9)]


async def test_a_change_is_a_new_revision(db: Database) -> None:
    """Each change has its own number, and a change that fails has none."""
    before = await db.read_current(tenants.revision)
    await db.transact(tenants.begin_change)

    async def fail(tx: Tx) -> None:
        await tenants.begin_change(tx)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await db.transact(fail)
    assert await db.read_current(tenants.revision) == before + 1


async def test_pages_are_in_the_order_of_bytes(db: Database) -> None:
    """Both engines have one order, so a page never leaves anything out."""
    for name in ("b", "B", "a.b", "a-b", "ab", "_x"):
        await db.transact(tenants.add_tenant, tenant(name))
        await db.transact(tenants.add_key, key(name, of=name))
    in_order = ["B", "_x", "a-b", "a.b", "ab", "b"]
    for page in (
        await db.read_current(tenants.tenants_page, after="", limit=9),
        await db.read_current(tenants.keys_page, tenant=None, after="", limit=9),
    ):
        assert [row[0] for row in page] == in_order
    page = await db.read_current(tenants.tenants_page, after="_x", limit=2)
    assert [row.tenant for row in page] == ["a-b", "a.b"]


async def test_keys_of_a_tenant(db: Database) -> None:
    """A list of one tenant's keys has no other's."""
    for public_id, of in (("1", "acme"), ("2", "globex"), ("3", "acme")):
        await db.transact(tenants.add_key, key(public_id, of))
    page = await db.read_current(tenants.keys_page, tenant="acme", after="", limit=9)
    assert [row.public_id for row in page] == ["1", "3"]
    page = await db.read_current(tenants.keys_page, tenant="acme", after="1", limit=9)
    assert [row.public_id for row in page] == ["3"]


async def test_what_has_ended_is_not_in_force(db: Database) -> None:
    """A key is in force until the microsecond of its end, or until it was revoked."""
    for public_id, changes in (
        ("1", {}),
        ("2", {"expires_us": 100}),
        ("3", {"expires_us": 101}),
        ("4", {"revoked_us": 50}),
    ):
        await db.transact(tenants.add_key, key(public_id, **changes))
    rows = await db.read_current(tenants.keys_in_force, 100)
    assert sorted(row.public_id for row in rows) == ["1", "3"]


async def test_an_end_is_written_down(db: Database) -> None:
    """What ends a key changes nothing else of it."""
    await db.transact(tenants.add_key, key("1"))
    ended = key("1", expires_us=5, revoked_us=6, rotated_to="2")
    await db.transact(
        lambda tx: tenants.end_key(tx, "1", expires_us=5, revoked_us=6, rotated_to="2")
    )
    assert await db.read_current(tenants.find_key, "1") == ended
    assert await db.read_current(tenants.find_key, "2") is None


async def test_no_two_keys_share_an_id(db: Database) -> None:
    """Nor can a hash be anything but 32 bytes."""
    await db.transact(tenants.add_key, key("1"))
    for row in (key("1", of="globex"), key("2", hash=b"short")):
        with pytest.raises(IntegrityViolated):
            await db.transact(tenants.add_key, row)
