"""A gateway whose database holds something, on either engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tests.inprocess import App, invoice, open_app


@asynccontextmanager
async def filled(directory: Path, storage: Mapping[str, str]) -> AsyncIterator[App]:
    """A gateway with two chains of three receipts, one of them refused, of two tenants."""
    async with open_app(directory, **storage) as app:
        for tenant in ("acme-key", "globex-key"):
            for _ in range(2):
                assert (await app.exchange(invoice(trace_id="t"), api_key=tenant)).status == 200
            refused = await app.exchange(invoice({}, trace_id="t"), api_key=tenant)
            assert refused.status == 422
        yield app
