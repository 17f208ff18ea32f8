"""OpenTelemetry traces of requests and their stages, exported over OTLP/HTTP.

While a request goes on, what ends is only noted: a name and two readings of a clock. Spans are made
of it when the answer is ready, and a thread of the SDK's sends them from a bounded queue. Without
an endpoint nothing of OpenTelemetry is created or imported, and the notes go nowhere.

A span tells what metrics may tell: routes, codes, results; no payload, host, tenant or key.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, cast

from structlog.typing import FilteringBoundLogger

from signet.egress.signing import TraceParent, parse_traceparent
from signet.telemetry.logs import LibraryHandler

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.id_generator import IdGenerator
    from opentelemetry.trace import SpanContext

Fact = Literal["code", "outcome", "replayed", "result"]
"""What may be noted of a request, each from a closed set of values."""

_EXPORT_S: Final = 5.0
_QUEUE: Final = 4096
_CLOSE_S: Final = 3.0
_GIVE_UP_S: Final = 1.0
_FORWARD: Final = "forward"


@dataclass(slots=True)
class Recording:
    """One request while it goes on. `began_s` and the stages' times are of `perf_counter`."""

    parent: TraceParent | None
    began_ns: int
    began_s: float
    stages: list[tuple[str, float, float]] = field(default_factory=list[tuple[str, float, float]])
    facts: dict[Fact, str] = field(default_factory=dict[Fact, str])
    forward: TraceParent | None = None
    token: Token[Recording | None] | None = None


_recording: ContextVar[Recording | None] = ContextVar("recording", default=None)


def stage_ended(name: str, began_s: float, ended_s: float) -> None:
    """Note that a stage of this request took from one reading of `perf_counter` to another."""
    recording = _recording.get()
    if recording is not None:
        recording.stages.append((name, began_s, ended_s))


def note(fact: Fact, value: str) -> None:
    """Note something of this request."""
    recording = _recording.get()
    if recording is not None:
        recording.facts[fact] = value


def forwarding_as(traceparent: str) -> None:
    """Note what the forward carries, so that its span is the parent of what the receiver does."""
    recording = _recording.get()
    if recording is not None:
        recording.forward = parse_traceparent(traceparent)


class Traces:
    """Makes spans of recordings. `ids` hands out the ids that its provider asks for."""

    def __init__(self, provider: TracerProvider, ids: Ids) -> None:
        self._tracer = provider.get_tracer("signet")
        self._ids = ids

    def begin(self, traceparent: str | None) -> Recording:
        """Note what ends from now on in this task; `traceparent` is the header that came in."""
        parent = None if traceparent is None else parse_traceparent(traceparent)
        recording = Recording(parent, time.time_ns(), time.perf_counter())
        recording.token = _recording.set(recording)
        return recording

    def tell(
        self,
        recording: Recording,
        *,
        method: str,
        route: str,
        status: int,
        code: str | None = None,
        trace_id: str | None,
    ) -> str:
        """Make the spans of a request that is answered; return the trace's id, 32 hex digits.

        `trace_id` is the SIGNET trace: without a trace that came in, all its hops are one trace
        here, by the rule that forwards follow too.
        """
        from opentelemetry import trace
        from opentelemetry.trace import SpanKind, Status, StatusCode

        if recording.token is not None:
            _recording.reset(recording.token)
        if code is not None:
            recording.facts["code"] = code

        def at_ns(reading_s: float) -> int:
            return recording.began_ns + int((reading_s - recording.began_s) * 1e9)

        self._ids.trace = None
        if trace_id is not None:
            self._ids.trace = int(hashlib.sha256(trace_id.encode()).hexdigest()[:32], 16)
        self._ids.span = None
        above = None if recording.parent is None else _remote(recording.parent)
        root = self._tracer.start_span(
            f"{method} {route}",
            context=None if above is None else _under(above),
            kind=SpanKind.SERVER,
            start_time=recording.began_ns,
            attributes={
                "http.request.method": method,
                "http.route": route,
                "http.response.status_code": status,
                **{f"signet.{fact}": value for fact, value in recording.facts.items()},
            },
        )
        inside = trace.set_span_in_context(root)
        for name, began_s, ended_s in recording.stages:
            sent = recording.forward if name == _FORWARD else None
            self._ids.span = None if sent is None else int(sent.span, 16)
            span = self._tracer.start_span(
                f"signet.{name}",
                context=inside,
                kind=SpanKind.INTERNAL if sent is None else SpanKind.CLIENT,
                start_time=at_ns(began_s),
            )
            span.end(at_ns(ended_s))
        if status >= 500:
            root.set_status(Status(StatusCode.ERROR))
        root.end(at_ns(time.perf_counter()))
        return f"{root.get_span_context().trace_id:032x}"


class Ids:
    """An id generator of the SDK's shape; what is set is handed out next, once."""

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self.trace: int | None = None
        self.span: int | None = None

    def generate_trace_id(self) -> int:
        """Return 16 bytes as a number that is not 0 (W3C Trace Context §3.2.2.3)."""
        return self.trace or int.from_bytes(self._random(16)) or 1

    def generate_span_id(self) -> int:
        """Return 8 bytes as a number that is not 0."""
        wanted, self.span = self.span, None
        return wanted or int.from_bytes(self._random(8)) or 1

    def is_trace_id_random(self) -> bool:
        """Whether trace ids are random as W3C Trace Context level 2 means it; derived ones are."""
        return True


@asynccontextmanager
async def open_traces(
    *,
    endpoint: str,
    headers: Mapping[str, str],
    ratio: float,
    version: str,
    random: Callable[[int], bytes],
    log: FilteringBoundLogger,
) -> AsyncGenerator[Traces]:
    """Export to `endpoint`, an OTLP/HTTP base URL, until the block ends, and to nowhere else.

    `ratio` of the traces that begin here are kept; one that came in is kept if its sender keeps it.
    What the endpoint does not take in time is dropped. Raises `ModuleNotFoundError` without the
    extra `otel`.
    """
    import requests
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.metrics import NoOpMeterProvider
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    session = requests.Session()
    session.trust_env = False  # no proxy and no netrc of the environment
    session.max_redirects = 0
    exporter = OTLPSpanExporter(
        endpoint=endpoint.rstrip("/") + "/v1/traces",
        headers=dict(headers),
        timeout=_EXPORT_S,
        session=session,
    )
    processor = BatchSpanProcessor(
        exporter, max_queue_size=_QUEUE, meter_provider=NoOpMeterProvider()
    )
    ids = Ids(random)
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(ratio)),
        resource=Resource.create({"service.name": "signet", "service.version": version}),
        shutdown_on_exit=False,
        id_generator=cast("IdGenerator", ids),
        meter_provider=NoOpMeterProvider(),
    )
    provider.add_span_processor(processor)
    with _said_in(log):
        try:
            yield Traces(provider, ids)
        finally:
            # The SDK's own end may take half a minute and cannot be told otherwise.
            ending = threading.Thread(target=processor.shutdown, daemon=True)
            ending.start()
            await _ended(ending, _CLOSE_S)
            exporter.shutdown()  # whatever it still tries, it gives up, and says so here
            await _ended(ending, _GIVE_UP_S)


async def _ended(thread: threading.Thread, within_s: float) -> None:
    """Wait until the thread has ended or the time is over."""
    end_s = time.monotonic() + within_s
    # A thread tells by its state that it has ended, not by an event.
    while thread.is_alive() and time.monotonic() < end_s:  # noqa: ASYNC110
        await asyncio.sleep(0.02)


@contextmanager
def _said_in(log: FilteringBoundLogger) -> Generator[None]:
    """Let the SDK speak in our log, and nowhere else."""
    theirs = logging.getLogger("opentelemetry")
    handler, before = LibraryHandler(log, "traces_not_exported"), theirs.propagate
    theirs.addHandler(handler)
    theirs.propagate = False
    try:
        yield
    finally:
        theirs.removeHandler(handler)
        theirs.propagate = before


def _remote(parent: TraceParent) -> SpanContext:
    from opentelemetry.trace import SpanContext, TraceFlags

    return SpanContext(
        trace_id=int(parent.trace, 16),
        span_id=int(parent.span, 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT),
    )


def _under(above: SpanContext) -> Context:
    from opentelemetry.trace import NonRecordingSpan, set_span_in_context

    return set_span_in_context(NonRecordingSpan(above))
