"""Notes of a request, and the spans that are made of them."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import cast

import pytest
from structlog.testing import CapturingLogger
from structlog.typing import FilteringBoundLogger
from tests.collector import collector, facts

from signet.telemetry import traces
from signet.telemetry.traces import Ids, open_traces, stage_ended

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector that takes what it is sent may be slow about it."""
    monkeypatch.setattr(traces, "_CLOSE_S", 120.0)
    monkeypatch.setattr(traces, "_EXPORT_S", 120.0)


def dice(count: int) -> bytes:
    """Bytes that are not random."""
    return bytes(range(1, count + 1))


def opened(url: str, log: CapturingLogger | None = None, ratio: float = 1.0):
    """Traces that go to a collector."""
    return open_traces(
        endpoint=url,
        headers={},
        ratio=ratio,
        version="1",
        random=dice,
        log=cast(FilteringBoundLogger, log or CapturingLogger()),
    )


def test_without_a_recording_a_note_goes_nowhere() -> None:
    """Whoever notes does not ask whether anybody listens."""
    stage_ended("map", 0.0, 1.0)
    traces.note("code", "x")
    traces.forwarding_as("nonsense")


def test_ids_are_never_nothing() -> None:
    """0 is no id (W3C Trace Context); one that is set is handed out once."""
    ids = Ids(bytes)
    assert (ids.generate_trace_id(), ids.generate_span_id()) == (1, 1)
    ids.trace, ids.span = 7, 8
    assert (ids.generate_trace_id(), ids.generate_span_id()) == (7, 8)
    assert ids.generate_span_id() == 1
    assert ids.is_trace_id_random()


async def test_requests_do_not_mix() -> None:
    """What two tasks note at once belongs to each one's own request."""
    with collector() as kept:
        async with opened(kept.url) as ours:

            async def request(name: str) -> None:
                recording = ours.begin(None)
                for number in range(3):
                    await asyncio.sleep(0)
                    now_s = time.perf_counter()
                    stage_ended(f"{name}{number}", now_s, now_s)
                traces.note("code", name)
                ours.tell(recording, method="GET", route=f"/{name}", status=200, trace_id=name)
                stage_ended("late", 0.0, 1.0)

            async with asyncio.TaskGroup() as tasks:
                for name in ("a", "b"):
                    tasks.create_task(request(name))
    for name in ("a", "b"):
        root = kept.named(f"GET /{name}")
        assert facts(root)["signet.code"] == name
        below = [span.name for span in kept.spans if span.trace_id == root.trace_id]
        assert sorted(below) == sorted([root.name, *(f"signet.{name}{n}" for n in range(3))])


async def test_the_queue_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a collector does not take is dropped, and memory does not grow."""
    monkeypatch.setattr(traces, "_QUEUE", 600)
    log = CapturingLogger()
    with collector() as kept:
        async with opened(kept.url, log) as ours:
            for _ in range(2000):  # faster than any thread can send
                recording = ours.begin(None)
                ours.tell(recording, method="GET", route="/", status=200, trace_id=None)
    assert 0 < len(kept.spans) <= 2000


async def test_the_sdk_speaks_in_our_log_and_only_while_it_is_open() -> None:
    """Nothing of it reaches the root logger, and the handler goes with the block."""
    log = CapturingLogger()
    theirs = logging.getLogger("opentelemetry")
    handlers = list(theirs.handlers)
    async with opened("http://127.0.0.1:1", log):
        logging.getLogger("opentelemetry.sdk").warning("said %s", "so")
        assert not theirs.propagate
    assert theirs.handlers == handlers
    assert theirs.propagate
    said = [call.kwargs["said"] for call in log.calls]
    assert "said so" in said


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans go to the operator's endpoint and to nobody between."""
    with collector() as proxy, collector() as kept:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        async with opened(kept.url) as ours:
            ours.tell(ours.begin(None), method="GET", route="/", status=200, trace_id=None)
    assert len(kept.spans) == 1
    assert proxy.paths == []
