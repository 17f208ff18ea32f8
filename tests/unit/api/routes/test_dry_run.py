"""`POST /v1/dry-run`: what a call becomes, and that nothing else happens."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import jsonschema_rs
import pytest
from tests.inprocess import App, Reply, envelope, invoice, open_app

from signet.api.schemas import COMPONENTS, DRY_RUN

pytestmark = pytest.mark.anyio


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    """A gateway with one host on its list."""
    async with open_app(tmp_path, SP_HEL_ALLOWLIST="api.example.com,10.0.0.1") as opened:
        yield opened


async def dry_run(app: App, body: object, *, api_key: str = "acme-key") -> Reply:
    """Ask, hold the answer against its schema, and see that nothing was kept."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = await app.call(
        "POST",
        "/v1/dry-run",
        headers=[(b"x-signet-api-key", api_key.encode()), (b"content-type", b"application/json")],
        body=raw,
    )
    if reply.status == 200:
        jsonschema_rs.validate({**DRY_RUN, "components": {"schemas": COMPONENTS}}, reply.json)
    assert await app.stored() == 0
    return reply


async def test_it_says_what_the_exchange_says(app: App) -> None:
    """Document, CIDs and policy are those that the exchange then gives."""
    shown = (await dry_run(app, invoice())).json
    assert shown["ok"]
    assert shown["problem"] is None
    real = (await app.exchange(invoice())).json
    assert shown["normalized"] == real["normalized"]
    for name in ("cid", "schema_in", "schema_out", "map", "policy"):
        assert shown[name] == real["receipt"][name]


async def test_edits_are_shown(app: App) -> None:
    """What was mended, and what it was read as; numbers to the last digit."""
    broken = "{'invoice_id': 'INV-1', 'amount': 1.10, 'currency': 'EUR', 'customer_name': 'A',}"
    reply = await dry_run(app, invoice(broken))
    shown = reply.json
    assert shown["ok"]
    assert shown["repair"]["grade"] == "lossless"
    assert {edit["kind"] for edit in shown["repair"]["texts"][0]["edits"]} >= {"quotes"}
    assert b'"amount":1.1,' in reply.body
    assert shown["normalized"]["Document"]["Invoice"]["TotalMinor"] == 110


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        (envelope({}), "schema_invalid", "/payload"),
        (invoice("no JSON at all"), "arguments_invalid", None),
        (invoice({"invoice_id": "1"}), "arguments_invalid", None),
        (envelope({}, payload_type="none.v1"), "unknown_type", None),
        (envelope([], target_type="openai.tool_call.v1"), "unknown_mapping", None),
        (invoice(delivery="queued"), "delivery_unavailable", None),
    ],
)
async def test_problems_are_shown_and_not_answered(
    app: App, body: object, code: str, pointer: str | None
) -> None:
    """The answer is 200 with the problem inside, faults and pointers as the exchange gives them."""
    shown = await dry_run(app, body)
    assert shown.status == 200
    problem = shown.json["problem"]
    assert (shown.json["ok"], problem["code"]) == (False, code)
    real = await app.exchange(body)
    assert real.code == code
    assert problem.get("faults") == real.json.get("faults")
    assert pointer is None or problem["faults"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    ("url", "reason", "addresses"),
    [
        ("https://api.example.com/x", None, "not_resolved"),
        ("https://other.example.com/x", "HEL_HOST_NOT_ALLOWED", "not_asked"),
        ("ftp://api.example.com/", "HEL_SCHEME_NOT_HTTPS", "not_asked"),
        ("https://10.0.0.1/", "HEL_RESOLVED_PRIVATE", "judged"),
    ],
)
async def test_the_policy_is_asked_and_no_network(
    app: App, url: str, reason: str | None, addresses: str
) -> None:
    """Lists and literal addresses decide; names are not looked up, which the answer says."""
    shown = (await dry_run(app, invoice(forward_url=url))).json
    assert shown["ok"] is (reason is None)
    assert shown["policy"]["reason"] == (reason or "ok")
    assert shown["addresses"] == addresses


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "invalid_json"),
        ({"payload_type": 1}, "envelope_invalid"),
        (b"[" * 900, "invalid_json"),
    ],
)
async def test_what_is_no_envelope_is_answered_as_ever(app: App, body: object, code: str) -> None:
    """There is nothing to show then."""
    reply = await dry_run(app, body)
    assert (reply.status, reply.code) == (400, code)


async def test_a_sealed_tenant_gets_no_cid(app: App) -> None:
    """Its CIDs have a salt of each exchange's own."""
    shown = (await dry_run(app, invoice(), api_key="sealed-key")).json
    assert shown["ok"]
    assert shown["cid"] is None
