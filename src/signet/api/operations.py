"""What an endpoint is: one declaration from which the route and its OpenAPI entry are both made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as ASGIScope

from signet.api.direct import answer_at_once
from signet.api.problems import MEDIA_TYPE, PROBLEMS, problem
from signet.core.errors import Fault
from signet.core.tenant import Principal, Scope

Schema = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A path, query or header parameter."""

    name: str
    place: Literal["path", "query", "header"]
    doc: str
    schema: Schema
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """The body of a successful answer. `headers` are documented, name to description.

    `also` are media types of the same content in another form, where the caller may choose.
    `links` says what can be asked next: an operation's name to its parameters, each by the runtime
    expression (OpenAPI 3.1 §4.8.20.4) of where this answer holds its value.
    """

    doc: str
    media_type: str = "application/json"
    also: tuple[str, ...] = ()
    schema: Schema | None = None
    headers: Mapping[str, str] | None = None
    links: Mapping[str, Mapping[str, str]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One endpoint. `problems` are the codes it can answer besides its success.

    It is either `Public` or `Secured`; the server authenticates before a secured endpoint is
    called, so none can forget to.
    """

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    name: str
    summary: str
    answers: Mapping[int, Content]
    problems: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    body: Schema | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Public(Operation):
    """Answers anybody."""

    endpoint: Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Secured(Operation):
    """Answers the holder of a key with the scope."""

    scope: Scope
    endpoint: Callable[[Request, Principal], Awaitable[Response]]


class PreparedResponse(Response):
    """A body that is ready, under headers that are encoded: nothing is left to be worked out.

    The framework's own constructor costs as much as a tenth of an exchange's Python.
    """

    def __init__(
        self, body: bytes, status: int, content_type: bytes, headers: list[tuple[bytes, bytes]]
    ) -> None:
        self.status_code = status
        self.body = body
        self.background = None
        self.raw_headers = [
            (b"content-type", content_type),
            (b"content-length", b"%d" % len(body)),
            *headers,
        ]

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Leave in one piece where the server takes it so."""
        if not answer_at_once(scope, self.status_code, self.raw_headers, self.body):
            await super().__call__(scope, receive, send)


class ProblemResponse(Response):
    """A problem that was not receipted by this request; `code` is for logs and metrics."""

    media_type = MEDIA_TYPE
    code: str


def problem_response(
    code: str,
    detail: str,
    *,
    faults: tuple[Fault, ...] = (),
    receipt: tuple[bytes, str] | None = None,
    retry_after_s: float | None = None,
) -> ProblemResponse:
    """Return the response of a row of the table of problems."""
    headers: dict[str, str] = {}
    if retry_after_s is not None:
        headers["Retry-After"] = str(max(1, ceil(retry_after_s)))
    if code == "unauthenticated":
        headers["WWW-Authenticate"] = 'Bearer realm="signet"'
    body = problem(code, detail, faults=faults, receipt=receipt)
    response = ProblemResponse(body, PROBLEMS[code].status, headers)
    response.code = code
    return response
