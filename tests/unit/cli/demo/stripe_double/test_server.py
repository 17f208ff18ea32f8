"""The double on the wire: what each fault looks like to the one that called, and what it did."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import urlencode

import pytest

from signet.cli.demo.stripe_double.ledger import Ledger
from signet.cli.demo.stripe_double.server import Fault, StripeDouble

pytestmark = pytest.mark.anyio

NOW_S = 1_795_000_000


def account() -> Ledger:
    """An account with one meter that adds up, and a customer of it."""
    ledger = Ledger(lambda: NOW_S)
    meter = ledger.add_meter("units")
    ledger.add_item("t", price=ledger.add_price("t", cents="1", meter=meter), customer="cus_1")
    return ledger


async def send(double: StripeDouble, identifier: str, key: str = "k") -> bytes:
    """Send one event on a connection of its own; everything that came back."""
    body = urlencode(
        {
            "event_name": "units",
            "identifier": identifier,
            "payload[stripe_customer_id]": "cus_1",
            "payload[value]": "5",
        }
    ).encode()
    port = int(double.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(
            b"POST /v1/billing/meter_events HTTP/1.1\r\nhost: double\r\n"
            b"authorization: Bearer sk_test_double\r\n"
            + f"idempotency-key: {key}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        writer.write_eof()
        async with asyncio.timeout(240):
            return await reader.read()
    finally:
        writer.close()


async def test_an_answer_and_what_it_did() -> None:
    """Without a fault an event is answered in Stripe's words, and counts."""
    async with StripeDouble(account()).serving() as double:
        answer = await send(double, "a")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["identifier"] == "a"
        assert double.ledger.units("cus_1", "mtr_units") == 5


@pytest.mark.parametrize(
    ("fault", "begins", "units"),
    [
        ("lost", b"", 5),
        ("500", b"HTTP/1.1 500 ", 0),
        ("500_taken", b"HTTP/1.1 500 ", 5),
        ("503", b"HTTP/1.1 503 ", 0),
        ("429", b"HTTP/1.1 429 ", 0),
        ("409", b"HTTP/1.1 409 ", 0),
        ("401", b"HTTP/1.1 401 ", 0),
        ("403", b"HTTP/1.1 403 ", 0),
        ("page", b"HTTP/1.1 200 ", 0),
        ("redirect", b"HTTP/1.1 302 ", 0),
    ],
)
async def test_faults(fault: Fault, begins: bytes, units: int) -> None:
    """Each fault says what it says, and has, or has not, done what was asked."""
    async with StripeDouble(account()).serving() as double:
        double.plan.append(fault)
        answer = await send(double, "a")
        assert answer.startswith(begins)
        assert bool(answer) == bool(begins)
        assert double.ledger.units("cus_1", "mtr_units") == units


async def test_reset() -> None:
    """A reset breaks the connection before anything was done."""
    async with StripeDouble(account()).serving() as double:
        double.plan.append("reset")
        with pytest.raises(ConnectionResetError):
            await send(double, "a")
        assert double.ledger.units("cus_1", "mtr_units") == 0


async def test_a_failure_is_kept_for_its_key() -> None:
    """A 500 comes again for the same idempotency key, and another key gets through."""
    async with StripeDouble(account()).serving() as double:
        double.plan.append("500")
        assert (await send(double, "a")).startswith(b"HTTP/1.1 500 ")
        assert (await send(double, "a")).startswith(b"HTTP/1.1 500 ")
        assert (await send(double, "a", key="other")).startswith(b"HTTP/1.1 200 ")
        assert double.ledger.units("cus_1", "mtr_units") == 5


async def test_nothing_runs_on() -> None:
    """At the end of the block the port is closed, also where a caller still waits."""
    async with StripeDouble(account()).serving() as double:
        double.plan.append("stuck")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await send(double, "a")
    with pytest.raises(ConnectionRefusedError):
        await send(double, "b")
