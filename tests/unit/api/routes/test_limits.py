"""`GET /v1/limits`: a caller's own limits, and what is left of them."""

from __future__ import annotations

from pathlib import Path

import jsonschema_rs
import pytest
from tests.inprocess import open_app

from signet.api.schemas import LIMITS

pytestmark = pytest.mark.anyio

KEYS = {
    "free-key": {"tenant": "free"},
    "full-key": {
        "tenant": "full",
        "rate_per_minute": 60,
        "rate_burst": 5,
        "concurrency": 4,
        "fu_monthly_limit": 1000,
        "key_rate_per_minute": 6,
        "key_fu_monthly_limit": 10,
    },
    "other-key": {
        "tenant": "full",
        "rate_per_minute": 60,
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
    assert (tenant["interval_us"], tenant["burst"], tenant["left"]) == (1_000_000, 5, 4)
    assert 0 < tenant["next_us"] <= 1_000_000
    assert (key["interval_us"], key["burst"], key["left"]) == (10_000_000, 1, 0)
    assert document["concurrency"] == {"limit": 4, "in_progress": 1}
    fu = document["fu"]
    assert (fu["limit"], fu["left"], fu["key_limit"]) == (1000, 1000, 10)


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
