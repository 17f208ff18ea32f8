"""Which key signs what, by the time it carries, and what a process may rely on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.storage.conftest import config, db, postgres  # noqa: F401 - fixtures

from signet.app.signing import new_held_key
from signet.gateway.signing import (
    JWKS_CACHE_S,
    KNOWN_S,
    LEAST_LEAD_S,
    HeldKey,
    SigningKeys,
    announced,
    public_key,
    signer_at,
)
from signet.storage import keys as stored
from signet.storage.database import Database
from signet.storage.errors import StorageBusy
from signet.storage.keys import StoredKey

pytestmark = pytest.mark.anyio

ONE, TWO, THREE = (new_held_key() for _ in range(3))
S = 1_000_000


@dataclass(slots=True)
class World:
    """A database, what a process holds, and its clocks."""

    db: Database
    held: dict[str, HeldKey] = field(default_factory=dict[str, HeldKey])
    now_us: int = 1_000 * S
    monotonic_s: float = 0.0

    def keys(self, *held: HeldKey) -> SigningKeys:
        """What a process that holds these keys knows."""
        known: Mapping[str, HeldKey] = {one.signing.kid: one for one in held}
        return SigningKeys(
            database=self.db,
            held=known.get,
            clock=lambda: self.now_us,
            monotonic=lambda: self.monotonic_s,
        )

    async def publish(self, held: HeldKey, signs_from_us: int | None) -> None:
        """A key with its beginning."""
        row = held.published(self.now_us)._replace(signs_from_us=signs_from_us)
        await self.db.transact(stored.publish, row)

    async def retire(self, held: HeldKey, retired_us: int) -> None:
        """A key's last moment."""
        await self.db.transact(
            lambda tx: stored.retire(
                tx, held.signing.kid, retired_us=retired_us, exp_us=retired_us + 60 * S
            )
        )


@pytest.fixture
def world(db: Database) -> World:  # noqa: F811
    """An empty world."""
    return World(db)


def row(held: HeldKey, **life: int | None) -> StoredKey:
    """A stored key with this life."""
    return held.published(0)._replace(**life)


async def test_the_announced_moment_decides(world: World) -> None:
    """What carries a time before the switch is signed by the old key, all else by the new one."""
    await world.publish(ONE, 0)
    await world.publish(TWO, 1_020 * S)
    await world.retire(ONE, 1_020 * S)
    keys = world.keys(ONE, TWO)
    await keys.refresh()
    assert keys.at(0) is ONE.signing
    assert keys.at(1_020 * S - 1) is ONE.signing
    assert keys.at(1_020 * S) is TWO.signing
    assert await keys.key_for(2_000 * S) is TWO.signing


async def test_forwards_are_signed_by_both_before_the_switch(world: World) -> None:
    """A receiver that knows either webhook key accepts; afterwards the old one is not used."""
    await world.publish(ONE, 0)
    keys = world.keys(ONE, TWO)
    await keys.refresh()
    assert keys.webhooks_at(world.now_us) == [ONE.webhook]
    await world.publish(TWO, 1_020 * S)
    await world.retire(ONE, 1_020 * S)
    await keys.refresh()
    assert keys.webhooks_at(world.now_us) == [ONE.webhook, TWO.webhook]
    assert keys.webhooks_at(1_020 * S) == [TWO.webhook]


async def test_what_is_known_gets_old(world: World) -> None:
    """A process that was held up signs nothing before it has read anew; who can wait reads."""
    await world.publish(ONE, 0)
    keys = world.keys(ONE)
    await keys.refresh()
    world.monotonic_s = KNOWN_S
    assert keys.at(world.now_us) is ONE.signing
    world.monotonic_s = KNOWN_S + 0.001
    with pytest.raises(StorageBusy, match="too long ago"):
        keys.at(world.now_us)
    with pytest.raises(StorageBusy, match="too long ago"):
        keys.webhooks_at(world.now_us)
    assert await keys.key_for(world.now_us) is ONE.signing
    assert keys.at(world.now_us) is ONE.signing


def test_no_switch_comes_unannounced() -> None:
    """What a process knows has passed away before any switch that it has not read of."""
    assert LEAST_LEAD_S >= KNOWN_S + 5
    assert JWKS_CACHE_S > LEAST_LEAD_S


async def test_before_anything_was_read_nothing_is_signed(world: World) -> None:
    """Knowing nothing is no permission."""
    world.monotonic_s = 1.0
    with pytest.raises(StorageBusy):
        world.keys(ONE).at(world.now_us)


async def test_a_key_that_is_not_here_is_named(world: World) -> None:
    """Neither another key signs in its place, nor is the lack silent."""
    await world.publish(ONE, 0)
    await world.publish(TWO, 1_020 * S)
    await world.retire(ONE, 1_020 * S)
    keys = world.keys(ONE)
    await keys.refresh()
    assert keys.at(world.now_us) is ONE.signing
    assert keys.missing(world.now_us) == [TWO.signing.kid]
    assert keys.webhooks_at(world.now_us) == [ONE.webhook]
    with pytest.raises(StorageBusy, match=TWO.signing.kid):
        keys.at(1_020 * S)
    assert world.keys(TWO).missing(world.now_us) == []  # nothing read yet
    other = world.keys(TWO)
    await other.refresh()
    assert other.missing(1_019 * S) == [ONE.signing.kid]
    assert other.missing(1_020 * S) == []


async def test_a_revoked_key_signs_nothing(world: World) -> None:
    """Where nobody follows, nothing is signed at all."""
    await world.publish(ONE, 0)
    await world.db.transact(stored.revoke, ONE.signing.kid, world.now_us)
    keys = world.keys(ONE)
    await keys.refresh()
    with pytest.raises(StorageBusy, match="no key signs"):
        keys.at(world.now_us)


@given(
    switches=st.lists(st.integers(1, 10**6), min_size=0, max_size=2, unique=True),
    time_us=st.integers(0, 2 * 10**6),
)
def test_at_any_time_one_key_signs(switches: list[int], time_us: int) -> None:
    """Whatever switches were announced, each moment belongs to one key, inside its life."""
    begun = [0, *sorted(switches)]
    ends = [*(after for _, after in pairwise(begun)), None]
    rows = [
        row(held, signs_from_us=start, retired_us=end)
        for held, start, end in zip((ONE, TWO, THREE), begun, ends, strict=False)
    ]
    signer = signer_at(rows, time_us)
    assert signer is not None
    assert signer.signs_from_us is not None
    assert signer.signs_from_us <= time_us
    assert signer.retired_us is None or time_us < signer.retired_us


def test_a_published_key_is_told_in_whole_seconds() -> None:
    """As RFC 7519 wants a NumericDate, rounded down."""
    told = public_key(row(ONE, nbf_us=1_999_999, exp_us=3 * S, revoked_us=4 * S + 1))
    assert (told.not_before_s, told.expires_s, told.revoked_at_s) == (1, 3, 4)
    assert public_key(row(ONE)).expires_s is None


class TestAnnounced:
    """A process that starts publishes what it holds."""

    async def known(self, world: World) -> dict[str, int | None]:
        """Every published key by when it began."""
        rows = await world.db.read_current(stored.published)
        return {key.kid: key.signs_from_us for key in rows}

    async def test_the_first_key_signs_from_ever(self, world: World) -> None:
        """A node whose clock is behind can use it too; the next key stands by."""
        for _ in range(2):
            await world.db.transact(announced, ONE, TWO, world.now_us)
            assert await self.known(world) == {ONE.signing.kid: 0, TWO.signing.kid: None}
        assert [key.webhook for key in await world.db.read_current(stored.published)] == [
            held.webhook.public_key().public_bytes_raw()
            for held in sorted((ONE, TWO), key=lambda held: held.signing.kid)
        ]

    async def test_another_first_key_is_not_published(self, world: World) -> None:
        """A seed that was set by mistake never gets into the key set."""
        await world.db.transact(announced, ONE, None, world.now_us)
        await world.db.transact(announced, THREE, TWO, world.now_us)
        assert await self.known(world) == {ONE.signing.kid: 0, TWO.signing.kid: None}

    async def test_a_row_of_an_older_release_is_completed(self, world: World) -> None:
        """The webhook key of a known key is added."""
        await world.db.transact(stored.publish, row(ONE, signs_from_us=0, webhook=None))
        await world.db.transact(announced, ONE, None, world.now_us)
        [key] = await world.db.read_current(stored.published)
        assert key.webhook == ONE.webhook.public_key().public_bytes_raw()
