"""Traces of exchanges, sent to a collector that is really there, or is not."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tests.api.test_forward import FORWARD_S, answers_at_once, authority, forwarding  # noqa: F401
from tests.collector import Collector, collector, facts
from tests.egress.stage import HOST, Authority
from tests.inprocess import SEED, invoice, open_app
from tests.live import environment

from signet.egress.signing import parse_traceparent
from signet.telemetry import traces

pytestmark = pytest.mark.anyio

CAME = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRETS = (b"acme-key", b"the-agent-s-key", b"Consulting", b"ACME GmbH", HOST.encode())


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector that is waited for: on a busy machine it may be slow, but it takes everything."""
    monkeypatch.setattr(traces, "_CLOSE_S", 120.0)
    monkeypatch.setattr(traces, "_EXPORT_S", 120.0)
    with collector() as kept:
        yield kept


async def test_one_exchange(
    tmp_path: Path,
    authority: Authority,  # noqa: F811
    taken: Collector,
) -> None:
    """Its request is one span and each stage another below it; what the receiver does belongs below
    the forward, and nothing of the call's content, host or key is told."""
    receiver = answers_at_once()
    environ = {"SP_OTLP_ENDPOINT": taken.url, "SP_OTLP_HEADERS": "x-token=a%20b"}
    async with forwarding(tmp_path, authority, **environ) as it:
        await it.stage.serve(receiver)
        reply = await it.post(
            key="the-agent-s-key",
            members={"trace_id": "t-1"},
            headers=[(b"traceparent", CAME.encode())],
        )
        assert reply.status == 200
        sent = parse_traceparent(receiver.headers["traceparent"])
    assert sent is not None
    assert set(taken.paths) == {"/v1/traces"}
    assert taken.seen[0]["x-token"] == "a b"
    assert taken.resource["service.name"] == "signet"
    root = taken.named("POST /v1/exchange")
    came = parse_traceparent(CAME)
    assert came is not None
    assert (root.trace_id.hex(), root.parent_span_id.hex()) == (came.trace, came.span)
    assert root.kind == Span.SPAN_KIND_SERVER
    assert facts(root) == {
        "http.request.method": "POST",
        "http.route": "/v1/exchange",
        "http.response.status_code": 200,
        "signet.outcome": "allowed",
        "signet.result": "responded",
    }
    names = ["understand", "map", "decide", "forward", "commit"]
    stages = [taken.named(f"signet.{name}") for name in names]
    assert len(taken.spans) == len(stages) + 1
    for before, span in zip([None, *stages], stages, strict=False):
        assert span.trace_id == root.trace_id
        assert span.parent_span_id == root.span_id
        assert root.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= root.end_time_unix_nano
        assert before is None or before.end_time_unix_nano <= span.start_time_unix_nano + 1000
    forward = taken.named("signet.forward")
    assert forward.kind == Span.SPAN_KIND_CLIENT
    assert (forward.trace_id.hex(), forward.span_id.hex()) == (sent.trace, sent.span)
    assert not [secret for secret in SECRETS if secret in taken.raw]


async def test_without_a_trace_that_came(tmp_path: Path, taken: Collector) -> None:
    """All hops of a SIGNET trace are one trace, and an answer that is replayed says so; a route
    that anybody may ask has no span."""
    async with open_app(tmp_path, SP_OTLP_ENDPOINT=taken.url + "/") as app:
        for key in ("one", "two", "two"):
            await app.exchange(invoice(trace_id="t-1"), key=key)
        await app.exchange(b"{", key="three")
        await app.get("/healthz", api_key=None)
        await app.get("/v1/receipts/chain/none")
    roots = [span for span in taken.spans if span.name == "POST /v1/exchange"]
    wanted = hashlib.sha256(b"t-1").hexdigest()[:32]
    assert [span.trace_id.hex() == wanted for span in roots] == [True, True, True, False]
    assert all(not span.parent_span_id for span in roots)
    assert len({span.span_id for span in taken.spans}) == len(taken.spans)
    assert facts(roots[2])["signet.replayed"] == "true"
    assert facts(roots[3])["signet.code"] == "invalid_json"
    others = {span.name for span in taken.spans if not span.parent_span_id} - {roots[0].name}
    assert others == {"GET /v1/receipts/chain/{trace_id}"}


async def test_whose_sender_does_not_keep_it(tmp_path: Path, taken: Collector) -> None:
    """A trace that came in unsampled is not kept here either; of our own, the asked share is."""
    environ = {"SP_OTLP_ENDPOINT": taken.url, "SP_TRACE_RATIO": "0"}
    async with open_app(tmp_path, **environ) as app:
        unsampled = CAME[:-1] + "0"
        for header in (unsampled, "nonsense", CAME):
            await app.exchange(invoice(), headers=[(b"traceparent", header.encode())])
    roots = [span for span in taken.spans if span.name == "POST /v1/exchange"]
    assert [span.trace_id.hex() for span in roots] == [CAME.split("-")[1]]


async def test_our_own_failures_are_errors(tmp_path: Path, taken: Collector) -> None:
    """A 5xx is an error; a refusal is not."""
    async with open_app(tmp_path, SP_OTLP_ENDPOINT=taken.url) as app:
        app.gateway.draining = True
        assert (await app.exchange(invoice())).status == 503
    assert taken.named("POST /v1/exchange").status.code == Status.STATUS_CODE_ERROR


@pytest.mark.parametrize("kind", ["closed", "silent", "redirects", "fails"])
async def test_a_collector_that_is_no_help(
    tmp_path: Path, kind: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Exchanges go on as without it, the stop is bounded, a redirect is not followed, and the log
    says so in its own form."""
    with collector() as elsewhere, socket.create_server(("127.0.0.1", 0)) as silent:
        status = {"redirects": 307, "fails": 400}.get(kind, 200)
        with collector(status, Location=elsewhere.url + "/v1/traces") as kept:
            url = kept.url
            if kind == "silent":
                url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            if kind == "closed":
                url = "http://127.0.0.1:1"
            environ = {"SP_OTLP_ENDPOINT": url, "SP_LOG_LEVEL": "warning"}
            async with open_app(tmp_path, **environ) as app:
                for _ in range(3):
                    app.trusted(await app.exchange(invoice()))
                stopping = time.monotonic()
            assert time.monotonic() - stopping < 120
        assert elsewhere.paths == []
    for line in capfdbinary.readouterr().err.splitlines():
        assert json.loads(line)["event"] == "traces_not_exported"


async def test_the_log_names_the_trace(
    tmp_path: Path, taken: Collector, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The line of a request has the id that the collector shows it under."""
    async with open_app(tmp_path, SP_OTLP_ENDPOINT=taken.url, SP_LOG_LEVEL="info") as app:
        await app.exchange(invoice(trace_id="t-1"))
    lines = [json.loads(line) for line in capfdbinary.readouterr().err.splitlines()]
    (line,) = [line for line in lines if line["event"] == "request"]
    assert line["otel_trace_id"] == taken.named("POST /v1/exchange").trace_id.hex()


def test_nothing_is_imported_without_an_endpoint(tmp_path: Path) -> None:
    """A gateway without traces carries nothing of OpenTelemetry; with them it does."""
    program = """
import asyncio, os, sys
from signet.app import open_gateway
from signet.settings import read_settings
async def main():
    async with open_gateway(read_settings(os.environ).settings):
        print(any(name.partition(".")[0] == "opentelemetry" for name in sys.modules))
asyncio.run(main())
"""
    for more, imported in (({}, "False"), ({"SP_OTLP_ENDPOINT": "http://127.0.0.1:1"}, "True")):
        settings = {"SP_DATA_DIR": str(tmp_path), "SP_PRIVATE_KEY_B64": SEED, **more}
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment(settings),
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        assert done.stdout.strip() == imported
