"""The demo's outside world: a shop behind a public address, a trap behind a public name."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from pathlib import Path

import pytest

from signet.cli.demo import calls
from signet.cli.demo.outside import SHOP, TRAP, Outside, open_outside


def forward(outside: Outside, url: str) -> tuple[int, dict[str, object]]:
    """Exchange an invoice and have it forwarded."""
    body = calls.invoice(calls.INVOICE, "t") | {"forward_url": url}
    with closing(http.client.HTTPConnection(*outside.address, timeout=300)) as connection:
        headers = {
            "Content-Type": "application/json",
            "X-SIGNET-API-Key": outside.api_key,
            "X-SIGNET-Idempotency-Key": url,
        }
        connection.request("POST", "/v1/exchange", json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def test_the_rules_hold_in_front_of_it(tmp_path: Path) -> None:
    """The shop is charged over pinned TLS, the trap is refused by address, others by name."""
    with open_outside(tmp_path / "outside") as outside:
        status, answer = forward(outside, f"https://{SHOP}/charges")
        assert (status, answer["reason"]) == (504, "CONNECTION_LOST")
        assert outside.charges == 1
        status, answer = forward(outside, f"https://{TRAP}/latest")
        assert (status, answer["reason"]) == (403, "HEL_RESOLVED_LINKLOCAL")
        status, answer = forward(outside, "https://other.example.com/")
        assert (status, answer["reason"]) == (403, "HEL_HOST_NOT_ALLOWED")
        assert outside.connections == 1


def test_what_keeps_it_from_starting_is_told(tmp_path: Path) -> None:
    """A start that fails does not leave the demo waiting."""
    (tmp_path / "outside").mkdir()
    with pytest.raises(FileExistsError), open_outside(tmp_path / "outside"):
        pass
