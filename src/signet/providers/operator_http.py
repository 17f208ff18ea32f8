"""HTTP to the operator's own services (LLM, Stripe): one origin, taken from the settings.

Exactly that scheme, host and port; no redirects, no environment proxies, no netrc; bounded in size
and time. Any address is allowed, because the operator named it. This is the one place in the server
where HTTP leaves it without going through `signet.egress`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorLimits:
    """Bounds of one request, from its first byte to the last byte of its answer."""

    deadline_s: float = 30.0
    connect_s: float = 5.0
    max_request_bytes: int = 8 * 1024 * 1024
    max_response_bytes: int = 8 * 1024 * 1024
    max_connections: int = 32


class OriginRefused(httpx.UnsupportedProtocol):
    """A request to another origin than the operator's; nothing was sent."""


class RequestTooLarge(httpx.LocalProtocolError):
    """The request is larger than its limit; nothing was sent."""


class AnswerTooLarge(httpx.RemoteProtocolError):
    """The answer is larger than its limit, or encoded so that its size cannot be told."""


class DeadlinePassed(httpx.ReadTimeout):
    """The whole exchange took longer than its deadline."""


def operator_client(
    base_url: str, limits: OperatorLimits | None = None, *, trust: ssl.SSLContext | None = None
) -> httpx.AsyncClient:
    """An httpx client that can reach `base_url`'s origin and nothing else.

    Raises `ValueError` when `base_url` is no plain http or https address. The caller closes it.
    Those who open many clients share one `trust`, which takes 20 ms to make.
    """
    limits = limits or OperatorLimits()
    origin = _origin(httpx.URL(base_url))
    if origin is None or httpx.URL(base_url).userinfo:
        raise ValueError(f"not an http or https address without a user: {base_url!r}")
    inner = httpx.AsyncHTTPTransport(
        verify=trust or httpx.create_ssl_context(trust_env=False),
        trust_env=False,
        retries=0,
        limits=httpx.Limits(max_connections=limits.max_connections, keepalive_expiry=30.0),
    )
    return httpx.AsyncClient(
        transport=_OneOrigin(inner, origin, limits),
        timeout=httpx.Timeout(limits.deadline_s, connect=limits.connect_s),
        follow_redirects=False,
        trust_env=False,
        headers={"accept-encoding": "identity"},
    )


def _origin(url: httpx.URL) -> tuple[str, str, int] | None:
    port = url.port or _DEFAULT_PORTS.get(url.scheme)
    return (
        (url.scheme, url.host, port) if url.host and port and url.scheme in _DEFAULT_PORTS else None
    )


class _OneOrigin(httpx.AsyncBaseTransport):
    """Refuses every other origin, bounds both directions and the time."""

    def __init__(
        self, inner: httpx.AsyncBaseTransport, origin: tuple[str, str, int], limits: OperatorLimits
    ) -> None:
        self._inner = inner
        self._origin = origin
        self._limits = limits

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if _origin(request.url) != self._origin:
            raise OriginRefused(f"{request.url.host} is not the configured service")
        limit = self._limits.max_request_bytes
        length = request.headers.get("content-length")
        if length is None and request.method not in ("GET", "HEAD", "DELETE"):
            raise RequestTooLarge("a request body without a length has no bound")
        if length is not None and int(length) > limit:
            raise RequestTooLarge(f"the request has more than {limit} bytes")
        # A compressed answer could be a bomb that is small on the wire.
        request.headers["accept-encoding"] = "identity"
        deadline = asyncio.get_running_loop().time() + self._limits.deadline_s
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._inner.handle_async_request(request)
        except TimeoutError:
            raise DeadlinePassed("no answer before the deadline", request=request) from None
        return await self._bounded(request, response, deadline)

    async def _bounded(
        self, request: httpx.Request, response: httpx.Response, deadline: float
    ) -> httpx.Response:
        limit = self._limits.max_response_bytes
        length = response.headers.get("content-length", "0")
        encoding = response.headers.get("content-encoding", "identity")
        if encoding.lower() not in ("", "identity") or not length.isdigit() or int(length) > limit:
            await response.aclose()
            raise AnswerTooLarge(f"the answer is encoded, or has more than {limit} bytes")
        assert isinstance(response.stream, httpx.AsyncByteStream)
        return httpx.Response(
            status_code=response.status_code,
            headers=response.headers,
            stream=_BoundedStream(response.stream, request, limit, deadline),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


class _BoundedStream(httpx.AsyncByteStream):
    """The bytes of an answer, until there are too many of them or it is too late."""

    def __init__(
        self, inner: httpx.AsyncByteStream, request: httpx.Request, limit: int, deadline: float
    ) -> None:
        self._inner = inner
        self._request = request
        self._limit = limit
        self._deadline = deadline

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received = 0
        parts = aiter(self._inner)
        while True:
            try:
                async with asyncio.timeout_at(self._deadline):
                    part = await anext(parts, None)
            except TimeoutError:
                raise DeadlinePassed("the answer came too slowly", request=self._request) from None
            if part is None:
                return
            received += len(part)
            if received > self._limit:
                raise AnswerTooLarge(f"the answer has more than {self._limit} bytes")
            yield part

    async def aclose(self) -> None:
        await self._inner.aclose()
