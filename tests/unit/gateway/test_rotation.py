"""Changing the signing key, on both engines."""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import Any

import pytest
from tests.storage.conftest import config, db, postgres  # noqa: F401 - fixtures

from signet.app.signing import new_held_key
from signet.core.audit import SYSTEM
from signet.gateway.chains import Audit
from signet.gateway.exports import Exports
from signet.gateway.rotation import OVERLAP_S, KeyChangeRefused, KeyUnknown, Rotation
from signet.gateway.signing import JWKS_CACHE_S, LEAST_LEAD_S, HeldKey, announced
from signet.receipts.keys import KeySet
from signet.receipts.receipt import KEY_TENANT, KEY_TRACE
from signet.receipts.verify import Level, verify
from signet.storage import keys as stored
from signet.storage.database import Database
from signet.storage.keys import StoredKey
from signet.storage.tx import ReadTx

pytestmark = pytest.mark.anyio

ONE, TWO, THREE = (new_held_key() for _ in range(3))
S = 1_000_000


@pytest.fixture
async def rotation(db: Database) -> Rotation:  # noqa: F811
    """A deployment whose first key is ONE."""
    await db.transact(announced, ONE, None, await db.read_current(now_us))
    return Rotation(database=db, issuer="https://signet.test", dice=secrets.token_bytes, actor="me")


async def now_us(tx: ReadTx) -> int:
    """The database's clock."""
    return await tx.now_us()


async def known(rotation: Rotation) -> dict[str, StoredKey]:
    """Every published key."""
    return {key.kid: key for key in await rotation.database.read_current(stored.published)}


async def states(rotation: Rotation) -> dict[str, str]:
    """What every key does."""
    return {one.key.kid: one.state for one in await rotation.listing()}


async def passed(rotation: Rotation) -> None:
    """Let every announced switch have happened a while ago; the receipts keep their times."""

    async def back(tx: Any) -> None:
        await tx.execute(
            "UPDATE signing_keys SET signs_from_us = signs_from_us - :by WHERE signs_from_us > 0",
            by=2 * JWKS_CACHE_S * S,
        )
        await tx.execute(
            "UPDATE signing_keys SET retired_us = retired_us - :by",
            by=2 * JWKS_CACHE_S * S,
        )

    await rotation.database.transact(back)


async def log(rotation: Rotation, key: HeldKey = ONE) -> bytes:
    """The log of the keys, exported now under `key`."""

    async def key_for(_time_us: int) -> Any:
        return key.signing

    at_us = await rotation.database.read_current(now_us)
    exports = Exports(database=rotation.database, key_for=key_for, clock=lambda: at_us)
    exported = await exports.key_log()
    assert exported is not None
    return b"".join([chunk async for chunk in exported.chunks])


async def test_a_rotation_is_announced(rotation: Rotation) -> None:
    """The new key waits until every copy of the key set has it; the old one ends there, and its
    signatures count a little longer."""
    before_us = await rotation.database.read_current(now_us)
    switch = await rotation.rotate(TWO, ONE)
    assert (switch.kid, switch.previous) == (TWO.signing.kid, ONE.signing.kid)
    assert JWKS_CACHE_S * S <= switch.signs_from_us - before_us <= (JWKS_CACHE_S + 60) * S
    assert switch.signs_from_us % S == 0
    keys = await known(rotation)
    old, new = keys[ONE.signing.kid], keys[TWO.signing.kid]
    assert old.retired_us == new.signs_from_us == switch.signs_from_us
    assert old.exp_us == switch.signs_from_us + OVERLAP_S * S
    assert new.nbf_us is not None
    assert new.nbf_us <= switch.signs_from_us
    assert await states(rotation) == {ONE.signing.kid: "signing", TWO.signing.kid: "scheduled"}
    await passed(rotation)
    assert await states(rotation) == {ONE.signing.kid: "retired", TWO.signing.kid: "signing"}


async def test_the_notice_can_be_chosen(rotation: Rotation) -> None:
    """So can its length; a key that was published for long needs the shortest only."""
    before_us = await rotation.database.read_current(now_us)
    switch = await rotation.rotate(TWO, ONE, lead_s=1_000)
    assert 1_000 * S <= switch.signs_from_us - before_us <= 1_060 * S
    await passed(rotation)
    await passed(rotation)
    long_ago = THREE.published(before_us - 2 * JWKS_CACHE_S * S)
    await rotation.database.transact(stored.publish, long_ago)
    switch = await rotation.rotate(THREE, TWO)
    assert LEAST_LEAD_S * S <= switch.signs_from_us - before_us <= (LEAST_LEAD_S + 60) * S


async def test_the_receipt_is_signed_by_both(rotation: Rotation) -> None:
    """Whoever pinned the first key follows to the last one; an auditor finds nothing wrong."""
    await rotation.rotate(TWO, ONE)
    await passed(rotation)
    await rotation.rotate(THREE, TWO)
    document = await log(rotation, TWO)
    report = verify(document, trust=[ONE.signing.kid], level=Level.SIGNED)
    assert set(report.signed_by) == {held.signing.kid for held in (ONE, TWO, THREE)}
    told = json.loads(document)
    assert told["trace_id"] == KEY_TRACE
    assert {receipt["tenant"] for receipt in told["chain"]} == {KEY_TENANT}
    assert [receipt["key"]["kid"] for receipt in told["chain"]] == [
        TWO.signing.kid,
        THREE.signing.kid,
    ]
    assert all(jws.count("..") == 1 for jws in told["signatures_previous"])
    assert "outcome" not in told["chain"][0]
    audit = Audit(rotation.database, page=8)
    found: list[object] = []
    while (flaws := await audit.step()) is not None:
        found += flaws
    assert found == []
    assert audit.progress.receipts == 2


async def test_a_lost_key_vouches_for_nobody(rotation: Rotation) -> None:
    """The next one takes over at the shortest notice, and the receipt says that it stands alone."""
    before_us = await rotation.database.read_current(now_us)
    switch = await rotation.rotate(TWO, None)
    assert switch.signs_from_us - before_us <= (LEAST_LEAD_S + 60) * S
    document = await log(rotation, TWO)
    assert json.loads(document)["signatures_previous"] == [None]
    assert json.loads(document)["chain"][0]["key"]["previous"] is None
    assert verify(document, trust=[TWO.signing.kid]).level is Level.SIGNED


async def test_one_at_a_time(rotation: Rotation) -> None:
    """Of several at once one is announced; the others say when it will have passed."""
    outcomes = await asyncio.gather(
        *(rotation.rotate(new_held_key(), ONE) for _ in range(4)), return_exceptions=True
    )
    refused = [one for one in outcomes if isinstance(one, KeyChangeRefused)]
    assert len(refused) == 3
    assert all("takes over at" in one.detail for one in refused)
    assert len(await known(rotation)) == 2


async def test_what_cannot_follow(rotation: Rotation) -> None:
    """Neither the key in force nor one that has had its time; and only who holds the key acts."""
    with pytest.raises(KeyChangeRefused, match="signs already"):
        await rotation.rotate(ONE, ONE)
    with pytest.raises(KeyChangeRefused, match="rotate where it is held"):
        await rotation.rotate(TWO, THREE)
    await rotation.rotate(TWO, ONE)
    await passed(rotation)
    with pytest.raises(KeyChangeRefused, match="never signs again"):
        await rotation.rotate(ONE, TWO)
    await rotation.database.transact(stored.publish, THREE.published(1))
    await rotation.retire(THREE.signing.kid, TWO.signing)
    with pytest.raises(KeyChangeRefused, match="never signs again"):
        await rotation.rotate(THREE, TWO)


async def test_before_the_first_start_there_is_nothing_to_change(db: Database) -> None:  # noqa: F811
    """A database on which no key signs says so."""
    rotation = Rotation(database=db, issuer="i", dice=secrets.token_bytes, actor="me")
    with pytest.raises(KeyChangeRefused, match="start the gateway first"):
        await rotation.rotate(ONE, TWO)
    assert await rotation.listing() == []


async def test_a_key_that_signs_cannot_be_taken_away(rotation: Rotation) -> None:
    """Neither the one in force nor the one that is to follow; the message says what to do first."""
    await rotation.rotate(TWO, ONE)
    for kid in (ONE.signing.kid, TWO.signing.kid):
        for end in (rotation.retire, rotation.revoke):
            with pytest.raises(KeyChangeRefused, match="rotate to another"):
                await end(kid, ONE.signing)
    with pytest.raises(KeyUnknown):
        await rotation.revoke(THREE.signing.kid, ONE.signing)
    await passed(rotation)
    with pytest.raises(KeyChangeRefused, match="only the key in force"):
        await rotation.revoke(ONE.signing.kid, ONE.signing)


async def test_a_retired_key_is_revoked_once(rotation: Rotation) -> None:
    """It is published with that time, which the log tells too, under the key in force."""
    await rotation.rotate(TWO, ONE)
    await passed(rotation)
    ended = await rotation.revoke(ONE.signing.kid, TWO.signing)
    assert (await known(rotation))[ONE.signing.kid].revoked_us == ended.at_us
    assert (await states(rotation))[ONE.signing.kid] == "revoked"
    with pytest.raises(KeyChangeRefused, match="revoked before"):
        await rotation.revoke(ONE.signing.kid, TWO.signing)
    document = await log(rotation, TWO)
    told = json.loads(document)
    assert [receipt["key"]["event"] for receipt in told["chain"]] == ["rotated", "revoked"]
    assert told["signatures_previous"][1] is None
    assert verify(document, jwks=KeySet.from_jwks(told["jwks"])).level is Level.SIGNED


async def test_every_change_is_audited(rotation: Rotation) -> None:
    """Who changed which key stands in the deployment's own audit chain."""
    await rotation.rotate(TWO, ONE)
    await passed(rotation)
    await rotation.revoke(ONE.signing.kid, TWO.signing)

    async def read(tx: ReadTx) -> list[str]:
        return await tx.all(
            lambda body: json.loads(body)["action"] + " " + json.loads(body)["actor"],
            "SELECT body FROM audit_entries WHERE tenant = :tenant ORDER BY seq",
            tenant=SYSTEM,
        )

    entries = await rotation.database.read_current(read)
    assert entries == ["signing_key.rotate me", "signing_key.revoke me"]
