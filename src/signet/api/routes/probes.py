"""`/healthz`, `/readyz` and `/metrics`: what machines ask."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Mapping

import orjson
from starlette.requests import Request
from starlette.responses import Response

from signet.api import schemas
from signet.api.operations import Content, Operation, Public, problem_response
from signet.api.proxies import is_forwarded
from signet.receipts.receipt import timestamp
from signet.telemetry.metrics import CONTENT_TYPE

Readiness = Callable[[], Awaitable[Mapping[str, str]]]
"""Each component's state; `ok` is ready, anything else says why not."""


def operations(
    *,
    storage: str,
    version: str,
    now_us: Callable[[], int],
    readiness: Readiness,
    exposition: Callable[[], Awaitable[bytes]],
    metrics_token: str | None,
) -> list[Operation]:
    """Return the operations of this file."""

    async def healthz(_request: Request) -> Response:
        state = {"ok": True, "storage": storage, "version": version, "ts": timestamp(now_us())}
        return Response(orjson.dumps(state), media_type="application/json")

    async def readyz(_request: Request) -> Response:
        components = await readiness()
        ready = all(state == "ok" for state in components.values())
        body = orjson.dumps({"ready": ready, "components": components})
        return Response(body, 200 if ready else 503, media_type="application/json")

    async def metrics(request: Request) -> Response:
        if not _may_read_metrics(request, metrics_token):
            return problem_response("unauthenticated", "send the token of SP_METRICS_TOKEN")
        return Response(await exposition(), media_type=CONTENT_TYPE)

    ready = Content(doc="Every component is ready.", schema=schemas.READY)
    return [
        Public(
            method="GET",
            path="/healthz",
            name="healthz",
            summary="Alive; never touches the database.",
            endpoint=healthz,
            answers={200: Content(doc="The process answers.", schema=schemas.HEALTH)},
        ),
        Public(
            method="GET",
            path="/readyz",
            name="readyz",
            summary="Ready for traffic, component by component.",
            endpoint=readyz,
            answers={
                200: ready,
                503: Content(doc="A component is not ready.", schema=schemas.READY),
            },
        ),
        Public(
            method="GET",
            path="/metrics",
            name="metrics",
            summary="Prometheus metrics; to loopback, or with SP_METRICS_TOKEN as bearer token.",
            endpoint=metrics,
            answers={200: Content(doc="All families.", media_type="text/plain")},
            problems=("unauthenticated",),
        ),
    ]


def _may_read_metrics(request: Request, token: str | None) -> bool:
    if token is not None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(
            given.strip().encode("latin-1"), token.encode()
        )
    if is_forwarded(request.scope["headers"]):
        return False  # it is a proxy that is on loopback, not who asks
    try:
        return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
