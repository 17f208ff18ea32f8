"""`POST /v1/exchange`, from the bytes that arrive to the receipts that can be verified."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from pathlib import Path

import pytest
from tests.inprocess import App, Reply, envelope, invoice, open_app

from signet.receipts.canonical import canonicalize, content_id
from signet.storage import idempotency, receipts
from signet.storage.tx import Tx

pytestmark = pytest.mark.anyio

INVOICE = {
    "Document": {
        "Invoice": {
            "Id": "INV-1",
            "TotalMinor": 12345,
            "Currency": "EUR",
            "Party": {"Name": "ACME GmbH"},
            "Note": "Consulting",
        }
    }
}


class TestAllowed:
    """A call that goes through."""

    async def test_the_mission_s_invoice_becomes_exact(self, app: App) -> None:
        """The invoice comes back in minor units, with its policy, receipt and signature."""
        reply = await app.exchange(invoice(trace_id="t-1"))
        assert reply.status == 200
        assert reply.header("content-type") == "application/json"
        document = reply.json
        assert list(document) == ["trace_id", "normalized", "policy", "receipt", "receipt_jws"]
        assert document["trace_id"] == "t-1"
        assert document["normalized"] == INVOICE
        assert document["policy"]["engine"] == "HEL"
        assert document["policy"]["allowed"] is True
        assert document["policy"]["reason"] == "ok"

    async def test_the_receipt_says_everything(self, app: App) -> None:
        """Every member of the receipt is what the exchange was."""
        body = json.dumps(invoice(trace_id="t-1")).encode()
        reply = await app.exchange(body, key="k-1")
        receipt = reply.json["receipt"]
        key_hash = hashlib.sha256(canonicalize(["https://signet.test", "acme", "k-1"])).hexdigest()
        assert receipt["v"] == 1
        assert receipt["iss"] == "https://signet.test"
        assert receipt["trace_id"] == "t-1"
        assert receipt["hop"] == 1
        assert receipt["prev_receipt_hash"] is None
        assert receipt["tenant"] == "acme"
        assert receipt["kind"] == "exchange"
        assert receipt["outcome"] == "allowed"
        assert receipt["reason"] == "ok"
        assert receipt["cid"] == content_id(canonicalize(INVOICE))
        assert receipt["request_cid"] == content_id(body)
        assert receipt["canon_profile"] == "nfc+jcs"
        assert receipt["algo"] == "sha256"
        assert receipt["payload_type"] == "openai.tooluse.invoice.v1"
        assert receipt["target_type"] == "invoice.iso20022.v1"
        assert receipt["policy"] == reply.json["policy"]
        assert receipt["vex_units"] == 1
        assert receipt["fu_tokens"] == 0
        assert receipt["idempotency_key_hash"] == key_hash
        assert re.fullmatch(r"[0-9a-f]{32}", receipt["nonce"])
        assert {"schema_in", "schema_out", "map", "unicode"} <= receipt.keys()
        assert "canon" not in receipt
        assert "nfc_changed" not in receipt
        assert "forwarded" not in receipt

    async def test_the_receipt_verifies_offline(self, app: App) -> None:
        """The receipt and its signature in the answer are proof without asking the gateway."""
        reply = await app.exchange(invoice())
        report = app.trusted(reply)
        assert report.head == reply.json["receipt"]["receipt_hash"]
        header, payload, _ = reply.json["receipt_jws"].split(".")
        padded = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        assert padded == canonicalize(reply.json["receipt"])
        assert json.loads(base64.urlsafe_b64decode(header + "=="))["typ"] == "signet-receipt+jws"

    async def test_a_trace_is_made_where_none_is_given(self, app: App) -> None:
        """Without a trace id, or with null, the server makes a UUIDv7 and tells it in headers."""
        for body in (invoice(), invoice(trace_id=None)):
            reply = await app.exchange(body)
            trace_id = reply.json["trace_id"]
            assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab].{16}", trace_id)
            assert reply.header("X-SIGNET-Trace") == trace_id
            assert reply.header("X-ODIN-Trace") == trace_id
            assert reply.header("X-SIGNET-Idempotency-Hit") is None

    async def test_validate_only_gives_the_payload_back(self, app: App) -> None:
        """Equal types mean that the payload is held against its schema and returned as it is."""
        payload = {"sku": "A-1", "quantity": 3}
        body = envelope(payload, payload_type="test.order.v1", target_type="test.order.v1")
        reply = await app.exchange(body)
        assert reply.status == 200
        assert reply.json["normalized"] == payload
        receipt = reply.json["receipt"]
        assert receipt["cid"] == content_id(canonicalize(payload))
        assert receipt["schema_in"] == receipt["schema_out"]
        assert "map" not in receipt

    async def test_a_jsonata_mapping_runs(self, tmp_path: Path, registry_dir: Path) -> None:
        """A JSONata mapping of the registry is applied, and its CID is in the receipt."""
        body = envelope(
            {"sku": "A", "quantity": 21}, payload_type="test.order.v1", target_type="test.total.v1"
        )
        environ = {"SP_REGISTRY_DIR": str(registry_dir), "SP_MAPPING_SECONDS": "30"}
        async with open_app(tmp_path, **environ) as app:
            reply = await app.exchange(body)
        assert reply.status == 200
        assert reply.json["normalized"] == {"total": 42}
        assert reply.json["receipt"]["map"].startswith("sha256:")

    async def test_numbers_come_through_exactly(self, app: App) -> None:
        """A number is printed as ECMAScript prints the double it is equal to, and never rounded."""
        body = (
            b'{"payload_type":"test.anything.v1","target_type":"test.anything.v1",'
            b'"payload":{"a":1.10,"b":1E2,"c":-0,"d":9007199254740991,"e":1e-7}}'
        )
        reply = await app.exchange(body)
        assert reply.status == 200
        assert b'"normalized":{"a":1.1,"b":100,"c":0,"d":9007199254740991,"e":1e-7}' in reply.body

    async def test_text_is_brought_to_nfc_and_told(self, app: App) -> None:
        """Decomposed text is composed; the receipt names the places and the Unicode version."""
        payload = {"cafe\u0301": ["e\u0301", "plain"]}
        body = envelope(payload, payload_type="test.anything.v1", target_type="test.anything.v1")
        reply = await app.exchange(body)
        assert reply.json["normalized"] == {"caf\u00e9": ["\u00e9", "plain"]}
        assert reply.json["receipt"]["nfc_changed"] == ["/caf\u00e9", "/caf\u00e9/0"]

    async def test_the_plain_profile_keeps_every_code_point(self, app: App) -> None:
        """A tenant with the profile `jcs` gets back what it sent."""
        payload = {"e\u0301": "e\u0301"}
        body = envelope(payload, payload_type="test.anything.v1", target_type="test.anything.v1")
        reply = await app.exchange(body, api_key="plain-key")
        assert reply.json["normalized"] == payload
        assert reply.json["receipt"]["canon_profile"] == "jcs"
        assert "unicode" not in reply.json["receipt"]

    async def test_null_members_say_the_same_as_absent_ones(self, app: App) -> None:
        """`forward_url`, `trace_id` and `delivery` may be null."""
        body = invoice(trace_id=None, forward_url=None, delivery=None)
        assert (await app.exchange(body)).status == 200


CALLS = [
    pytest.param(
        "openai.tool_call.v1",
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "place_order", "arguments": '{"sku":"A-1"}'},
        },
        {"tool": "place_order", "arguments": {"sku": "A-1"}, "call_id": "call_1"},
        id="openai",
    ),
    pytest.param(
        "anthropic.tool_use.v1",
        {"type": "tool_use", "id": "toolu_1", "name": "place_order", "input": {"sku": "A-1"}},
        {"tool": "place_order", "arguments": {"sku": "A-1"}, "call_id": "toolu_1"},
        id="anthropic",
    ),
    pytest.param(
        "mcp.tool_call.v1",
        {
            "jsonrpc": "2.0",
            "id": 7,
            "method": "tools/call",
            "params": {"name": "place_order", "arguments": {"sku": "A-1"}},
        },
        {"tool": "place_order", "arguments": {"sku": "A-1"}, "call_id": "7"},
        id="mcp",
    ),
]


class TestToolCalls:
    """The forms in which clients emit tool calls."""

    @pytest.mark.parametrize(("kind", "call", "expected"), CALLS)
    async def test_every_form_becomes_the_generic_call(
        self, shared_app: App, kind: str, call: object, expected: object
    ) -> None:
        """Calls of three clients for one tool become one and the same document."""
        body = envelope(call, payload_type=kind, target_type="signet.tool_call.v1")
        reply = await shared_app.exchange(body)
        assert reply.status == 200, reply.body
        assert reply.json["normalized"] == expected

    @pytest.mark.parametrize(("kind", "call", "_expected"), CALLS)
    async def test_arguments_are_held_against_the_tool(
        self, shared_app: App, kind: str, call: object, _expected: object
    ) -> None:
        """Arguments that do not fit the registered tool are refused, with the place."""
        spoiled = json.loads(json.dumps(call).replace("sku", "sko"))
        body = envelope(spoiled, payload_type=kind, target_type="signet.tool_call.v1")
        reply = await shared_app.exchange(body)
        assert reply.status == 422
        assert reply.code == "arguments_invalid"
        assert reply.json["faults"][0]["pointer"].startswith("/payload/")

    async def test_an_unregistered_tool_is_refused(self, shared_app: App) -> None:
        """A call of a tool that nobody registered is refused by name."""
        call = {"type": "tool_use", "id": "x", "name": "rm_rf", "input": {}}
        body = envelope(
            call, payload_type="anthropic.tool_use.v1", target_type="signet.tool_call.v1"
        )
        reply = await shared_app.exchange(body)
        assert (reply.status, reply.code) == (422, "arguments_invalid")
        assert reply.json["faults"][0]["code"] == "unknown_tool"

    async def test_tools_of_a_list_are_registered(self, shared_app: App) -> None:
        """A file with a list of tools, as a server publishes it, registers each of them."""
        call = {"type": "tool_use", "id": "x", "name": "cancel_order", "input": {"order_id": "1"}}
        body = envelope(
            call, payload_type="anthropic.tool_use.v1", target_type="signet.tool_call.v1"
        )
        assert (await shared_app.exchange(body)).status == 200


REFUSALS = [
    pytest.param(
        invoice() | {"payload_type": "no.such.v1"}, "unknown_type", None, id="unknown payload type"
    ),
    pytest.param(
        invoice() | {"target_type": "no.such.v1"}, "unknown_type", None, id="unknown target type"
    ),
    pytest.param(
        invoice() | {"target_type": "test.order.v1"}, "unknown_mapping", None, id="no mapping"
    ),
    pytest.param(envelope({}), "schema_invalid", "/payload", id="schema"),
    pytest.param(envelope({"tool_calls": []}), "schema_invalid", "/payload/tool_calls", id="empty"),
    pytest.param(
        envelope([], payload_type="test.order.v1", target_type="test.order.v1"),
        "schema_invalid",
        "/payload",
        id="validate only",
    ),
    pytest.param(
        invoice("{'invoice_id': 1}"),
        "arguments_invalid",
        "/payload/tool_calls/0/function/arguments",
        id="arguments not JSON",
    ),
    pytest.param(
        invoice("[1]"),
        "arguments_invalid",
        "/payload/tool_calls/0/function/arguments",
        id="arguments not an object",
    ),
    pytest.param(
        invoice(""),
        "arguments_invalid",
        "/payload/tool_calls/0/function/arguments",
        id="arguments empty",
    ),
    pytest.param(
        invoice('{"a":1,"a":2}'),
        "arguments_invalid",
        "/payload/tool_calls/0/function/arguments/a",
        id="arguments with a name twice",
    ),
    pytest.param(
        invoice('{"invoice_id":"1","amount":"1e999990","currency":"EUR","customer_name":"A"}'),
        "arguments_invalid",
        "/payload/tool_calls/0/function/arguments/amount",
        id="amount with a monstrous exponent",
    ),
    pytest.param(
        invoice('{"invoice_id":"1","amount":1e400,"currency":"EUR","customer_name":"A"}'),
        "arguments_invalid",
        "/payload/tool_calls/0/function/arguments/amount",
        id="amount beyond doubles",
    ),
    pytest.param(
        invoice('{"invoice_id":"1","amount":"1.234","currency":"EUR","customer_name":"A"}'),
        "mapping_failed",
        None,
        id="finer than the minor unit",
    ),
    pytest.param(
        invoice('{"invoice_id":"1","amount":"1","currency":"ZZZ","customer_name":"A"}'),
        "mapping_failed",
        None,
        id="no such currency",
    ),
    pytest.param(
        envelope(
            {"sku": 7, "quantity": 0},
            payload_type="test.anything.v1",
            target_type="test.order.v1",
        ),
        "output_invalid",
        "/normalized/quantity",
        id="output schema",
    ),
    pytest.param(
        envelope({}, payload_type="test.anything.v1", target_type="test.total.v1"),
        "mapping_stopped",
        None,
        id="a mapping without end",
    ),
    pytest.param(
        envelope(
            {"\u00e9": 1, "e\u0301": 2},
            payload_type="test.anything.v1",
            target_type="test.anything.v1",
        ),
        "unicode_invalid",
        "/payload/\u00e9",
        id="names equal in NFC",
    ),
    pytest.param(invoice(delivery="queued"), "delivery_unavailable", None, id="queued"),
]


class TestRefusals:
    """Accepted calls that end in a refusal: 422 with a receipt, final for their key."""

    @pytest.mark.parametrize(("body", "code", "pointer"), REFUSALS)
    async def test_each_has_its_code_pointer_and_receipt(
        self, app: App, body: object, code: str, pointer: str | None
    ) -> None:
        """The problem names code and place, and carries a `failed` receipt of no unit."""
        reply = await app.exchange(body)
        assert (reply.status, reply.code) == (422, code)
        problem = reply.json
        assert problem["status"] == 422
        assert problem["type"] == f"urn:signet:problem:{code}"
        assert problem["retry"] == "new_key_safe"
        if pointer is not None:
            assert pointer in {fault["pointer"] for fault in problem["faults"]}
        app.trusted(reply)
        receipt = problem["receipt"]
        assert receipt["outcome"] == "failed"
        assert receipt["reason"] == code
        assert receipt["vex_units"] == 0
        assert reply.header("X-SIGNET-Trace") == receipt["trace_id"] == problem["trace_id"]
        assert await app.stored() == 1

    @pytest.mark.parametrize(("body", "code", "pointer"), REFUSALS)
    async def test_each_replays_byte_for_byte(
        self, app: App, body: object, code: str, pointer: str | None
    ) -> None:
        """A retry with the same key gets the same status, type and bytes, and the header."""
        first = await app.exchange(body, key="again")
        second = await app.exchange(body, key="again")
        _same_answer(first, second)
        assert await app.stored() == 1

    async def test_refusals_stand_in_the_chain(self, app: App) -> None:
        """Refused and allowed calls of one trace form one chain, which verifies."""
        await app.exchange(invoice(trace_id="t"))
        await app.exchange(envelope({}, trace_id="t"))
        await app.exchange(invoice(trace_id="t"))
        chain = await app.verified("t")
        assert [receipt["outcome"] for receipt in chain] == ["allowed", "failed", "allowed"]

    async def test_a_refusal_is_as_short_as_it_can_be(self, app: App) -> None:
        """However large the faults of a payload are, the problem stays small."""
        payload = {"tool_calls": [{"function": {"name": "x" * 5000, "arguments": "y" * 5000}}] * 50}
        reply = await app.exchange(envelope(payload))
        assert reply.code == "schema_invalid"
        assert len(reply.json["faults"]) <= 20
        assert len(reply.body) < 20_000


class TestNotAccepted:
    """Requests that are answered without a receipt, and leave their key free."""

    @pytest.mark.parametrize(
        ("headers", "code"),
        [
            ([], "idempotency_key_missing"),
            ([(b"x-signet-idempotency-key", b"")], "idempotency_key_malformed"),
            ([(b"x-signet-idempotency-key", b"a b")], "idempotency_key_malformed"),
            ([(b"x-signet-idempotency-key", b"x" * 256)], "idempotency_key_malformed"),
            ([(b"x-signet-idempotency-key", b"\xff\xfe")], "idempotency_key_malformed"),
            ([(b"x-signet-idempotency-key", "\u00e9".encode())], "idempotency_key_malformed"),
            ([(b"x-signet-idempotency-key", b"a\r\nb")], "idempotency_key_malformed"),
            (
                [(b"x-signet-idempotency-key", b"a"), (b"idempotency-key", b"b")],
                "idempotency_key_malformed",
            ),
            (
                [(b"idempotency-key", b"a"), (b"idempotency-key", b"b")],
                "idempotency_key_malformed",
            ),
        ],
    )
    async def test_an_idempotency_key_is_required(
        self, app: App, headers: list[tuple[bytes, bytes]], code: str
    ) -> None:
        """No key, a malformed one and two different ones are 400."""
        reply = await app.call(
            "POST",
            "/v1/exchange",
            headers=[
                (b"content-type", b"application/json"),
                (b"x-signet-api-key", b"acme-key"),
                *headers,
            ],
            body=json.dumps(invoice()).encode(),
        )
        assert (reply.status, reply.code) == (400, code)
        assert await app.stored() == 0

    @pytest.mark.parametrize(
        "name", [b"x-signet-idempotency-key", b"x-odin-idempotency-key", b"idempotency-key"]
    )
    async def test_each_header_name_carries_the_key(self, app: App, name: bytes) -> None:
        """The key may come under any of its three names, and names the same key under each."""
        await app.exchange(invoice(), key="k")
        reply = await app.call(
            "POST",
            "/v1/exchange",
            headers=[
                (b"content-type", b"application/json"),
                (b"x-signet-api-key", b"acme-key"),
                (name, b"k"),
            ],
            body=json.dumps(invoice()).encode(),
        )
        assert reply.header("X-SIGNET-Idempotency-Hit") == "1"

    async def test_one_value_under_several_names_is_one_key(self, app: App) -> None:
        """A client may repeat its key under an older name."""
        reply = await app.exchange(invoice(), key="k", headers=[(b"idempotency-key", b"k")])
        assert reply.status == 200

    async def test_the_longest_key_is_taken(self, app: App) -> None:
        """255 visible characters are a key."""
        assert (await app.exchange(invoice(), key="~" * 255)).status == 200

    @pytest.mark.parametrize(
        "headers",
        [
            [],
            [(b"x-signet-api-key", b"")],
            [(b"x-signet-api-key", b"wrong")],
            [(b"x-signet-api-key", b"\xff\x00\xfe")],
            [(b"x-signet-api-key", b"wrong"), (b"x-odin-api-key", b"acme-key")],
            [(b"authorization", b"Basic acme-key")],
            [(b"authorization", b"Bearer")],
            [(b"authorization", b"Bearer wrong")],
            [(b"authorization", b"acme-key")],
        ],
    )
    async def test_no_key_and_a_wrong_key_get_one_answer(
        self, shared_app: App, headers: list[tuple[bytes, bytes]]
    ) -> None:
        """Nothing tells whether a key is missing, malformed or unknown."""
        replies = [
            await shared_app.call("POST", "/v1/exchange", headers=given) for given in ([], headers)
        ]
        assert [reply.status for reply in replies] == [401, 401]
        assert replies[0].body == replies[1].body
        assert replies[1].header("www-authenticate") == 'Bearer realm="signet"'

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            (b"x-signet-api-key", b"acme-key"),
            (b"x-odin-api-key", b"acme-key"),
            (b"authorization", b"Bearer acme-key"),
            (b"authorization", b"bearer   acme-key "),
        ],
    )
    async def test_each_header_authenticates(self, app: App, name: bytes, value: bytes) -> None:
        """The API key may come in any of its three headers."""
        headers = [
            (name, value),
            (b"content-type", b"application/json"),
            (b"idempotency-key", b"k"),
        ]
        reply = await app.call(
            "POST", "/v1/exchange", headers=headers, body=json.dumps(invoice()).encode()
        )
        assert reply.status == 200

    async def test_a_key_without_the_scope_is_forbidden(self, app: App) -> None:
        """An auditor's key exchanges nothing, and a retry by a good key finds the key free."""
        reply = await app.exchange(invoice(), key="k", api_key="auditor-key")
        assert (reply.status, reply.code) == (403, "scope_missing")
        assert await app.stored() == 0
        assert (await app.exchange(invoice(), key="k")).status == 200

    @pytest.mark.parametrize(
        ("kind", "status"),
        [
            (b"application/json", 200),
            (b"application/json; charset=utf-8", 200),
            (b"Application/JSON", 200),
            (b"text/plain", 415),
            (b"application/jsonx", 415),
            (b"application/problem+json", 415),
            (b"", 415),
            (b"multipart/form-data; boundary=application/json", 415),
            (b"\xff", 415),
            (None, 415),
        ],
    )
    async def test_only_json_is_taken(self, app: App, kind: bytes | None, status: int) -> None:
        """The body must say that it is JSON."""
        headers = [(b"x-signet-api-key", b"acme-key"), (b"idempotency-key", b"k")]
        if kind is not None:
            headers.append((b"content-type", kind))
        reply = await app.call(
            "POST", "/v1/exchange", headers=headers, body=json.dumps(invoice()).encode()
        )
        assert reply.status == status
        assert reply.code == (None if status == 200 else "unsupported_media_type")

    async def test_a_compressed_body_is_not_taken(self, app: App) -> None:
        """No decompression bomb: a body with a coding is refused unread."""
        reply = await app.exchange(invoice(), headers=[(b"content-encoding", b"gzip")])
        assert (reply.status, reply.code) == (415, "unsupported_media_type")

    async def test_unknown_members_are_named(self, app: App) -> None:
        """A member that is not of the envelope is 400 with its pointer."""
        reply = await app.exchange(invoice(forwardUrl="https://x", **{"a/b": 1}))
        assert (reply.status, reply.code) == (400, "unknown_member")
        pointers = [fault["pointer"] for fault in reply.json["faults"]]
        assert pointers == ["/forwardUrl", "/a~1b"]
        assert await app.stored() == 0

    async def test_a_key_that_was_not_accepted_is_free(self, app: App) -> None:
        """After a 400 the same key carries another body."""
        assert (await app.exchange(b"{", key="k")).status == 400
        assert (await app.exchange(invoice(), key="k")).status == 200


class TestIdempotency:
    """One key, one receipt."""

    async def test_a_retry_replays_byte_for_byte(self, app: App) -> None:
        """The same request gets the same answer, its own trace, and the header that says so."""
        first = await app.exchange(invoice(), key="k")
        second = await app.exchange(invoice(), key="k")
        _same_answer(first, second)
        assert await app.stored() == 1

    async def test_the_replay_survives_a_restart(self, tmp_path: Path) -> None:
        """A gateway that was restarted replays what it answered before."""
        async with open_app(tmp_path) as app:
            first = await app.exchange(invoice(), key="k")
        async with open_app(tmp_path) as app:
            _same_answer(first, await app.exchange(invoice(), key="k"))

    @pytest.mark.parametrize(
        "other",
        [invoice(trace_id="other"), envelope({}), invoice(delivery="queued")],
        ids=["allowed", "refused", "delivery"],
    )
    async def test_another_body_with_the_key_is_refused(self, app: App, other: object) -> None:
        """A key belongs to its first body; whatever else comes with it gets 422."""
        await app.exchange(invoice(), key="k")
        reply = await app.exchange(other, key="k")
        assert (reply.status, reply.code) == (422, "idempotency_key_reused")
        assert reply.json["retry"] == "never_blind"
        assert await app.stored() == 1

    async def test_bytes_not_values_make_a_body_the_same(self, app: App) -> None:
        """The fingerprint is over bytes: an added blank is another body."""
        text = json.dumps(invoice())
        await app.exchange(text.encode(), key="k")
        reply = await app.exchange(f" {text}".encode(), key="k")
        assert reply.code == "idempotency_key_reused"

    async def test_keys_of_tenants_do_not_meet(self, app: App) -> None:
        """Two tenants may use the same key and each acts."""
        first = await app.exchange(invoice(), key="k")
        second = await app.exchange(invoice(), key="k", api_key="globex-key")
        assert (first.status, second.status) == (200, 200)
        assert second.header("X-SIGNET-Idempotency-Hit") is None
        hashes = {r.json["receipt"]["idempotency_key_hash"] for r in (first, second)}
        assert len(hashes) == 2

    async def test_keys_are_the_tenant_s_not_the_api_key_s(self, app: App) -> None:
        """Another API key of the same tenant replays."""
        first = await app.exchange(invoice(), key="k")
        _same_answer(first, await app.exchange(invoice(), key="k", api_key="acme-other-key"))

    async def test_a_thousand_at_once_make_one_receipt(self, app: App) -> None:
        """1,000 parallel requests with one key: one receipt, one set of bytes, 999 replays."""
        replies = await _at_once(app.exchange(invoice(), key="one") for _ in range(1000))
        assert {reply.status for reply in replies} == {200}
        assert len({reply.body for reply in replies}) == 1
        assert sum(reply.header("X-SIGNET-Idempotency-Hit") is None for reply in replies) == 1
        assert await app.stored() == 1

    async def test_the_key_itself_is_stored_nowhere(self, app: App, tmp_path: Path) -> None:
        """Neither the idempotency key nor the API key appears in the database files."""
        await app.exchange(invoice(), key="idempotency-key-in-clear", api_key="globex-key")
        for file in (tmp_path / "data").iterdir():
            content = file.read_bytes()
            assert b"idempotency-key-in-clear" not in content
            assert b"globex-key" not in content

    async def test_an_expired_answer_frees_the_key(self, app: App) -> None:
        """Where nothing was sent, a purged key may be used again."""
        await app.exchange(invoice(trace_id="t"), key="k")
        await app.gateway.database.transact(idempotency.purge_answers, 1 << 62, 100)
        reply = await app.exchange(invoice(trace_id="t"), key="k")
        assert reply.status == 200
        assert reply.json["receipt"]["hop"] == 2


class TestChain:
    """Receipts of a trace follow each other."""

    async def test_parallel_exchanges_of_one_trace_chain_without_conflict(self, app: App) -> None:
        """20 parallel exchanges of one trace get the hops 1 to 20, and nobody a 409."""
        replies = await _at_once(app.exchange(invoice(trace_id="hot")) for _ in range(20))
        assert {reply.status for reply in replies} == {200}
        assert sorted(r.json["receipt"]["hop"] for r in replies) == list(range(1, 21))
        assert len(await app.verified("hot")) == 20

    async def test_expected_prev_holds_the_chain(self, app: App) -> None:
        """Null begins a chain, a hash continues it, a wrong one is 409 with the last receipt."""
        first = await app.exchange(invoice(trace_id="t", expected_prev=None))
        assert first.status == 200
        last = first.json["receipt"]["receipt_hash"]
        second = await app.exchange(invoice(trace_id="t", expected_prev=last))
        assert second.status == 200
        third = await app.exchange(invoice(trace_id="t", expected_prev=last), key="late")
        assert (third.status, third.code) == (409, "chain_moved")
        assert third.json["faults"][0]["pointer"] == "/expected_prev"
        assert third.json["faults"][0]["got"] == second.json["receipt"]["receipt_hash"]
        assert await app.stored() == 2
        assert (await app.exchange(invoice(trace_id="t"), key="late")).status == 200

    async def test_expected_prev_of_an_unknown_trace(self, app: App) -> None:
        """A hash expected where there is no chain, and none where there is one, are 409."""
        reply = await app.exchange(invoice(trace_id="t", expected_prev="sha256:" + "0" * 64))
        assert (reply.status, reply.code) == (409, "chain_moved")
        await app.exchange(invoice(trace_id="t"))
        reply = await app.exchange(invoice(trace_id="t", expected_prev=None))
        assert (reply.status, reply.code) == (409, "chain_moved")

    async def test_a_replay_does_not_mind_that_the_chain_moved(self, app: App) -> None:
        """The answer of a key is told again, whatever came after it."""
        body = invoice(trace_id="t", expected_prev=None)
        first = await app.exchange(body, key="k")
        await app.exchange(invoice(trace_id="t"))
        _same_answer(first, await app.exchange(body, key="k"))

    async def test_one_of_many_wins_an_expected_prev(self, app: App) -> None:
        """Of parallel exchanges that expect the same head, one is appended and the others know."""
        bodies = (invoice(trace_id="t", expected_prev=None) for _ in range(10))
        replies = await _at_once(app.exchange(body) for body in bodies)
        assert sorted(reply.status for reply in replies) == [200] + [409] * 9

    async def test_traces_of_tenants_are_unrelated(self, app: App) -> None:
        """Two tenants that use one trace id have two chains, each from hop 1."""
        await app.exchange(invoice(trace_id="t"))
        reply = await app.exchange(invoice(trace_id="t"), api_key="globex-key")
        assert reply.json["receipt"]["hop"] == 1
        assert len(await app.verified("t")) == 1
        assert len(await app.verified("t", api_key="globex-key")) == 1


class TestSealed:
    """Tenants whose content must not be guessed from its hashes."""

    async def test_hashes_are_salted(self, app: App) -> None:
        """Neither the CID nor the request's hash is that of the bytes, and two calls differ."""
        body = json.dumps(invoice()).encode()
        receipts_ = [
            (await app.exchange(body, api_key="sealed-key")).json["receipt"] for _ in range(2)
        ]
        for name, content in (("cid", canonicalize(INVOICE)), ("request_cid", body)):
            found = {receipt[name] for receipt in receipts_}
            assert len(found) == 2
            assert content_id(content) not in found

    async def test_sealed_receipts_verify(self, app: App) -> None:
        """A salted receipt proves as much as any."""
        reply = await app.exchange(invoice(trace_id="t"), api_key="sealed-key")
        app.trusted(reply)
        assert len(await app.verified("t", api_key="sealed-key")) == 1

    async def test_the_salt_opens_the_hash_until_it_is_erased(self, app: App) -> None:
        """The stored salt and payload make the CID; erasing takes both and the answer."""
        reply = await app.exchange(invoice(), key="k", api_key="sealed-key")
        cid = reply.json["receipt"]["cid"]
        stored = await app.gateway.database.read_current(receipts.payload, "vault", cid)
        assert stored is not None
        assert stored.salt is not None
        assert stored.body is not None
        assert content_id(stored.salt + stored.body) == cid
        await app.gateway.database.transact(receipts.erase_payload, "vault", cid)
        erased = await app.gateway.database.read_current(receipts.payload, "vault", cid)
        assert erased is None or (erased.body, erased.salt) == (None, None)


class TestErased:
    """What remains when a payload has been erased."""

    async def test_a_replay_is_gone_but_the_receipt_stands(self, app: App) -> None:
        """The replay is 410 with the receipt that was signed, and the chain still verifies."""
        first = await app.exchange(invoice(trace_id="t"), key="k")
        cid = first.json["receipt"]["cid"]
        await app.gateway.database.transact(receipts.erase_payload, "acme", cid)
        reply = await app.exchange(invoice(trace_id="t"), key="k")
        assert (reply.status, reply.code) == (410, "payload_erased")
        assert reply.json["receipt"] == first.json["receipt"]
        app.trusted(reply)
        assert b"ACME GmbH" not in reply.body
        assert len(await app.verified("t")) == 1
        assert await app.stored() == 1


class TestStorageTrouble:
    """The gateway does not say what it does not know."""

    async def test_an_unsure_commit_is_not_acknowledged(self, app: App) -> None:
        """While the database does not commit, the answer is 503: ask again with the same key."""

        async def spoil(tx: Tx) -> None:
            await tx.execute(
                "CREATE TRIGGER full BEFORE INSERT ON receipts BEGIN SELECT RAISE(FAIL, 'no'); END"
            )

        async def mend(tx: Tx) -> None:
            await tx.execute("DROP TRIGGER full")

        await app.gateway.database.transact(spoil)
        reply = await app.exchange(invoice(), key="k")
        assert reply.status == 503
        assert reply.code == "not_acknowledged"
        assert reply.json["retry"] == "same_key"
        assert reply.header("retry-after") == "1"
        await app.gateway.database.transact(mend)
        assert (await app.exchange(invoice(), key="k")).status == 200
        assert await app.stored() == 1


def _same_answer(first: Reply, second: Reply) -> None:
    assert second.status == first.status
    assert second.body == first.body
    assert second.header("content-type") == first.header("content-type")
    assert second.header("X-SIGNET-Trace") == first.header("X-SIGNET-Trace")
    assert first.header("X-SIGNET-Idempotency-Hit") is None
    assert second.header("X-SIGNET-Idempotency-Hit") == "1"


async def _at_once(calls: object) -> list[Reply]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(call) for call in calls]  # type: ignore[attr-defined]
    return [task.result() for task in tasks]
