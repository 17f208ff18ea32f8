"""One reserved-capacity document is in force for everybody, and the replaced ones are known."""

from __future__ import annotations

import asyncio

import pytest

from signet.storage import reserved
from signet.storage.database import Database

pytestmark = pytest.mark.anyio


async def test_the_last_document_is_in_force(db: Database) -> None:
    """Each other document is a revision; the same one again is none."""
    assert await db.read_current(reserved.in_force) is None
    assert [
        await db.transact(reserved.put_into_force, document, 7)
        for document in (b"a", b"a", b"b", b"a")
    ] == [1, 1, 2, 3]
    assert await db.read_current(reserved.in_force) == (3, b"a")
    assert await db.read_current(reserved.newer_than, 2) == (3, b"a")
    assert await db.read_current(reserved.newer_than, 3) is None


async def test_a_replaced_document_is_known(db: Database) -> None:
    """So a node whose file is old can tell that it is."""
    for document in (b"a", b"b"):
        await db.transact(reserved.put_into_force, document, 7)
    known = [await db.read_current(reserved.was_in_force, text) for text in (b"a", b"b", b"c")]
    assert known == [True, True, False]


async def test_two_at_once_are_two_revisions(db: Database) -> None:
    """Whoever comes second is in force, and neither is lost."""
    revisions = await asyncio.gather(
        *(db.transact(reserved.put_into_force, b"%d" % n, 7) for n in range(4))
    )
    assert sorted(revisions) == [1, 2, 3, 4]
