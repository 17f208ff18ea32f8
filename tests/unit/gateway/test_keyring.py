"""The keys in force: what changes is seen, what has ended is refused, and when nobody can tell."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.storage.conftest import config, db, postgres  # noqa: F401 - fixtures

from signet.core.api_keys import Pepper
from signet.core.tenant import Keyring, Principal, read_keyring
from signet.gateway.api_keys import APIKeys, KeyRotated
from signet.gateway.keyring import STALE_S, KeyringStale, LiveKeyring
from signet.gateway.tenants import Actor, Tenants
from signet.storage import tenants as stored
from signet.storage.database import Database
from signet.storage.errors import StorageUnavailable
from signet.storage.tx import Tx

pytestmark = pytest.mark.anyio

CONFIGURED = read_keyring({"env-key": {"tenant": "acme"}, "other": {"tenant": "globex"}})
TESTER = Actor(key_id="test")
HOUR_US = 3_600_000_000


@dataclass
class Node:
    """One process of a deployment, with clocks that stand still."""

    db: Database
    configured: Keyring = CONFIGURED
    peppers: Sequence[Pepper] = ()
    now_us: int = 1_000 * HOUR_US
    now_s: float = 50.0
    keyring: LiveKeyring = field(init=False)
    tenants: Tenants = field(init=False)
    keys: APIKeys = field(init=False)

    def __post_init__(self) -> None:
        self.keyring = LiveKeyring(
            database=self.db,
            configured=self.configured,
            peppers=self.peppers,
            clock=lambda: self.now_us,
            monotonic=lambda: self.now_s,
        )
        self.tenants = Tenants(database=self.db, keyring=self.keyring, clock=lambda: self.now_us)
        self.keys = APIKeys(
            database=self.db,
            keyring=self.keyring,
            pepper=self.peppers[0] if self.peppers else None,
            clock=lambda: self.now_us,
            dice=secrets.token_bytes,
        )

    async def key(self, tenant: str = "acme", **how: Any) -> str:
        """Make a key; its text."""
        issued = await self.keys.create(tenant, {}, actor=TESTER, **how)
        return issued.text

    def find(self, text: str) -> Principal | None:
        """Look a key up."""
        return self.keyring.find(text.encode())


@pytest.fixture
async def nodes(db: Database) -> tuple[Node, Node]:  # noqa: F811
    """Two processes on one database."""
    one, other = Node(db), Node(db)
    for node in (one, other):
        await node.keyring.refresh()
    return one, other


async def test_the_other_node_sees_it_at_its_next_look(nodes: tuple[Node, Node]) -> None:
    """At once where it was made, elsewhere with the next refresh: making, changing, revoking."""
    one, other = nodes
    text = await one.key()
    assert (one.find(text) is not None, other.find(text)) == (True, None)
    assert await other.keyring.refresh()
    found = other.find(text)
    assert found is not None
    assert found.tenant.id == "acme"
    assert not await other.keyring.refresh()
    await one.keys.revoke(found.key_id, actor=TESTER)
    assert (one.find(text), other.find(text)) == (None, found)
    assert await other.keyring.refresh()
    assert other.find(text) is None


async def test_a_changed_tenant_is_another_object(nodes: tuple[Node, Node]) -> None:
    """What is kept by identity is made anew for its keys, and only for them."""
    one, other = nodes
    for tenant in ("initech", "umbrella"):
        await one.tenants.create(tenant, {}, actor=TESTER)
    texts = [await one.key("initech"), await one.key("umbrella")]
    await other.keyring.refresh()
    before = [other.find(text) for text in texts]
    await one.tenants.change("initech", {"fu_monthly_limit": 5}, actor=TESTER)
    await other.keyring.refresh()
    after = [other.find(text) for text in texts]
    assert after[0] is not None
    assert after[0].tenant.fu_monthly_limit == 5
    assert after[0] is not before[0]
    assert after[1] is before[1]
    assert other.keyring.tenants["initech"].fu_monthly_limit == 5  # type: ignore[index]


async def test_the_clock_ends_a_key(nodes: tuple[Node, Node]) -> None:
    """At its end a key is refused everywhere, without any look at the database."""
    one, other = nodes
    text = await one.key(expires_in_s=3600)
    await other.keyring.refresh()
    for node in nodes:
        node.now_us += HOUR_US - 1
        assert node.find(text) is not None
        node.now_us += 1
        assert node.find(text) is None
    later = Node(one.db, now_us=one.now_us)
    await later.keyring.refresh()
    assert later.keyring.count == 2, "what has ended is not even read"


async def test_a_successor_counts_its_tokens_with_the_first(nodes: tuple[Node, Node]) -> None:
    """The account goes on through every rotation, on each node."""
    one, other = nodes
    first = one.find(await one.key())
    assert first is not None
    second = await one.keys.rotate(first.key_id, actor=TESTER)
    third = await one.keys.rotate(second.key.key_id, actor=TESTER)
    await other.keyring.refresh()
    found = other.find(third.text)
    assert found is not None
    assert found.key_id == third.key.key_id
    assert found.account == first.account == f"{first.tenant.id}/{first.key_id}"


async def test_two_rotations_at_once(nodes: tuple[Node, Node]) -> None:
    """Of two nodes that rotate one key, one is told of the other's successor."""
    one, _ = nodes
    first = one.find(await one.key())
    assert first is not None
    told: list[str] = []

    async def rotate(node: Node) -> None:
        try:
            told.append((await node.keys.rotate(first.key_id, actor=TESTER)).key.key_id)
        except KeyRotated as error:
            told.append(error.detail)

    async with asyncio.TaskGroup() as tasks:
        for node in nodes:
            tasks.create_task(rotate(node))
    successor, refused = sorted(told, key=len)
    assert successor in refused


class TestUnconfirmed:
    """The database cannot be asked."""

    async def test_nobody_is_let_in_on_a_guess(self, nodes: tuple[Node, Node]) -> None:
        """Within the bound the last known keys serve; then nobody's of the database, until it is
        back. The settings' own keys are always known."""
        one, _ = nodes
        text = await one.key()
        one.now_s += STALE_S - 0.5
        assert one.find(text) is not None
        one.now_s += 1.0
        for presented in (text, "sp_live_" + "0" * 16 + "_" + "0" * 64):
            with pytest.raises(KeyringStale):
                one.find(presented)
        assert one.find("env-key") is not None
        assert one.find("no key at all") is None
        await one.keyring.refresh()
        assert one.find(text) is not None

    async def test_a_failed_look_changes_nothing(self, nodes: tuple[Node, Node]) -> None:
        """What was known stays, no younger than it was."""
        one, _ = nodes
        text = await one.key()
        one.keyring._database = _Gone()  # type: ignore[assignment]
        one.now_s += 10.0
        with pytest.raises(StorageUnavailable):
            await one.keyring.refresh()
        assert one.find(text) is not None
        one.now_s += STALE_S - 10.0
        with pytest.raises(KeyringStale):
            one.find(text)

    async def test_before_the_first_look_nobody_is_known(self, nodes: tuple[Node, Node]) -> None:
        """A keyring that was never read has the settings' keys and guesses about no other."""
        one, _ = nodes
        text = await one.key()
        fresh = Node(one.db)
        with pytest.raises(KeyringStale):
            fresh.find(text)
        assert fresh.find("env-key") is not None

    async def test_a_change_stands_although_the_look_after_it_fails(
        self, nodes: tuple[Node, Node]
    ) -> None:
        """The administrator is answered; the next look shows it."""
        one, _ = nodes
        database, one.keyring._database = one.db, _Gone()  # type: ignore[assignment]
        text = await one.key()
        assert one.find(text) is None
        one.keyring._database = database
        await one.keyring.refresh()
        assert one.find(text) is not None


class _Gone:
    """A database that does not answer."""

    async def read_current(self, *_args: object) -> None:
        raise StorageUnavailable("gone")


class TestUnusable:
    """Rows that nobody can use."""

    async def test_each_is_told_and_the_others_serve(self, nodes: tuple[Node, Node]) -> None:
        """A tenant or key that cannot be read takes nobody else with it."""
        one, _ = nodes
        await one.tenants.create("initech", {}, actor=TESTER)
        good, bad = await one.key(), await one.key("initech")

        async def spoil(tx: Tx) -> None:
            await stored.begin_change(tx)
            await stored.change_tenant(tx, "initech", b'{"allowlist":["a b"]}', 1)

        await one.db.transact(spoil)
        await one.keyring.refresh()
        assert one.find(good) is not None
        assert one.find(bad) is None
        subjects = [unusable.subject for unusable in one.keyring.unusable]
        assert subjects[0] == "tenant initech"
        assert subjects[1].startswith("key_")
        assert "described nowhere" in one.keyring.unusable[1].detail

    @pytest.mark.parametrize("document", [b"{", b"[]", b'{"colour":1}', b'{"sealed":1}'])
    async def test_a_document_of_another_time(
        self, nodes: tuple[Node, Node], document: bytes
    ) -> None:
        """Whatever a row holds, reading it ends neither the keyring nor a list of tenants, and who
        sees what is wrong can mend it."""
        one, _ = nodes
        await one.tenants.create("initech", {}, actor=TESTER)

        async def spoil(tx: Tx) -> None:
            await stored.begin_change(tx)
            await stored.change_tenant(tx, "initech", document, 1)

        await one.db.transact(spoil)
        await one.keyring.refresh()
        assert [unusable.subject for unusable in one.keyring.unusable] == ["tenant initech"]
        shown = await one.tenants.find("initech")
        assert "initech" in [tenant.id for tenant in await one.tenants.page(after="", limit=100)]
        if document == b'{"sealed":1}':
            assert shown.members["sealed"] == 1
            await one.tenants.change("initech", {"sealed": None}, actor=TESTER)
            assert one.keyring.unusable == ()


async def test_a_pepper_that_is_not_set_here(db: Database) -> None:  # noqa: F811
    """A key that was hashed under it opens nothing, and what is lacking is named."""
    pepper = Pepper(secret=b"p" * 32)
    with_it, without = Node(db, peppers=(pepper,)), Node(db)
    text = await with_it.key()
    await without.keyring.refresh()
    assert with_it.find(text) is not None
    assert without.find(text) is None
    (unusable,) = without.keyring.unusable
    assert pepper.id in unusable.detail


def test_the_bound_is_documented() -> None:
    """The guide says how long keys go on while the database cannot be asked."""
    guide = Path(__file__).parents[3] / "docs" / "guide" / "tenants-and-keys.md"
    assert f"{STALE_S:.0f} seconds" in guide.read_text("utf-8")
