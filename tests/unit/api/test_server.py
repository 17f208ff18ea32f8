"""The guard around every endpoint: one answer, one count, one line of log."""

from __future__ import annotations

import json
import logging
import time
from typing import cast

import pytest
import structlog
from starlette.requests import Request
from starlette.responses import Response
from structlog.testing import CapturingLogger
from structlog.typing import FilteringBoundLogger
from tests.inprocess import App

from signet.api.operations import Content, Public, Secured
from signet.api.server import build_api
from signet.core.tenant import Principal, Scope, read_keyring
from signet.gateway.audit import Trail
from signet.gateway.limits import LimitDefaults, Limits
from signet.gateway.ports import Busy
from signet.storage.database import Database
from signet.storage.errors import StorageBusy, StorageUnavailable
from signet.telemetry.metrics import Metrics

pytestmark = pytest.mark.anyio

FAILURES = {
    "/busy-storage": (StorageBusy("full"), 503, "overloaded"),
    "/busy": (Busy("full"), 503, "overloaded"),
    "/unsure": (StorageUnavailable("disk"), 503, "not_acknowledged"),
    "/bug": (ZeroDivisionError("secret detail"), 500, "internal_error"),
}


class Built:
    """An application of a few endpoints, with its log and metrics."""

    def __init__(self, level: int = logging.INFO) -> None:
        self.log = CapturingLogger()
        self.metrics = Metrics()
        self.trail = Trail(
            database=cast(Database, None), metrics=self.metrics, clock=lambda: 1_000_000
        )
        answers = {200: Content(doc="Yes.")}

        async def fine(_request: Request) -> Response:
            return Response(b"fine")

        async def who(_request: Request, principal: Principal) -> Response:
            return Response(principal.tenant.id)

        def failing(error: Exception) -> Public:
            async def fail(_request: Request) -> Response:
                raise error

            path = next(path for path, row in FAILURES.items() if row[0] is error)
            return Public(
                method="GET", path=path, name=path, summary="", endpoint=fail, answers=answers
            )

        operations = [
            Public(
                method="GET", path="/fine", name="f", summary="", endpoint=fine, answers=answers
            ),
            Secured(
                method="GET",
                path="/who",
                name="w",
                summary="",
                endpoint=who,
                answers=answers,
                scope=Scope.BILLING_READ,
            ),
            *(failing(error) for error, _, _ in FAILURES.values()),
        ]
        log = cast(
            FilteringBoundLogger,
            structlog.wrap_logger(
                self.log,
                processors=[],
                wrapper_class=structlog.make_filtering_bound_logger(level),
            ),
        )
        asgi = build_api(
            operations,
            keyring=read_keyring({"acme-key": {"tenant": "acme"}}),
            limits=Limits(
                database=cast("object", None),  # type: ignore[arg-type]
                defaults=LimitDefaults(),
                metrics=self.metrics,
                log=log,
                monotonic=time.monotonic,
            ),
            version="1",
            metrics=self.metrics,
            log=log,
            trail=self.trail,
            addresses=True,
            clock=lambda: 1_000_000,
        )
        self.app = App(asgi, cast("object", None))  # type: ignore[arg-type]


@pytest.mark.parametrize("path", FAILURES)
async def test_failures_become_problems(path: str) -> None:
    """Whatever an endpoint raises is a problem with its code, and no detail of ours leaks."""
    built = Built()
    _, status, code = FAILURES[path]
    reply = await built.app.get(path)
    assert (reply.status, reply.code) == (status, code)
    assert reply.json["retry"] == "same_key"
    assert b"secret detail" not in reply.body
    assert b"disk" not in reply.body


async def test_every_answer_is_counted_and_logged() -> None:
    """One line and one count each, by route and not by path."""
    built = Built()
    await built.app.get("/fine?api_key=secret")
    await built.app.get("/bug")
    lines = [call.kwargs for call in built.log.calls if call.kwargs["event"] == "request"]
    assert [(line["route"], line["status"], line["code"]) for line in lines] == [
        ("/fine", 200, None),
        ("/bug", 500, "internal_error"),
    ]
    assert "secret" not in repr(built.log.calls[0])
    text = built.metrics.exposition().decode()
    assert 'signet_http_requests_total{route="/fine",status="200"} 1.0' in text
    assert 'signet_refusals_total{code="internal_error"} 1.0' in text
    assert "signet_http_requests_in_flight 0.0" in text


async def test_what_no_operation_takes_is_told_of_too() -> None:
    """A wrong path or method is counted, logged and named as every other answer, without the path:
    whoever mistypes one finds the answer's id in the log."""
    built = Built()
    for method, path in (("GET", "/made-up/secret"), ("PATCH", "/fine")):
        reply = await built.app.call(method, path, headers=[(b"x-request-id", b"mine")])
        assert reply.header("x-request-id") == "mine"
        assert reply.header("x-content-type-options") == "nosniff"
    lines = [call.kwargs for call in built.log.calls]
    assert [(line["route"], line["method"], line["status"], line["code"]) for line in lines] == [
        ("_none", "GET", 404, "not_found"),
        ("/fine", "PATCH", 405, "method_not_allowed"),
    ]
    assert [line["request_id"] for line in lines] == ["mine", "mine"]
    text = built.metrics.exposition().decode()
    assert 'signet_http_requests_total{route="_none",status="404"} 1.0' in text
    assert 'signet_http_requests_total{route="/fine",status="405"} 1.0' in text
    assert 'signet_refusals_total{code="not_found"} 1.0' in text
    assert "secret" not in text + repr(lines)


async def test_who_logs_less_is_told_failures_only() -> None:
    """Above the level of the line of each request, what fails is still logged."""
    built = Built(logging.WARNING)
    await built.app.get("/fine")
    assert built.log.calls == []
    await built.app.get("/unsure")
    assert [call.kwargs["event"] for call in built.log.calls] == ["not_acknowledged"]


async def test_a_secured_endpoint_is_never_called_for_a_stranger() -> None:
    """The guard authenticates; an endpoint cannot forget to."""
    built = Built()
    assert (await built.app.get("/who", api_key=None)).status == 401
    assert (await built.app.get("/who", api_key="x")).status == 401
    reply = await built.app.get("/who")
    assert (reply.status, reply.body) == (200, b"acme")


async def test_answers_are_not_sniffed() -> None:
    """No browser takes an answer for something else than its type says."""
    assert (await Built().app.get("/fine")).header("x-content-type-options") == "nosniff"


async def test_the_document_names_every_route() -> None:
    """The description includes itself."""
    reply = await Built().app.get("/openapi.json")
    assert set(json.loads(reply.body)["paths"]) == {"/fine", "/who", "/openapi.json", *FAILURES}
