"""The published package signet-verify 1.0.0, which we did not write, accepts what we make."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version

import pytest
import signet_verify
from tests.unit.receipts.samples import KEY, chain, export, loaded, members

from signet.receipts.keys import KeySet, PublicKey


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        public = PublicKey(raw=KEY.public.raw, alias="main")
        body = json.dumps(KeySet.of([public]).jwks()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Tests are quiet."""


@pytest.fixture
def jwks_url() -> Iterator[str]:
    """A key set on the loopback interface."""
    with HTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/.well-known/jwks.json"
        finally:
            server.shutdown()
            thread.join(10)


def test_it_is_the_published_one() -> None:
    """Not a copy of ours."""
    assert version("signet-verify") == "1.0.0"


def test_receipts() -> None:
    """Each receipt, with the one before it."""
    receipts = [loaded(receipt.canonical) for receipt in chain(3)]
    for index, receipt in enumerate(receipts):
        before = receipts[index - 1] if index else None
        assert signet_verify.verify_receipt(receipt, before) == (True, "Valid receipt")


def test_chains() -> None:
    """And all of them, also with text beyond ASCII in them."""
    receipts = [loaded(r.canonical) for r in chain(3, policy={"reason": "é€😀\u2028\x7f"})]
    assert signet_verify.verify_chain(receipts) == (True, "Valid chain")
    receipts[1]["vex_units"] = 7
    assert not signet_verify.verify_chain(receipts)[0]
    assert members()["vex_units"] != 7


def test_bundles(jwks_url: str) -> None:
    """A bundle with its signature, by the key set at a URL."""
    bundle = loaded(export(chain(3)))
    accepted = (True, "Valid export bundle")
    assert signet_verify.verify_export_bundle(bundle, jwks_url) == accepted
    assert signet_verify.verify_export_bundle(bundle | {"kid": "main"}, jwks_url) == accepted
    wrong = bundle | {"signature": loaded(export(chain(2)))["signature"]}
    assert not signet_verify.verify_export_bundle(wrong, jwks_url)[0]
