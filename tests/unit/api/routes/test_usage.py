"""`GET /v1/usage`: whose month it is, and which."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.inprocess import invoice, open_app
from tests.month import steady_clock  # noqa: F401 - a fixture

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("steady_clock")]


async def test_a_tenant_sees_its_own_month(tmp_path: Path) -> None:
    """What one tenant used is counted for it and for nobody else."""
    async with open_app(tmp_path) as app:
        assert (await app.exchange(invoice())).status == 200
        mine = (await app.get("/v1/usage")).json
        theirs = (await app.get("/v1/usage", api_key="globex-key")).json
    assert (mine["tenant"], mine["vex"]["units"]) == ("acme", 1)
    assert (theirs["tenant"], theirs["vex"]["units"]) == ("globex", 0)


async def test_another_month_is_empty(tmp_path: Path) -> None:
    """A month in which nothing happened has zeros and its own bounds."""
    async with open_app(tmp_path) as app:
        used = (await app.get("/v1/usage?period=2001-02")).json
    assert used["period"] == {
        "name": "2001-02",
        "start": "2001-02-01T00:00:00.000000Z",
        "end": "2001-03-01T00:00:00.000000Z",
    }
    assert used["vex"]["units"] == used["fu"]["units"] == 0


@pytest.mark.parametrize("period", ["", "2026", "2026-13", "2026-1", "0000-01", "now", "%00"])
async def test_no_month(tmp_path: Path, period: str) -> None:
    """What names no month is refused."""
    async with open_app(tmp_path) as app:
        reply = await app.get(f"/v1/usage?period={period}")
    assert (reply.status, reply.code) == (400, "parameter_invalid")


async def test_it_needs_the_scope(tmp_path: Path) -> None:
    """A key for exchanges alone reads no usage."""
    async with open_app(tmp_path) as app:
        reply = await app.get("/v1/usage", api_key="agent-key")
    assert (reply.status, reply.code) == (403, "scope_missing")
