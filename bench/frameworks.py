"""What a framework costs: one null route, four ways, on the same server, in one run.

Each application answers `GET /` with the same 15 bytes of JSON on uvicorn with uvloop and
httptools, in a process of its own. The load is 64 connections of this process, each with one
request at a time; the applications take turns, round by round, so that a busy moment of the
machine does not fall on one of them alone. What is compared is the processor time that each server
spent for one answer (median of the rounds): unlike the rate it hardly depends on what else runs.

    python -m bench.frameworks
"""

import asyncio
import http.client
import json
import multiprocessing
import socket
import statistics
from collections.abc import Callable
from contextlib import closing
from multiprocessing.process import BaseProcess
from typing import Any, cast

import psutil
import uvicorn
import uvloop

CONNECTIONS = 64
ROUNDS = 5
ROUND_S = 1.5
BODY = json.dumps({"hello": "w"}).encode()
REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\nAccept: application/json\r\n\r\n"


def raw_asgi() -> Any:
    """No framework."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": BODY})

    return application


def starlette() -> Any:
    """A Starlette route that returns bytes."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def root(_request: Request) -> Response:
        return Response(BODY, media_type="application/json")

    return Starlette(routes=[Route("/", root)])


def fastapi_bytes() -> Any:
    """A FastAPI route that returns a Response, so that no model is checked or written."""
    from fastapi import FastAPI, Response

    application = FastAPI()

    @application.get("/")
    async def root() -> Response:
        return Response(BODY, media_type="application/json")

    return application


def fastapi_model() -> Any:
    """A FastAPI route as its tutorial has it: a model in the signature."""
    from fastapi import FastAPI
    from pydantic import BaseModel

    class Hello(BaseModel):
        hello: str

    application = FastAPI()

    @application.get("/")
    async def root() -> Hello:
        return Hello(hello="w")

    return application


APPLICATIONS: dict[str, Callable[[], Any]] = {
    "raw ASGI": raw_asgi,
    "Starlette": starlette,
    "FastAPI, bytes": fastapi_bytes,
    "FastAPI, model": fastapi_model,
}


def serve(build: Callable[[], Any], listener: socket.socket) -> None:
    """Serve one application until the process is ended."""
    config = uvicorn.Config(
        build(), loop="uvloop", http="httptools", lifespan="off", access_log=False, log_config=None
    )
    uvicorn.Server(config).run(sockets=[listener])


class Client(asyncio.Protocol):
    """Sends the request again as soon as it is answered."""

    def __init__(self) -> None:
        self.answered = 0
        self.failed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        # Headers and body may come apart; neither is long enough to come in more pieces.
        self.failed += data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 200")
        if data.endswith(b"}"):
            self.answered += 1
            self.transport.write(REQUEST)


async def load(port: int, server: psutil.Process) -> float:
    """Return the microseconds of processor time that the server spends for an answer."""
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(Client, "127.0.0.1", port))[1] for _ in range(CONNECTIONS)
    ]
    await asyncio.sleep(0.2)
    before, begun = sum(client.answered for client in clients), server.cpu_times()
    await asyncio.sleep(ROUND_S)
    after, ended = sum(client.answered for client in clients), server.cpu_times()
    for client in clients:
        client.transport.close()
    assert not any(client.failed for client in clients)
    spent_s = ended.user + ended.system - begun.user - begun.system
    return spent_s * 1_000_000 / (after - before)


def main() -> None:
    """Measure and print."""
    context = multiprocessing.get_context("spawn")
    servers: dict[str, tuple[BaseProcess, int]] = {}
    try:
        for name, build in APPLICATIONS.items():
            listener = socket.create_server(("127.0.0.1", 0), backlog=256)
            process = context.Process(target=serve, args=(build, listener), daemon=True)
            process.start()
            servers[name] = (process, listener.getsockname()[1])
            listener.close()
        for _, port in servers.values():
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as waiting:
                waiting.request("GET", "/")
                assert waiting.getresponse().status == 200
        costs: dict[str, list[float]] = {name: [] for name in servers}
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            for turn in range(ROUNDS + 1):
                for name, (process, port) in servers.items():
                    cost_us = runner.run(load(port, psutil.Process(process.pid)))
                    if turn:  # the first round warms up
                        costs[name].append(cost_us)
    finally:
        for process, _ in servers.values():
            process.kill()
            process.join()
    medians = {name: statistics.median(found) for name, found in costs.items()}
    print(f"{'null route':<16} {'CPU us':>7}  {'speed of raw ASGI':>17}  {'x FastAPI, model':>16}")
    for name, cost_us in medians.items():
        share, factor = medians["raw ASGI"] / cost_us, medians["FastAPI, model"] / cost_us
        print(f"{name:<16} {cost_us:>7.0f}  {share:>17.0%}  {factor:>16.2f}")


if __name__ == "__main__":
    main()
