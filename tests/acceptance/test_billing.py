"""From exchanges over HTTP to what Stripe holds, by real processes that are killed on the way."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.drills.billing import double, state_of
from tests.fleet import Heard, gateway, kill_all, load, under_load
from tests.inprocess import SEED
from tests.live import Live, run_signet, until
from tests.month import steady_zone

from signet.core.ids import TenantId
from signet.core.pricing import allocate, load_reserved
from signet.receipts.keys import SigningKey
from signet.receipts.verify import verify_statement

pytestmark = pytest.mark.anyio

LIVES_S = (1.0, 2.5)
"""How long each gateway lives before it is killed; the last one ends the work."""
FAULTS = "lost,500_taken,reset,429,cut,500,409,503"
"""What becomes of the first calls of Stripe: each way to fail once, the harmful ones early."""


def reserved_capacity(kind: str) -> dict[str, Any]:
    """A plan that a few calls leave behind: ten reserved, twenty in the first tier."""
    return {
        "acme": {
            "timezone": steady_zone(),
            "vex_reserved": 10,
            "vex_overage_tiers": [
                {"threshold": 20, "price_per_unit": 0.008, "stripe_item": f"si_{kind}_t1"},
                {"threshold": 30, "price_per_unit": 0.006, "stripe_item": f"si_{kind}_t2"},
            ],
        }
    }


async def used_until_killed(live: Live, heard: Heard, seconds: float) -> None:
    """Call the gateway from all sides, and kill it while it is at work."""
    async with under_load([live.port], heard, callers=4):
        await asyncio.sleep(seconds)
        kill_all(live.process)


@pytest.mark.parametrize("kind", ["window", "sum", "legacy"])
async def test_stripe_holds_what_the_receipts_say(tmp_path: Path, kind: str) -> None:
    """Whoever is killed when, and however Stripe answers: tier by tier, to the unit."""
    reserved = tmp_path / "reserved.json"
    document = json.dumps(reserved_capacity(kind))
    reserved.write_text(document)
    plan = load_reserved(document)[TenantId("acme")].vex
    heard = Heard()
    with double("--now", str(int(time.time())), "--plan", FAULTS) as stripe:
        settings = {
            "SP_RESERVED_CONFIG": str(reserved),
            "SP_STRIPE_API_KEY": "sk_test_double",
            "SP_STRIPE_BASE_URL": stripe,
            "SP_STRIPE_DELAY_SECONDS": "0",
        }
        for seconds in LIVES_S:
            with gateway(tmp_path, **settings) as live:
                await used_until_killed(live, heard, seconds)
        with gateway(tmp_path, **settings) as live:
            await load([live.port], heard, callers=2, each=20)
            usage = live.get("/v1/usage").json
            units = usage["vex"]["units"]
            # A call that broke off may have happened, and then it has a receipt.
            assert len(heard.acknowledged) <= units <= len(heard.acknowledged) + len(heard.open)
            assert not heard.refused
            expected = dict(zip(("t1", "t2"), allocate(plan, units)[1:], strict=True))
            assert min(expected.values()) > 0
            prefix = "si_legacy_" if kind == "legacy" else f"mtr_{kind}_"

            def held() -> dict[str, int]:
                return {tier: state_of(stripe)["held"][prefix + tier] for tier in expected}

            until(lambda: held() == expected)
            command = {
                **settings,
                "SP_DATA_DIR": str(tmp_path / "data"),
                "SP_PRIVATE_KEY_B64": SEED,
            }
            period = usage["period"]["name"]
            closed(tmp_path, command, period)
            statement = live.get(f"/v1/billing/statements/{period}")
            listed = live.get(f"/v1/billing/statements/{period}/receipts")
            assert held() == expected
        assert state_of(stripe)["collisions"] == 0
    entries = [json.loads(line) for line in listed.body.splitlines()]
    verify_statement(
        statement.body,
        [(e["meter"], e["tier"], e["receipt_hash"], e["units"]) for e in entries],
        trust=[SigningKey.from_b64(SEED).kid],
    )
    lines = {f"t{line['tier']}": line["units"] for line in statement.json["lines"]}
    assert {tier: lines[tier] for tier in expected} == expected
    receipts = [entry["receipt_hash"] for entry in entries]
    assert len(receipts) == len(set(receipts)) == units
    assert set(heard.acknowledged.values()) <= set(receipts)


def closed(cwd: Path, settings: Mapping[str, str], period: str) -> None:
    """Compare all counts, and close the month as an operator does, beside the running gateway."""
    compared = run_signet("billing", "reconcile", cwd=cwd, settings=settings)
    assert compared.returncode == 0, compared.stdout + compared.stderr
    done = run_signet("billing", "close", "--period", period, "--early", cwd=cwd, settings=settings)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = run_signet("usage", "--tenant", "acme", cwd=cwd, settings=settings)
    assert shown.returncode == 0
    assert "over the reserve" in shown.stdout
