"""`GET /v1/limits`: a caller's own limits, and what is left of them."""

from __future__ import annotations

from pathlib import Path

import jsonschema_rs
import pytest
from tests.inprocess import open_app
from tests.month import steady_clock  # noqa: F401 - a fixture

from signet.api.schemas import LIMITS
from signet.storage import quota

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("steady_clock")]

KEYS = {
    "free-key": {"tenant": "free"},
    "full-key": {
        "tenant": "full",
        "rate_per_minute": 1,
        "rate_burst": 5,
        "concurrency": 4,
        "fu_monthly_limit": 1000,
        "key_rate_per_minute": 1,
        "key_rate_burst": 2,
        "key_fu_monthly_limit": 10,
    },
    "patient-key": {
        "tenant": "full",
        "rate_per_minute": 1,
        "rate_burst": 5,
        "concurrency": 4,
        "fu_monthly_limit": 1000,
    },
    "other-key": {
        "tenant": "full",
        "rate_per_minute": 1,
        "rate_burst": 5,
        "concurrency": 4,
        "fu_monthly_limit": 1000,
        "scopes": ["billing.read"],
    },
}


async def test_all_limits_and_what_is_left(tmp_path: Path) -> None:
    """Rates, concurrency and quota; the request that asks has been counted."""
    async with open_app(tmp_path, keys=KEYS) as app:
        document = (await app.get("/v1/limits", api_key="full-key")).json
    jsonschema_rs.validate(LIMITS, document)
    tenant, key = document["rates"]["tenant"], document["rates"]["key"]
    assert (tenant["interval_us"], tenant["burst"], tenant["left"]) == (60_000_000, 5, 4)
    assert 0 < tenant["next_us"] <= 60_000_000
    assert (key["interval_us"], key["burst"], key["left"]) == (60_000_000, 2, 1)
    assert document["concurrency"] == {"limit": 4, "in_progress": 1}
    fu = document["fu"]
    assert (fu["limit"], fu["left"], fu["key_limit"]) == (1000, 1000, 10)
    assert (fu["key_used"], fu["key_reserved"], fu["key_left"]) == (0, 0, 10)


async def test_what_a_key_has_spent_is_its_own(tmp_path: Path) -> None:
    """What it used and holds leaves it less; its neighbour, and the month before, are not in it."""
    async with open_app(tmp_path, keys=KEYS) as app:
        before = (await app.get("/v1/limits", api_key="full-key")).json
        period = before["fu"]["period"]
        for hold_id, account, of, tokens in (
            ("spent", f"full/{before['key_id']}", period, 3),
            ("open", f"full/{before['key_id']}", period, 4),
            ("earlier", f"full/{before['key_id']}", "2001-01", 9),
            ("neighbour", "full/key_of_another", period, 9),
            ("tenant", "full", period, 7),
        ):
            await app.gateway.database.transact(
                quota.hold,
                hold_id=hold_id,
                tenant=account,
                period=of,
                tokens=tokens,
                limit=1000,
                ttl_us=3_600_000_000,
            )
        await app.gateway.database.transact(quota.settle, "spent", used=5)
        fu = (await app.get("/v1/limits", api_key="patient-key")).json["fu"]
        assert (fu["used"], fu["reserved"], fu["left"]) == (0, 7, 993)
        assert (fu["key_limit"], fu["key_used"], fu["key_left"]) == (None, 0, None)
        key = (await app.get("/v1/limits", api_key="full-key")).json["fu"]
    assert (key["limit"], key["left"], key["key_limit"]) == (1000, 993, 10)
    assert (key["key_used"], key["key_reserved"], key["key_left"]) == (5, 4, 1)


async def test_no_limit_is_null(tmp_path: Path) -> None:
    """A tenant without limits sees that it has none."""
    async with open_app(tmp_path, keys=KEYS) as app:
        document = (await app.get("/v1/limits", api_key="free-key")).json
    jsonschema_rs.validate(LIMITS, document)
    assert document["tenant"] == "free"
    assert document["rates"] == {"tenant": None, "key": None}
    assert document["concurrency"] == {"limit": None, "in_progress": None}
    assert document["fu"]["limit"] is document["fu"]["left"] is None


async def test_it_needs_the_scope(tmp_path: Path) -> None:
    """A key that may not exchange has no rate of exchanges to look at."""
    async with open_app(tmp_path, keys=KEYS) as app:
        reply = await app.get("/v1/limits", api_key="other-key")
    assert (reply.status, reply.code) == (403, "scope_missing")
