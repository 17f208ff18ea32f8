"""The demo's Stripe account: there while it is needed, gone afterwards."""

from __future__ import annotations

import http.client
import threading
from contextlib import closing
from urllib.parse import urlencode

import pytest

from signet.cli.demo.account import ITEMS, Account, open_account


def send(account: Account, name: str, units: int) -> int:
    """Send one event for the account's customer; the status."""
    port = int(account.url.rpartition(":")[2])
    event = {
        "event_name": name,
        "identifier": f"{name}-{units}",
        "payload[stripe_customer_id]": "cus_bakery",
        "payload[value]": str(units),
    }
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=300)) as connection:
        headers = {"Authorization": f"Bearer {account.key}"}
        connection.request("POST", "/v1/billing/meter_events", urlencode(event), headers)
        return connection.getresponse().status


def test_it_holds_what_it_was_sent() -> None:
    """Each item has a meter of its own, which keeps the newest value of the hour."""
    with open_account() as account:
        assert send(account, "bakery_tier1", 4) == 200
        assert send(account, "bakery_tier1", 5) == 200
        assert [account.held(item) for item in ITEMS] == [5, 0]


def test_nothing_is_left() -> None:
    """After the block neither port nor thread is there, also when the block fails."""
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), open_account() as account:
        raise ZeroDivisionError
    assert threading.active_count() == before
    with pytest.raises(ConnectionRefusedError):
        send(account, "bakery_tier1", 1)
