"""The operator's own traffic: one origin, no detours, bounded in size and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from signet.providers.operator_http import (
    AnswerTooLarge,
    DeadlinePassed,
    OperatorLimits,
    OriginRefused,
    RequestTooLarge,
    operator_client,
)

pytestmark = pytest.mark.anyio

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(answer: bytes | Handler) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A loopback server that gives one answer to everything; its address and what it was sent."""
    heads: list[bytes] = []

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}", heads
    finally:
        server.close()


def answer(body: bytes = b"{}", head: str = "") -> bytes:
    """A whole answer."""
    lines = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{head}\r\n"
    return lines.encode() + body


async def test_the_configured_origin_is_reached() -> None:
    """A request to the origin goes out, asking for no compression."""
    async with serving(answer(b"hi")) as (url, heads), operator_client(url) as client:
        response = await client.get(f"{url}/v1/x")
    assert response.content == b"hi"
    assert b"accept-encoding: identity" in heads[0].lower()


@pytest.mark.parametrize(
    "other",
    [
        "http://127.0.0.2:{port}/",
        "https://127.0.0.1:{port}/",
        "http://127.0.0.1:1/",
        "http://localhost:{port}/",
    ],
)
async def test_any_other_origin_is_refused_unsent(other: str) -> None:
    """Scheme, host and port are all part of the origin."""
    async with serving(answer()) as (url, heads), operator_client(url) as client:
        with pytest.raises(OriginRefused):
            await client.get(other.format(port=url.rpartition(":")[2]))
    assert heads == []


async def test_a_redirect_is_an_answer_and_not_followed() -> None:
    """A service cannot send the operator's key elsewhere."""
    redirect = (
        b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"
    )
    async with serving(redirect) as (url, heads), operator_client(url) as client:
        response = await client.get(url)
    assert (response.status_code, len(heads)) == (302, 1)


async def test_environment_proxies_and_netrc_are_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    """Neither a proxy nor credentials come from outside the settings."""
    netrc = f"{tmp_path}/netrc"
    with open(netrc, "w", encoding="utf-8") as file:  # noqa: ASYNC230 - a small fixture file
        file.write("machine 127.0.0.1 login eve password x\n")
    monkeypatch.setenv("NETRC", netrc)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with serving(answer()) as (url, heads), operator_client(url) as client:
        assert (await client.get(url)).status_code == 200
    assert b"authorization" not in heads[0].lower()


@pytest.mark.parametrize(
    "sent",
    [
        answer(b"x" * 101),
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 101,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n"
        + b"x" * 101
        + b"\r\n0\r\n\r\n",
        answer(b"x", "Content-Encoding: gzip\r\n"),
    ],
)
async def test_an_answer_beyond_the_limit_is_cut_off(sent: bytes) -> None:
    """With or without a declared length, and never decompressed."""
    limits = OperatorLimits(max_response_bytes=100)
    async with serving(sent) as (url, _), operator_client(url, limits) as client:
        with pytest.raises(AnswerTooLarge):
            await client.get(url)


async def test_a_request_beyond_the_limit_is_not_sent() -> None:
    """The limit is checked before a byte leaves."""
    limits = OperatorLimits(max_request_bytes=10)
    async with serving(answer()) as (url, heads), operator_client(url, limits) as client:
        with pytest.raises(RequestTooLarge):
            await client.post(url, content=b"x" * 11)
    assert heads == []


async def test_a_body_without_a_length_is_not_sent() -> None:
    """A stream has no bound, so it does not go out."""

    async def endless() -> AsyncIterator[bytes]:
        yield b"x"

    async with serving(answer()) as (url, heads), operator_client(url) as client:
        with pytest.raises(RequestTooLarge):
            await client.post(url, content=endless())
    assert heads == []


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def _dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("handler", [_silent, _dripping])
async def test_one_deadline_covers_the_whole_exchange(handler: Handler) -> None:
    """A service that says nothing, or a byte now and then, is left at the deadline."""
    limits = OperatorLimits(deadline_s=0.3)
    begin = asyncio.get_running_loop().time()
    async with serving(handler) as (url, _), operator_client(url, limits) as client:
        with pytest.raises((DeadlinePassed, httpx.TimeoutException)):
            await client.get(url)
    assert asyncio.get_running_loop().time() - begin < 60


@pytest.mark.parametrize("url", ["ftp://x/", "x", "", "https://user:pw@x/", "file:///etc/passwd"])
async def test_a_base_url_that_is_no_origin_is_refused(url: str) -> None:
    """The start fails, not the first call."""
    with pytest.raises(ValueError, match="not an http"):
        operator_client(url)
