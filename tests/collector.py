"""An OTLP/HTTP collector on loopback, which keeps the spans that it is sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(slots=True)
class Collector:
    """What came: the requests' paths and headers, the resources and the spans."""

    url: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict[str, str])
    paths: list[str] = field(default_factory=list[str])
    seen: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    resource: dict[str, str] = field(default_factory=dict[str, str])
    spans: list[Span] = field(default_factory=list[Span])
    raw: bytes = b""

    def take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        """Keep one request."""
        self.paths.append(path)
        self.seen.append(headers)
        self.raw += body
        sent = ExportTraceServiceRequest.FromString(body)
        for resource in sent.resource_spans:
            pairs = resource.resource.attributes
            self.resource |= {pair.key: pair.value.string_value for pair in pairs}
            for scope in resource.scope_spans:
                self.spans += scope.spans

    def named(self, name: str) -> Span:
        """The one span of that name."""
        (found,) = [span for span in self.spans if span.name == name]
        return found


def facts(span: Span) -> dict[str, str | int]:
    """The attributes of a span."""
    told: dict[str, str | int] = {}
    for pair in span.attributes:
        number = pair.value.HasField("int_value")
        told[pair.key] = pair.value.int_value if number else pair.value.string_value
    return told


@contextmanager
def collector(status: int = 200, **headers: str) -> Iterator[Collector]:
    """Listen until the block ends; every request is answered with `status` and `headers`."""
    kept = Collector(status=status, headers=headers)

    class Handler(BaseHTTPRequestHandler):
        """Takes a request and says so."""

        def do_POST(self) -> None:
            """Keep the spans."""
            body = self.rfile.read(int(self.headers["Content-Length"]))
            names = {name.lower(): value for name, value in self.headers.items()}
            kept.take(self.path, names, body)
            self.send_response(kept.status)
            for name, value in kept.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
