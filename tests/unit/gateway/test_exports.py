"""What can be asked afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.inprocess import KEYS, App, invoice, key_for, open_app

from signet.core.tenant import read_keyring
from signet.gateway.exports import Exports

pytestmark = pytest.mark.anyio


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    """A gateway whose database the tests write to."""
    async with open_app(tmp_path) as opened:
        yield opened


def _exports(app: App) -> Exports:
    return Exports(
        database=app.gateway.database,
        key_for=key_for,
        clock=lambda: 0,
    )


async def test_nothing_belongs_to_nobody(app: App) -> None:
    """Every question of a tenant without receipts is None."""
    principal = read_keyring({"k": dict(KEYS["acme-key"])}).find(b"k")  # type: ignore[call-overload]
    assert principal is not None
    exports = _exports(app)
    assert await exports.exchange(principal, "sha256:" + "0" * 64) is None
    assert await exports.chain(principal, "t", from_hop=1, limit=1) is None
    assert await exports.export(principal, "t") is None
    assert await exports.export_page(principal, "t", from_hop=1, limit=1) is None


async def test_the_published_keys_say_their_use(app: App) -> None:
    """One signs receipts, the other webhooks."""
    keys = (await _exports(app).jwks())["keys"]
    assert isinstance(keys, list)
    assert [key["use"] for key in keys if isinstance(key, dict)] == ["sig", "webhook"]


async def test_others_have_their_turn_while_a_long_trace_is_signed(app: App) -> None:
    """Signing thousands of receipts never holds the loop for all of them."""

    async with asyncio.TaskGroup() as tasks:
        for _ in range(1500):
            tasks.create_task(app.exchange(invoice(trace_id="t")))
    turns = 0
    done = asyncio.Event()

    async def others() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(others())
        await asyncio.sleep(0)
        turns = 0
        assert len(await app.verified("t")) == 1500
        done.set()
    assert turns > 1500 / 64
