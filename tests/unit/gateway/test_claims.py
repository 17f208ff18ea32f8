"""Claims are taken in the name of this process, and carry their intent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.gateway.calls import sheet

from signet.gateway.claims import Claims, Step
from signet.gateway.intents import Intent
from signet.storage import idempotency
from signet.storage.database import Database, SqliteConfig, open_database
from signet.storage.exchanges import InFlight, KeyReused
from signet.storage.idempotency import Claimed

pytestmark = pytest.mark.anyio

CLAIMS = Claims(owner="me", lease_us=60_000_000)
FORWARD = Step(spends_key=True, url="https://a.example/", headers={"a": "b"}, idempotent=True)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database."""
    async with open_database(SqliteConfig(path=tmp_path / "signet.db")) as opened:
        yield opened


async def test_a_claim_holds_the_key(database: Database) -> None:
    """The second one is told to wait, and another body that the key is taken."""
    made = sheet({"sku": "A"})
    assert isinstance(await database.transact(CLAIMS.take, made, FORWARD), Claimed)
    assert isinstance(await database.transact(CLAIMS.take, made, FORWARD), InFlight)
    other = sheet({"sku": "A"}, fingerprint=b"g" * 32)
    assert isinstance(await database.transact(CLAIMS.take, other, FORWARD), KeyReused)


async def test_the_intent_can_be_taken_over(database: Database) -> None:
    """Whoever finds the claim finds all that its receipt needs."""
    made = sheet({"sku": "A"})
    made.normalized, made.members, made.fu_tokens = b"{}", {"schema_in": "x"}, 5
    await database.transact(CLAIMS.take, made, FORWARD)
    (orphan,) = await database.transact(
        idempotency.take_expired, owner="you", lease_us=1, limit=10, dead=["me"]
    )
    intent = Intent.decode(orphan.intent)
    assert intent.subject == made.call.subject
    assert (intent.url, intent.headers, intent.idempotent) == (
        *(FORWARD.url, FORWARD.headers),
        True,
    )
    assert (intent.normalized, intent.members, intent.fu_tokens) == (b"{}", made.members, 5)


async def test_an_exchange_goes_on_under_its_claim(database: Database) -> None:
    """A second step keeps the key and renews the intent, unless recovery was first."""
    made = sheet({"sku": "A"})
    first = await database.transact(CLAIMS.take, made, Step(spends_key=False))
    assert isinstance(first, Claimed)
    made.fence = first.fence
    second = await database.transact(CLAIMS.take, made, FORWARD)
    assert isinstance(second, Claimed)
    made.fence = second.fence
    await database.transact(
        idempotency.take_expired, owner="you", lease_us=1, limit=10, dead=["me"]
    )
    assert isinstance(await database.transact(CLAIMS.take, made, FORWARD), InFlight)
