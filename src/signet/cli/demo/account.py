"""The Stripe account of the demo: a loopback double, served by a thread of this process."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Generator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from signet.cli.demo.stripe_double.ledger import Ledger
from signet.cli.demo.stripe_double.server import StripeDouble

ITEMS: Final = ("si_bakery_tier1", "si_bakery_tier2")
"""The subscription items of the account's one customer, with the prices of two tiers."""

_CUSTOMER: Final = "cus_bakery"
_CENTS: Final = ("50", "30")
_WAIT_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An account that answers at `url` to the secret key `key`."""

    url: str
    key: str
    ledger: Ledger

    def held(self, item: str) -> int:
        """How many units Stripe would invoice for an item."""
        meter = self.ledger.objects[self.ledger.objects[item]["price"]]["recurring"]["meter"]
        return self.ledger.units(_CUSTOMER, meter)


@contextmanager
def open_account() -> Generator[Account]:
    """Serve the account until the block ends; nothing of it outlives the process."""
    ledger = Ledger(lambda: int(time.time()))
    for item, cents in zip(ITEMS, _CENTS, strict=True):
        name = item.removeprefix("si_")
        meter = ledger.add_meter(name, window="hour")
        price = ledger.add_price(name, cents=cents, meter=meter)
        ledger.add_item(name, price=price, customer=_CUSTOMER)
    double = StripeDouble(ledger)
    opened: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    thread = threading.Thread(target=_serve, args=(double, opened), daemon=True)
    thread.start()
    loop, over = opened.result(_WAIT_S)
    try:
        yield Account(url=double.url, key=ledger.key, ledger=ledger)
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(_WAIT_S)


def _serve(
    double: StripeDouble, opened: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]
) -> None:
    async def serve() -> None:
        over = asyncio.Event()
        async with double.serving():
            opened.set_result((asyncio.get_running_loop(), over))
            await over.wait()

    try:
        asyncio.run(serve())
    except OSError as error:
        if opened.done():
            raise
        opened.set_exception(error)
