"""Hostile bytes: each gets a clear problem at little cost, and stores nothing that is not due."""

from __future__ import annotations

import json
import time

import pytest
from tests.inprocess import App, Headers, envelope, invoice, open_app

pytestmark = pytest.mark.anyio

GENEROUS_CPU_S = 3.0
"""The promise is 50 ms of an idle machine; tests share theirs with each other."""


@pytest.fixture
def app(shared_app: App) -> App:
    """One gateway for all tests here: what is refused leaves it as it was."""
    return shared_app


def _raw(payload: bytes) -> bytes:
    head = b'{"payload_type":"test.anything.v1","target_type":"test.anything.v1","payload":'
    return head + payload + b"}"


NOT_I_JSON = [
    pytest.param(b"", "", id="empty"),
    pytest.param(b" \n", "", id="blank"),
    pytest.param(b"{", "", id="an open brace"),
    pytest.param(b"null null", "", id="two values"),
    pytest.param(b'{"a":1}{"a":1}', "", id="two objects"),
    pytest.param(b"\xef\xbb\xbf{}", "", id="a byte order mark"),
    pytest.param('{"a":"é"}'.encode("latin-1"), "/a", id="Latin-1"),
    pytest.param('{"a":1}'.encode("utf-16"), "", id="UTF-16"),
    pytest.param(b'{"a":"\xed\xa0\x80"}', "/a", id="a surrogate in UTF-8"),
    pytest.param(b'{"a":"\xc0\xaf"}', "/a", id="overlong UTF-8"),
    pytest.param(b"\x00", "", id="a NUL"),
    pytest.param(b'{"a":"\x00"}', None, id="a NUL in a string"),
    pytest.param(b"{'a':1}", "", id="single quotes"),
    pytest.param(b'{"a":1,}', None, id="a trailing comma"),
    pytest.param(b'{"a":01}', None, id="a leading zero"),
    pytest.param(b'{"a":+1}', None, id="a plus sign"),
    pytest.param(b'{"a":1.}', None, id="a bare point"),
    pytest.param(b'{"a":.5}', None, id="no integer part"),
    pytest.param(b'{"a":0x10}', None, id="hexadecimal"),
    pytest.param(_raw(b"NaN"), None, id="NaN"),
    pytest.param(_raw(b'{"a":Infinity}'), None, id="Infinity"),
    pytest.param(_raw(b"[-Infinity]"), None, id="-Infinity"),
    pytest.param(_raw(b'{"a":1,"a":1}'), "/payload/a", id="a name twice"),
    pytest.param(_raw(b'{"\\u0061":1,"a":1}'), "/payload/a", id="a name twice, once escaped"),
    pytest.param(b'{"payload_type":"x","payload_type":"y"}', "/payload_type", id="a member twice"),
    pytest.param(_raw(b'{"a":"\\ud800"}'), "/payload/a", id="a lone surrogate"),
    pytest.param(_raw(b'{"\\udfff":1}'), "/payload/\\udfff", id="a lone surrogate in a name"),
    pytest.param(_raw(b'["\\ud83d\\u0041"]'), "/payload/0", id="half a pair"),
    pytest.param(_raw(b"[1e400]"), "/payload/0", id="beyond doubles"),
    pytest.param(_raw(b"[1e999990]"), "/payload/0", id="far beyond doubles"),
    pytest.param(_raw(b"[1e-999990]"), "/payload/0", id="far below doubles"),
    pytest.param(_raw(b"[9007199254740992]"), "/payload/0", id="beyond exact integers"),
    pytest.param(_raw(b"[12345678901234567.89]"), "/payload/0", id="more digits than a double"),
    pytest.param(_raw(b"[" + b"9" * 100_000 + b"]"), "/payload/0", id="an endless integer"),
    pytest.param(_raw(b"[0." + b"1" * 100_000 + b"]"), "/payload/0", id="an endless fraction"),
    pytest.param(_raw(b"[" * 70 + b"]" * 70), None, id="a little too deep"),
    pytest.param(_raw(b"[" * 5_000 + b"]" * 5_000), None, id="5,000 deep"),
    pytest.param(_raw(b"[" * 500_000), None, id="500,000 deep and open"),
    pytest.param(_raw(b'{"a":' * 100_000), None, id="objects 100,000 deep"),
    pytest.param(b'"' + b"\\" * 900_000, None, id="backslashes"),
    pytest.param(_raw(b'"' * 900_000), None, id="quotes"),
]


@pytest.mark.parametrize(("body", "pointer"), NOT_I_JSON)
async def test_what_is_not_i_json_is_refused_cheaply(
    app: App, body: bytes, pointer: str | None
) -> None:
    """400 `invalid_json` with the place of the first fault, little CPU, and nothing stored."""
    before = await app.stored()
    started = time.process_time()
    reply = await app.exchange(body)
    spent_s = time.process_time() - started
    assert (reply.status, reply.code) == (400, "invalid_json")
    fault = reply.json["faults"][0]
    if pointer is not None:
        assert fault["pointer"] == pointer
    assert len(reply.body) < 5_000
    assert spent_s < GENEROUS_CPU_S
    assert await app.stored() == before


NOT_AN_ENVELOPE = [
    pytest.param(b"null", "", "envelope_invalid", id="null"),
    pytest.param(b"[]", "", "envelope_invalid", id="array"),
    pytest.param(b'"x"', "", "envelope_invalid", id="text"),
    pytest.param(b"1", "", "envelope_invalid", id="number"),
    pytest.param(b"{}", "/payload_type", "envelope_invalid", id="empty object"),
    *(
        pytest.param(
            json.dumps(invoice(trace_id=trace_id)).encode(),
            "/trace_id",
            "envelope_invalid",
            id=f"trace_id {trace_id!r:.20}",
        )
        for trace_id in (
            *(1, 1.5, True, [], ["t"], {}, "", " ", "a b", "a\r\nSet-Cookie: x", "a\n", "\u0000"),
            *("é", "a/b", "a" * 129, "a" * 100_000, "％41", "../../etc/passwd"),
        )
    ),
    *(
        pytest.param(
            json.dumps(envelope(payload)).encode(), "/payload", "envelope_invalid", id=f"{payload}"
        )
        for payload in (None, 1, "x", True, 1.5)
    ),
    pytest.param(
        json.dumps(invoice(__proto__={})).encode(),
        "/__proto__",
        "unknown_member",
        id="a name of another language",
    ),
    pytest.param(
        json.dumps(invoice(**{"x" * 100_000: 1})).encode(), None, "unknown_member", id="a long name"
    ),
    pytest.param(
        json.dumps(invoice(**{f"m{n}": n for n in range(50_000)})).encode(),
        "/m0",
        "unknown_member",
        id="50,000 members",
    ),
    pytest.param(
        json.dumps(invoice(expected_prev="sha256:" + "0" * 63)).encode(),
        "/expected_prev",
        "envelope_invalid",
        id="a short hash",
    ),
    pytest.param(
        json.dumps(invoice(forward_url=["https://a.example"])).encode(),
        "/forward_url",
        "envelope_invalid",
        id="a list of URLs",
    ),
    pytest.param(
        json.dumps(invoice(forward_url="https://a.example/\r\nX: y")).encode(),
        "/forward_url",
        "envelope_invalid",
        id="a URL with a line break",
    ),
]


@pytest.mark.parametrize(("body", "pointer", "code"), NOT_AN_ENVELOPE)
async def test_what_is_not_an_envelope_is_refused_cheaply(
    app: App, body: bytes, pointer: str | None, code: str
) -> None:
    """400 with the pointer of the member, a short answer, no header of the caller's making."""
    before = await app.stored()
    started = time.process_time()
    reply = await app.exchange(body)
    spent_s = time.process_time() - started
    assert (reply.status, reply.code) == (400, code)
    if pointer is not None:
        assert pointer in {fault["pointer"] for fault in reply.json["faults"]}
    assert reply.header("X-SIGNET-Trace") is None
    assert reply.header("Set-Cookie") is None
    assert len(reply.body) < 20_000
    assert spent_s < GENEROUS_CPU_S
    assert await app.stored() == before


HOSTILE_CONTENT = [
    pytest.param(_raw(b"[" + b'"e\xcc\x81",' * 100_000 + b'"x"]'), id="100,000 texts not in NFC"),
    pytest.param(
        _raw(b'{"' + b"n" * 300_000 + b'":[' + b'"e\xcc\x81",' * 100_000 + b'"x"]}'),
        id="100,000 texts not in NFC below a name of 300 KB",
    ),
    pytest.param(_raw(b'["' + b"\xcc\x81" * 100_000 + b'"]'), id="100,000 combining marks"),
    pytest.param(_raw(b'{"a":"' + b"\\u0000" * 100_000 + b'"}'), id="100,000 NULs"),
    pytest.param(
        _raw(b"{" + b",".join(b'"k%d":%d' % (n, n) for n in range(60_000)) + b"}"),
        id="60,000 members",
    ),
    pytest.param(_raw(b"[" + b"1e-7," * 100_000 + b"0]"), id="100,000 small numbers"),
    pytest.param(_raw(b"[" + b"{}," * 200_000 + b"0]"), id="200,000 objects"),
]


@pytest.mark.parametrize("body", HOSTILE_CONTENT)
async def test_large_hostile_content_stays_bounded(app: App, body: bytes) -> None:
    """Legal but nasty content of under a megabyte is decided within bounds of time and size."""
    assert len(body) < 1 << 20
    started = time.process_time()
    reply = await app.exchange(body)
    spent_s = time.process_time() - started
    assert reply.status in {200, 422}, reply.body[:300]
    assert spent_s < 10
    assert len(json.dumps(reply.json["receipt"])) < 200_000
    app.trusted(reply)


@pytest.mark.parametrize(
    "payload",
    [
        {"tool_calls": [{"function": {"name": "n" * 400_000, "arguments": "{}"}}]},
        {"tool_calls": [{"function": {"name": "create_invoice", "arguments": "x" * 500_000}}]},
        {"tool_calls": [{"function": {"name": "create_invoice", "arguments": "[" * 500_000}}]},
        {"tool_calls": [{"function": {"name": "create_invoice", "arguments": 1}}] * 5_000},
        {"tool_calls": {"x" * 500_000: 1}},
    ],
    ids=["long name", "long arguments", "deep arguments", "many calls", "long member"],
)
async def test_refusals_of_large_payloads_stay_small(app: App, payload: object) -> None:
    """What is refused is not repeated: neither problem nor receipt grows with the payload."""
    started = time.process_time()
    reply = await app.exchange(envelope(payload))
    spent_s = time.process_time() - started
    assert reply.status == 422
    assert len(reply.body) < 20_000
    assert spent_s < 5
    app.trusted(reply)


class TestBodies:
    """How a body arrives."""

    @pytest.fixture
    def headers(self, app: App) -> Headers:
        """Those of a call under a fresh key."""
        return (
            (b"x-signet-api-key", b"acme-key"),
            (b"content-type", b"application/json"),
            (b"idempotency-key", app.fresh_key().encode()),
        )

    async def test_a_body_may_come_in_pieces(self, app: App, headers: Headers) -> None:
        """One byte at a time is the same request."""
        body = json.dumps(invoice()).encode()
        pieces = [body[i : i + 1] for i in range(len(body))]
        reply = await app.call("POST", "/v1/exchange", headers=headers, body=pieces)
        assert reply.status == 200

    async def test_a_declared_length_over_the_limit_is_refused_unread(
        self, app: App, headers: Headers
    ) -> None:
        """413 comes before the first byte of the body is read."""
        for length in (b"1048577", b"9" * 5000, b"99999999999999"):
            declared = (*headers, (b"content-length", length))
            reply = await app.call("POST", "/v1/exchange", headers=declared, leave_after=0)
            assert (reply.status, reply.code) == (413, "body_too_large")

    async def test_a_chunked_body_over_the_limit_is_refused_while_it_comes(
        self, app: App, headers: Headers
    ) -> None:
        """Without a declared length the bytes are counted, and the rest is not waited for."""
        before = await app.stored()
        reply = await app.call(
            "POST", "/v1/exchange", headers=headers, body=[b" " * 65536] * 17, leave_after=17
        )
        assert (reply.status, reply.code) == (413, "body_too_large")
        assert await app.stored() == before

    async def test_the_largest_body_is_taken(self, app: App, headers: Headers) -> None:
        """Exactly the limit is in order."""
        text = json.dumps(invoice()).encode()
        body = text + b" " * ((1 << 20) - len(text))
        reply = await app.call("POST", "/v1/exchange", headers=headers, body=body)
        assert reply.status == 200
        reply = await app.exchange(body + b" ")
        assert (reply.status, reply.code) == (413, "body_too_large")

    async def test_a_caller_that_leaves_half_way_leaves_nothing(
        self, app: App, headers: Headers
    ) -> None:
        """A half-sent body is no request: nothing is stored and the key is free."""
        before = await app.stored()
        body = json.dumps(invoice()).encode()
        half = [body[:40], body[40:]]
        for leave_after in (0, 1):
            reply = await app.call(
                "POST", "/v1/exchange", headers=headers, body=half, leave_after=leave_after
            )
            assert reply.status == 499
        assert await app.stored() == before
        reply = await app.call("POST", "/v1/exchange", headers=headers, body=body)
        assert reply.header("X-SIGNET-Idempotency-Hit") is None

    async def test_nothing_is_read_for_a_stranger(self, app: App) -> None:
        """Without a valid key the answer comes before the body."""
        reply = await app.call("POST", "/v1/exchange", body=b"x" * 5_000_000, leave_after=0)
        assert (reply.status, reply.code) == (401, "unauthenticated")


class TestRouting:
    """Paths and methods that are not ours."""

    @pytest.mark.parametrize(
        "path",
        [
            *("/", "/v1", "/v1/exchange/", "/v1/exchanges", "/V1/EXCHANGE", "//v1/exchange"),
            *("/v1/receipts/chain/", "/v1/receipts/export/a/b", "/.well-known/", "/%2e%2e/etc"),
            *("/docs", "/redoc", "/static/../app.py", "/v1/exchange%00", "/" + "a" * 100_000),
        ],
    )
    async def test_unknown_paths_are_not_found(self, app: App, path: str) -> None:
        """Whatever is not a route is 404 as a problem, without a redirect."""
        for method in ("GET", "POST"):
            reply = await app.call(method, path)
            assert (reply.status, reply.code) in {(404, "not_found"), (405, "method_not_allowed")}
            assert reply.header("location") is None
            assert len(reply.body) < 1_000

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/v1/exchange"),
            ("PUT", "/v1/exchange"),
            ("DELETE", "/v1/receipts/chain/t"),
            ("POST", "/healthz"),
            ("PATCH", "/metrics"),
            ("TRACE", "/healthz"),
            ("BREW", "/healthz"),
            ("OPTIONS", "/v1/exchange"),
        ],
    )
    async def test_other_methods_are_told_which_there_are(
        self, app: App, method: str, path: str
    ) -> None:
        """405 is a problem too and carries `Allow`."""
        reply = await app.call(method, path)
        assert (reply.status, reply.code) == (405, "method_not_allowed")
        assert reply.header("allow")

    async def test_all_methods_of_a_path_are_told(self, app: App) -> None:
        """A path of several operations has the methods of all of them."""
        for path, methods in (
            ("/v1/admin/tenants", "GET, HEAD, POST"),
            ("/v1/admin/tenants/acme", "GET, HEAD, PATCH"),
        ):
            assert (await app.call("DELETE", path)).header("allow") == methods


async def test_a_depth_setting_is_the_bound(tmp_path: object) -> None:
    """`SP_MAX_DEPTH` bounds the body and the arguments inside it."""
    async with open_app(tmp_path, SP_MAX_DEPTH="6") as app:  # type: ignore[arg-type]
        assert (await app.exchange(invoice())).status == 200
        deep = json.dumps({"a": [[[[[[[1]]]]]]]})
        assert (await app.exchange(invoice(deep))).code == "arguments_invalid"
        reply = await app.exchange(envelope({"a": [[[[[1]]]]]}))
        assert reply.code == "invalid_json"
