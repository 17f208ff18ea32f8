"""The ASGI application: every operation behind one guard that answers, counts and logs."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Final, cast

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, ExceptionHandler, Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from signet.api import visits
from signet.api.auth import Keyring, Refused, authenticate, presented_secrets
from signet.api.headers import first_headers
from signet.api.limiting import within_limits
from signet.api.openapi import openapi
from signet.api.operations import (
    Content,
    Operation,
    ProblemResponse,
    Public,
    Secured,
    problem_response,
)
from signet.api.proxies import NO_PROXIES, Proxies
from signet.api.visits import Visit
from signet.core.tenant import Principal
from signet.core.tenant import Scope as KeyScope
from signet.gateway.audit import Trail
from signet.gateway.limits import Limits
from signet.gateway.ports import Busy, Clock
from signet.storage.errors import StorageBusy, StorageError
from signet.telemetry.logs import Redactor
from signet.telemetry.metrics import Metrics
from signet.telemetry.tally import Count
from signet.telemetry.traces import Traces

_Endpoint = Callable[[Request], Awaitable[Response]]
_Entrance = Callable[[Request, Visit], Awaitable[Response]]

_REDACTOR: Final = Redactor()
_NOWHERE: Final = "_none"
"""The route of what has none."""


def build_api(
    operations: Sequence[Operation],
    *,
    keyring: Keyring,
    limits: Limits,
    version: str,
    metrics: Metrics,
    log: FilteringBoundLogger,
    trail: Trail,
    addresses: bool,
    clock: Clock,
    proxies: Proxies = NO_PROXIES,
    traces: Traces | None = None,
) -> ASGIApp:
    """Return the application that serves `operations` and their OpenAPI document.

    Whatever somebody with a key asks is told to `trail`, the client's address only where
    `addresses` says so; behind one of the `proxies`, that of whom it heard.
    """
    described = _describe_itself(operations, version)
    recorder = _Recorder(trail=trail, addresses=addresses, proxies=proxies, clock=clock)
    guarded = [
        (operation, _guarded(operation, keyring, limits, metrics, log, recorder, traces))
        for operation in (*operations, described)
    ]
    places: dict[str, dict[str, _Endpoint]] = {}
    for operation, endpoint in guarded:
        places.setdefault(operation.path, {})[operation.method] = endpoint
    router = Starlette(
        routes=[
            Route(path, _by_method(endpoints), methods=list(endpoints))
            for path, endpoints in places.items()
        ],
        exception_handlers={HTTPException: _strays(metrics, log, recorder)},
    )
    # A redirect to the path without its slash would be made of the Host header that was sent.
    router.router.redirect_slashes = False
    fixed = {
        (operation.method, operation.path): endpoint
        for operation, endpoint in guarded
        if "{" not in operation.path
    }
    return _Api(router=router, fixed=fixed)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Api:
    """Fixed paths are found by one look-up; everything else is the router's.

    The router's layers cost as much as two null routes, and what they are for, catching what an
    endpoint raises, the guard has done.
    """

    router: ASGIApp
    fixed: Mapping[tuple[str, str], _Endpoint]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        http = scope["type"] == "http"
        endpoint = self.fixed.get((scope["method"], scope["path"])) if http else None
        if endpoint is None:
            await self.router(scope, receive, send)
        else:
            response = await endpoint(Request(scope, receive, send))
            await response(scope, receive, send)


def _by_method(endpoints: Mapping[str, _Endpoint]) -> _Endpoint:
    """One route for a path, so that 405 names all of its methods. HEAD is GET without a body."""

    async def endpoint(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        return await endpoints[method](request)

    return endpoint


def _describe_itself(operations: Sequence[Operation], version: str) -> Operation:
    async def document(_request: Request) -> Response:
        return Response(body, media_type="application/json")

    itself = Public(
        method="GET",
        path="/openapi.json",
        name="openapi",
        summary="This description.",
        endpoint=document,
        answers={200: Content(doc="OpenAPI 3.1.", schema={"type": "object"})},
    )
    body = orjson.dumps(openapi((*operations, itself), version))
    return itself


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recorder:
    """Tells the audit trail what came of each visit."""

    trail: Trail
    addresses: bool
    proxies: Proxies
    clock: Clock

    def begin(self, request: Request) -> Visit:
        """Begin a visit, before anything is known of who it is."""
        return visits.begin(
            request, now_us=self.clock(), addresses=self.addresses, proxies=self.proxies
        )

    def end(self, operation: Operation, visit: Visit, request: Request, code: str) -> None:
        """Write it down, unless it was anonymous or its entry is in the log with its receipt."""
        if visit.principal is None or visit.recorded:
            return
        about = visit.object or _asked_for(request)
        self.trail.attempted(
            visit.principal,
            action=operation.name,
            object=about,
            code=visit.code or code,
            origin=visit.origin,
        )


def _asked_for(request: Request) -> str | None:
    """Return what the path names, without a key: one that was taken for its id would stay in the
    log for good."""
    about = "/".join(map(str, request.path_params.values()))
    if not about:
        return None
    secrets = presented_secrets(request.scope["headers"])
    return _REDACTOR.line(about.encode("utf-8", "replace"), secrets).decode("utf-8")


def _guarded(
    operation: Operation,
    keyring: Keyring,
    limits: Limits,
    metrics: Metrics,
    log: FilteringBoundLogger,
    recorder: _Recorder,
    traces: Traces | None,
) -> _Endpoint:
    """Wrap an endpoint so that every request has one answer, one count and one line of log."""
    entered = _entrance(operation, keyring, limits)
    answered: dict[int, Count] = {}
    logged = log.is_enabled_for(logging.INFO)

    def count(status: int) -> None:
        counter = answered.get(status)
        if counter is None:
            of_status = metrics.requests.labels(operation.path, str(status))
            counter = answered[status] = metrics.counted(of_status)
        counter.add()

    async def guarded(request: Request) -> Response:
        started = perf_counter()
        metrics.requests_in_flight += 1
        visit = recorder.begin(request)
        recording = None
        if traces is not None and isinstance(operation, Secured):
            recording = traces.begin(request.headers.get("traceparent"))
        try:
            response = await entered(request, visit)
        except (StorageBusy, Busy) as error:
            response = problem_response("overloaded", error.detail, retry_after_s=1.0)
        except StorageError as error:
            log.error(
                "not_acknowledged",
                route=operation.path,
                error=str(error),
                request_id=visit.origin.request_id,
                presented=presented_secrets(request.scope["headers"]),
            )
            detail = "the outcome is not known to be durable; ask again with the same key"
            response = problem_response("not_acknowledged", detail, retry_after_s=1.0)
        except Exception:
            log.exception(
                "request_failed",
                route=operation.path,
                request_id=visit.origin.request_id,
                presented=presented_secrets(request.scope["headers"]),
            )
            response = problem_response("internal_error", "the gateway failed; its log says why")
        finally:
            metrics.requests_in_flight -= 1
        code = response.code if isinstance(response, ProblemResponse) else None
        if code is not None:
            metrics.refusals.labels(code).inc()
        count(response.status_code)
        recorder.end(operation, visit, request, code or "ok")
        request_id = visit.origin.request_id
        response.raw_headers.append((b"x-content-type-options", b"nosniff"))
        response.raw_headers.append((b"x-request-id", request_id.encode("ascii")))
        told: dict[str, str] = {}
        if traces is not None and recording is not None:
            told["otel_trace_id"] = traces.tell(
                recording,
                method=operation.method,
                route=operation.path,
                status=response.status_code,
                code=code,
                trace_id=_trace_of(response),
            )
        if logged:
            log.info(
                "request",
                method=operation.method,
                route=operation.path,
                status=response.status_code,
                code=code,
                request_id=request_id,
                trace_id=_trace_of(response),
                ms=round((perf_counter() - started) * 1000, 3),
                **told,
            )
        return response

    return guarded


def _trace_of(response: Response) -> str | None:
    """Return the SIGNET trace that an answer names."""
    named = dict(response.raw_headers).get(b"x-signet-trace")
    return None if named is None else named.decode("latin-1")


def _entrance(operation: Operation, keyring: Keyring, limits: Limits) -> _Entrance:
    """Return what calls the endpoint, past authentication and the caller's limits if secured."""
    match operation:
        case Public(endpoint=endpoint):
            return lambda request, _visit: endpoint(request)
        case Secured(endpoint=endpoint, scope=scope):
            return _secured(endpoint, scope, keyring, limits)
        case _:
            raise TypeError("an operation is public or secured")


def _secured(
    endpoint: Callable[[Request, Principal], Awaitable[Response]],
    scope: KeyScope,
    keyring: Keyring,
    limits: Limits,
) -> _Entrance:
    async def entered(request: Request, visit: Visit) -> Response:
        principal = authenticate(first_headers(request.scope), keyring, scope)
        if isinstance(principal, Refused):
            visit.principal = principal.principal
            return problem_response(principal.code, principal.detail)
        visit.principal = principal
        return await within_limits(limits, principal, lambda: endpoint(request, principal))

    return entered


def _strays(metrics: Metrics, log: FilteringBoundLogger, recorder: _Recorder) -> ExceptionHandler:
    """Answer what no operation takes, the router's 404 and 405, and tell of it as the guard does.

    Of a path that is not ours nothing is written down: whoever asks has made it up.
    """

    async def stray(request: Request, error: Exception) -> Response:
        started = perf_counter()
        visit = recorder.begin(request)
        matching = _matching(request)
        if cast(HTTPException, error).status_code == 405:
            response = problem_response("method_not_allowed", "this path has other methods")
            # The router tells the methods of the first route alone, and each operation is one.
            methods = {method for route in matching for method in route.methods or ()}
            response.headers["Allow"] = ", ".join(sorted(methods))
        else:
            response = problem_response("not_found", "no such path")
        place = matching[0].path if matching else _NOWHERE
        metrics.refusals.labels(response.code).inc()
        metrics.requests.labels(place, str(response.status_code)).inc()
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["X-Request-Id"] = visit.origin.request_id
        log.info(
            "request",
            method=request.method,
            route=place,
            status=response.status_code,
            code=response.code,
            request_id=visit.origin.request_id,
            trace_id=None,
            ms=round((perf_counter() - started) * 1000, 3),
        )
        return response

    return stray


def _matching(request: Request) -> list[Route]:
    """Return the routes that have the path of a request, whatever its method."""
    routes = cast(Starlette, request.scope["app"]).routes
    return [
        route
        for route in routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
    ]
