"""What a tenant has used."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.inprocess import invoice, open_app

from signet.core.billing import period_of
from signet.core.ids import TenantId
from signet.core.tenant import Tenant
from signet.gateway.usage import read_usage
from signet.receipts.receipt import timestamp_us

pytestmark = pytest.mark.anyio


async def test_a_month_is_what_was_allowed_in_it(tmp_path: Path) -> None:
    """Units of this tenant only, with its limit; an empty month is all zeros."""
    tenant = Tenant(id=TenantId("acme"), fu_monthly_limit=9)
    async with open_app(tmp_path) as app:
        reply = await app.exchange(invoice())
        await app.exchange(invoice("{"))
        await app.exchange(invoice(), api_key="globex-key")
        now = period_of(timestamp_us(reply.json["receipt"]["ts"]), "UTC")
        used = await read_usage(app.gateway.database, tenant, now)
        empty = await read_usage(app.gateway.database, tenant, period_of(0, "UTC"))
    assert (used.vex_units, used.fu_tokens, used.fu_limit) == (1, 0, 9)
    assert (empty.vex_units, empty.fu_used, empty.fu_reserved) == (0, 0, 0)
