"""`signet serve`: the gateway in this process, from its settings until it is told to stop.

SIGTERM and SIGINT end it in order: not ready first, then work in progress is finished within
`SP_DRAIN_SECONDS`, then exit 0. A second signal does not wait.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import uvicorn
import uvloop

from signet import __version__
from signet.app import SIGNING_KEY_FILE, Gateway, open_gateway, storage_config
from signet.cli.arguments import new_command
from signet.cli.config import warn_of_unknown
from signet.cli.exits import CommandFailed, Exit
from signet.settings import Settings, read_settings
from signet.storage.database import SqliteConfig

if TYPE_CHECKING:
    from signet.cli.arguments import Subparsers

_BACKLOG: Final = 2048
_KEEP_ALIVE_S: Final = (
    75  # longer than the idle time of usual load balancers, which must close first
)
_TICK_S: Final = 0.05


def add_parser(subparsers: Subparsers) -> None:
    """Add `serve` to the command's sub-commands."""
    new_command(
        subparsers,
        "serve",
        line="run the gateway",
        description="Run the gateway in the foreground. It is set up by environment variables"
        " alone: `signet config` lists them.",
        examples="""  SP_API_KEYS='{"a-secret-key": {"tenant": "acme"}}' signet serve
  SP_PORT=0 SP_DATA_DIR=/tmp/signet signet serve""",
    )


def run(_args: argparse.Namespace) -> int:
    """Serve until a signal; raise what a start can be refused with."""
    environment = read_settings(os.environ)
    warn_of_unknown(environment)
    settings = environment.settings
    if not settings.exchange.api_keys.principals:
        print("warning: SP_API_KEYS is empty, so every call is refused with 401", file=sys.stderr)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings))
    return Exit.DONE


async def _serve(settings: Settings) -> None:
    with _bound(settings.server.host, settings.server.port) as listener:
        async with open_gateway(settings) as gateway:
            server = _Server(
                uvicorn.Config(
                    gateway.asgi,
                    http="httptools",
                    ws="none",
                    lifespan="off",
                    log_config=None,
                    access_log=False,
                    server_header=False,
                    proxy_headers=False,
                    backlog=_BACKLOG,
                    timeout_keep_alive=_KEEP_ALIVE_S,
                    timeout_graceful_shutdown=1,
                ),
                on_start=lambda: _announce(settings, gateway, listener),
            )
            stop = _stop_signals(server)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(server.serve([listener]))
                await stop.wait()
                gateway.draining = True
                await _drain(server, settings.server.drain_s)
                server.should_exit = True


class _Server(uvicorn.Server):
    """Uvicorn that leaves signals to us and says when it listens."""

    def __init__(self, config: uvicorn.Config, *, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none; uvicorn would raise them again in the end, and the exit were not 0."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, then say so."""
        await super().startup(sockets)
        self._on_start()


def _stop_signals(server: uvicorn.Server) -> asyncio.Event:
    """Return the event that the first signal sets. The second one ends every wait."""
    stop = asyncio.Event()

    def told_to_stop() -> None:
        server.force_exit = stop.is_set()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told_to_stop)
    return stop


async def _drain(server: uvicorn.Server, drain_s: float) -> None:
    """Wait for the requests in progress.

    The port stays open meanwhile, so that whoever asks `/readyz` hears that it is time to go
    elsewhere, and new exchanges are answered that they may be sent again.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + drain_s
    # Uvicorn tells what is in progress by a set, not by an event.
    while server.server_state.tasks and loop.time() < end and not server.force_exit:  # noqa: ASYNC110
        await asyncio.sleep(_TICK_S)


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address; it does not listen before the gateway is up."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise CommandFailed(f"SP_HOST {host}: {error.strerror}", Exit.SETTINGS) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        detail = f"cannot listen on {host} port {port}: {error.strerror} (SP_HOST, SP_PORT)"
        raise CommandFailed(detail, Exit.UNAVAILABLE) from error
    return listener


def _announce(settings: Settings, gateway: Gateway, listener: socket.socket) -> None:
    """Print the one line that says where, on what, and with which key."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    storage = storage_config(settings)
    where = f"sqlite {storage.path}" if isinstance(storage, SqliteConfig) else "postgres"
    own = settings.identity.private_key_b64 is None
    source = f" from {settings.storage.data_dir / SIGNING_KEY_FILE}" if own else ""
    print(
        f"signet {__version__} on http://{shown}:{port}, storage {where},"
        f" key {gateway.key.kid}{source}",
        flush=True,
    )
