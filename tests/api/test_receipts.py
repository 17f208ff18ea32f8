"""Receipts, chains, exports and keys: each tenant its own, everything verifiable offline."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from tests.inprocess import App, envelope, invoice

from signet.receipts.canonical import canonicalize, content_id
from signet.receipts.errors import LevelNotReached, VerificationError
from signet.receipts.keys import KeySet
from signet.receipts.report import Level
from signet.receipts.verify import verify, verify_pages
from signet.storage import receipts as stored

pytestmark = pytest.mark.anyio

NOWHERE = "sha256:" + "0" * 64


async def _chain_of(app: App, count: int, trace_id: str = "t") -> list[dict[str, Any]]:
    replies = [await app.exchange(invoice(trace_id=trace_id)) for _ in range(count)]
    return [reply.json["receipt"] for reply in replies]


class TestExchange:
    """`GET /v1/exchanges/{receipt_hash}`."""

    async def test_it_tells_receipt_signature_and_payload(self, app: App) -> None:
        """What was answered can be asked for again by the receipt's hash."""
        first = (await app.exchange(invoice())).json
        reply = await app.get(f"/v1/exchanges/{first['receipt']['receipt_hash']}")
        assert reply.status == 200
        assert reply.json["receipt"] == first["receipt"]
        assert reply.json["receipt_jws"] == first["receipt_jws"]
        assert reply.json["normalized"] == first["normalized"]
        app.trusted(reply)

    async def test_a_refusal_has_a_receipt_and_no_payload(self, app: App) -> None:
        """A refused exchange is there, with null for what was never made."""
        receipt = (await app.exchange(envelope({}))).json["receipt"]
        reply = await app.get(f"/v1/exchanges/{receipt['receipt_hash']}")
        assert reply.status == 200
        assert reply.json["receipt"] == receipt
        assert reply.json["normalized"] is None

    async def test_another_tenant_s_is_not_found(self, app: App) -> None:
        """Another tenant's receipt and one that never was get the same bytes."""
        receipt_hash = (await app.exchange(invoice())).json["receipt"]["receipt_hash"]
        foreign = await app.get(f"/v1/exchanges/{receipt_hash}", api_key="globex-key")
        missing = await app.get(f"/v1/exchanges/{NOWHERE}", api_key="globex-key")
        assert (foreign.status, foreign.code) == (404, "not_found")
        assert foreign.body == missing.body
        assert foreign.own_headers == missing.own_headers

    @pytest.mark.parametrize(
        "text", ["x", "sha256:", "sha256:" + "G" * 64, "sha256:" + "A" * 64, NOWHERE + "%0A", "%00"]
    )
    async def test_a_malformed_hash_is_refused(self, shared_app: App, text: str) -> None:
        """What is no receipt hash is 400, not a search."""
        reply = await shared_app.get(f"/v1/exchanges/{text}")
        assert (reply.status, reply.code) == (400, "parameter_invalid")

    async def test_an_erased_payload_is_null(self, app: App) -> None:
        """After erasure the receipt is still told, without the payload."""
        receipt = (await app.exchange(invoice())).json["receipt"]
        await app.gateway.database.transact(stored.erase_payload, "acme", receipt["cid"])
        reply = await app.get(f"/v1/exchanges/{receipt['receipt_hash']}")
        assert reply.json["receipt"] == receipt
        assert reply.json["normalized"] is None


class TestChain:
    """`GET /v1/receipts/chain/{trace_id}`."""

    async def test_it_lists_the_receipts_in_order(self, app: App) -> None:
        """The chain is what was answered, hop by hop."""
        receipts = await _chain_of(app, 3)
        reply = await app.get("/v1/receipts/chain/t")
        assert reply.json == {"trace_id": "t", "length": 3, "chain": receipts}

    @pytest.mark.parametrize(
        ("query", "hops"),
        [
            ("from_hop=2", [2, 3, 4, 5]),
            ("limit=2", [1, 2]),
            ("from_hop=4&limit=9", [4, 5]),
            ("from_hop=6", []),
            ("from_hop=9007199254740991&limit=1", []),
        ],
    )
    async def test_a_part_can_be_asked_for(self, app: App, query: str, hops: list[int]) -> None:
        """`from_hop` and `limit` cut a part out; `length` stays that of the whole."""
        await _chain_of(app, 5)
        reply = await app.get(f"/v1/receipts/chain/t?{query}")
        assert [receipt["hop"] for receipt in reply.json["chain"]] == hops
        assert reply.json["length"] == 5

    @pytest.mark.parametrize("route", ["chain", "export"])
    @pytest.mark.parametrize(
        "query",
        [
            *("from_hop=0", "from_hop=-1", "from_hop=x", "from_hop=1.5", "from_hop="),
            *("limit=0", "limit=1001", "limit=1e3", "limit=%C2%B2", "from_hop=9007199254740992"),
            *("limit=" + "9" * 5000, "from_hop=%00", "from_hop=٣"),
        ],
    )
    async def test_malformed_numbers_are_refused(
        self, shared_app: App, route: str, query: str
    ) -> None:
        """Anything but a plain number in its range is 400."""
        await _chain_of(shared_app, 1)
        reply = await shared_app.get(f"/v1/receipts/{route}/t?{query}")
        assert (reply.status, reply.code) == (400, "parameter_invalid")

    @pytest.mark.parametrize("route", ["chain", "export"])
    @pytest.mark.parametrize(
        "trace_id", ["%20", "a%0D%0Ab", "a%00", "%FF", "a" * 129, "%C3%A9", "a b", "%2F.."]
    )
    async def test_malformed_trace_ids_are_refused(
        self, shared_app: App, route: str, trace_id: str
    ) -> None:
        """What is no trace id is 400 or 404, and never reaches the database or a header."""
        reply = await shared_app.get(f"/v1/receipts/{route}/{trace_id}")
        assert reply.status in {400, 404}
        assert reply.code in {"parameter_invalid", "not_found"}

    @pytest.mark.parametrize("route", ["chain", "export"])
    async def test_another_tenant_s_is_not_found(self, app: App, route: str) -> None:
        """A foreign trace answers exactly as one that does not exist."""
        await _chain_of(app, 1)
        foreign = await app.get(f"/v1/receipts/{route}/t", api_key="globex-key")
        missing = await app.get(f"/v1/receipts/{route}/u", api_key="globex-key")
        assert (foreign.status, foreign.code) == (404, "not_found")
        assert (foreign.body, foreign.own_headers) == (missing.body, missing.own_headers)

    @pytest.mark.parametrize("path", ["chain/t", "export/t", f"../exchanges/{NOWHERE}"])
    async def test_reading_needs_its_own_scope(self, app: App, path: str) -> None:
        """A key that may exchange only reads nothing, and an auditor's key reads."""
        await _chain_of(app, 1)
        path = f"/v1/receipts/{path}".replace("receipts/../", "")
        reply = await app.get(path, api_key="agent-key")
        assert (reply.status, reply.code) == (403, "scope_missing")
        assert (await app.get(path, api_key="auditor-key")).status in {200, 404}
        assert (await app.get(path, api_key=None)).status == 401


class TestExport:
    """`GET /v1/receipts/export/{trace_id}`."""

    async def test_the_bundle_is_what_the_headers_say(self, app: App) -> None:
        """CID, signature and digest in the headers are those of the body."""
        await _chain_of(app, 3)
        reply = await app.get("/v1/receipts/export/t")
        assert reply.status == 200
        bundle = reply.json
        for prefix in ("X-SIGNET", "X-ODIN"):
            assert reply.header(f"{prefix}-Response-CID") == bundle["bundle_cid"]
            assert reply.header(f"{prefix}-Response-Signature") == bundle["signature"]
            assert reply.header(f"{prefix}-Response-KID") == bundle["kid"]
        digest = base64.b64encode(hashlib.sha256(reply.body).digest()).decode()
        assert reply.header("Content-Digest") == f"sha-256=:{digest}:"
        signed = {name: bundle[name] for name in ("trace_id", "chain", "exported_at")}
        assert bundle["bundle_cid"] == content_id(canonicalize(signed))
        signature = base64.b64decode(bundle["signature"])
        assert app.gateway.key.public.verify(signature, bundle["bundle_cid"].encode())

    async def test_it_verifies_with_a_pinned_key_only(self, app: App) -> None:
        """The bundle is proof for who pinned the key, and integrity for everybody else."""
        await _chain_of(app, 3)
        body = (await app.get("/v1/receipts/export/t")).body
        report = verify(body, trust=[app.gateway.key.kid], jwks=app.key_set)
        assert (report.level, report.hops, report.tenant) == (Level.SIGNED, 3, "acme")
        with pytest.raises(LevelNotReached):
            verify(body)

    async def test_a_changed_byte_is_noticed(self, app: App) -> None:
        """A receipt's reason changed inside an export fails the proof."""
        await _chain_of(app, 2)
        body = (await app.get("/v1/receipts/export/t")).body
        with pytest.raises(VerificationError):
            verify(body.replace(b'"reason":"ok"', b'"reason":"ko"', 1), jwks=app.key_set)

    async def test_the_bundle_s_keys_are_those_published(self, app: App) -> None:
        """The JWKS inside is the public one, less the keys that sign no receipts."""
        await _chain_of(app, 1)
        bundle = (await app.get("/v1/receipts/export/t")).json
        public = (await app.get("/.well-known/jwks.json", api_key=None)).json
        assert bundle["jwks"]["keys"] == [key for key in public["keys"] if key["use"] == "sig"]

    async def test_pages_prove_together(self, app: App) -> None:
        """Pages of an export verify as one chain, and none of them alone."""
        await _chain_of(app, 5)
        pages = [
            (await app.get(f"/v1/receipts/export/t?from_hop={hop}&limit=2")).body
            for hop in (1, 3, 5)
        ]
        report = verify_pages(pages, trust=[app.gateway.key.kid], jwks=app.key_set)
        assert report.hops == 5
        with pytest.raises(VerificationError):
            verify(pages[0], jwks=app.key_set)
        assert json.loads(pages[0])["kind"] == "page"
        assert "bundle_cid" not in json.loads(pages[0])

    async def test_a_page_behind_the_end_is_not_found(self, app: App) -> None:
        """There is nothing to sign behind the last hop."""
        await _chain_of(app, 2)
        reply = await app.get("/v1/receipts/export/t?from_hop=3")
        assert (reply.status, reply.code) == (404, "not_found")

    async def test_a_long_chain_streams_whole(self, app: App) -> None:
        """More receipts than one page of storage come out in order and verify."""
        for _ in range(6):
            await _chain_of(app, 100)
        chain = await app.verified("t")
        assert [receipt["hop"] for receipt in chain] == list(range(1, 601))


class TestJwks:
    """`GET /.well-known/jwks.json`."""

    async def test_anybody_may_read_the_keys(self, app: App) -> None:
        """The key that signs is published, as a JWK set that may be cached."""
        reply = await app.get("/.well-known/jwks.json", api_key=None)
        assert reply.status == 200
        assert reply.header("cache-control") == "public, max-age=300"
        keys = KeySet.from_jwks(reply.json)
        found = keys.find(app.gateway.key.kid)
        assert found is not None
        assert found.raw == app.gateway.key.public.raw
        assert all("d" not in key for key in reply.json["keys"])

    async def test_the_webhook_key_proves_nothing_about_receipts(self, app: App) -> None:
        """The key that signs forwards is published for another use and not read as a trust root."""
        published = (await app.get("/.well-known/jwks.json", api_key=None)).json
        others = [key["kid"] for key in published["keys"] if key["use"] == "webhook"]
        assert len(others) == 1
        assert KeySet.from_jwks(published).find(others[0]) is None
