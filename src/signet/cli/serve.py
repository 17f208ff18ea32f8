"""`signet serve`: the gateway, from its settings until it is told to stop.

SIGTERM and SIGINT end it in order: not ready first, then work in progress is finished within
`SP_DRAIN_SECONDS`, then exit 0. A second signal does not wait. With `--workers` the gateway runs in
several processes under a supervisor; each of them is this same command, in its place.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import resource
import signal
import socket
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, cast

import uvicorn
import uvloop

from signet import __version__
from signet.api.door import Door, DoorLimits
from signet.app import SIGNING_KEY_FILE, Gateway, open_gateway, settle_memory, storage_config
from signet.cli.arguments import new_command
from signet.cli.config import warn_of_unread
from signet.cli.exits import CommandFailed, Exit
from signet.cli.sharing import Acceptor
from signet.cli.supervisor import Place, supervise, take_place
from signet.settings import Settings, read_settings, secret_values
from signet.storage.database import SqliteConfig
from signet.telemetry.logs import build_logger, libraries_speak_in
from signet.telemetry.metrics import share_metrics

if TYPE_CHECKING:
    from signet.cli.arguments import Subparsers

Accept = Callable[[socket.socket, Callable[[], asyncio.Protocol]], Acceptor]

_BACKLOG: Final = 2048
_TICK_S: Final = 0.05
_MOST_WORKERS: Final = 64
_OTHER_FILES: Final = 256  # the database, destinations, mappings, what the interpreter has open


def add_parser(subparsers: Subparsers) -> None:
    """Add `serve` to the command's sub-commands."""
    parser = new_command(
        subparsers,
        "serve",
        line="run the gateway",
        description="Run the gateway in the foreground. It is set up by environment variables"
        " alone: `signet config` lists them.",
        examples="""  SP_API_KEYS='{"a-secret-key": {"tenant": "acme"}}' signet serve
  SP_PORT=0 SP_DATA_DIR=/tmp/signet signet serve --workers 4""",
    )
    parser.add_argument(
        "--workers",
        type=_workers,
        default=1,
        metavar="N",
        help="how many processes serve, about one per core; one that dies is restarted (1)",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until a signal; raise what a start can be refused with."""
    place = take_place(os.environ)
    if place is not None:
        share_metrics(place.slot, place.metrics_dir)
    environment = read_settings(os.environ)
    settings = environment.settings
    if place is None:
        warn_of_unread(environment)
        _allow_files(settings.server.max_connections)
        if args.workers > 1:
            with _bound(settings.server.host, settings.server.port) as listener:
                return supervise(
                    listener,
                    workers=args.workers,
                    drain_s=settings.server.drain_s,
                    log=build_logger(settings.telemetry.log_level, secrets=secret_values(settings)),
                )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, place))
    return Exit.DONE


def _workers(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= _MOST_WORKERS:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to {_MOST_WORKERS}")
    return int(text)


async def _serve(settings: Settings, place: Place | None) -> None:
    bound = place.listener if place else _bound(settings.server.host, settings.server.port)
    with bound as listener:
        async with open_gateway(settings) as gateway:
            door = Door(_door_limits(settings), gateway.metrics)
            settle_memory()
            with libraries_speak_in(gateway.log):
                async with asyncio.TaskGroup() as tasks:
                    server = _Server(
                        _uvicorn_config(gateway, door),
                        accept=_accepting(place, door, tasks),
                        on_start=lambda: _announce(settings, gateway, listener, place),
                    )
                    stop = _stop_signals(server, place)
                    watching = tasks.create_task(door.watch())
                    serving = tasks.create_task(server.serve([listener]))
                    await stop.wait()
                    gateway.draining = True
                    await _drain(server, settings.server.drain_s)
                    server.should_exit = True
                    await serving
                    watching.cancel()


def _uvicorn_config(gateway: Gateway, door: Door) -> uvicorn.Config:
    return uvicorn.Config(
        gateway.asgi,
        http=door.protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # what callers do wrong is counted, not written down
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=1,
    )


def _accepting(place: Place | None, door: Door, tasks: asyncio.TaskGroup) -> Accept | None:
    """How to accept next to other workers; None where this process is alone."""
    if place is None:
        return None
    door.tell = place.share.tell
    return partial(Acceptor, share=place.share, backlog=_BACKLOG, tasks=tasks)


def _door_limits(settings: Settings) -> DoorLimits:
    server = settings.server
    work_s = settings.egress.forward_s + settings.fallback.fallback_s
    return DoorLimits(
        header_bytes=server.header_bytes,
        header_count=server.header_count,
        header_s=server.header_s,
        body_s=server.body_s,
        answer_s=work_s + server.body_s if server.request_s is None else server.request_s,
        keep_alive_s=server.keep_alive_s,
        connections=server.max_connections,
    )


def _allow_files(connections: int) -> None:
    """Let this process, and its workers, open a file for each connection, or say that it cannot."""
    needed = connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed and soft != resource.RLIM_INFINITY:
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        if allowed < needed:
            warning = (
                f"warning: this process may open {allowed} files, and SP_MAX_CONNECTIONS"
                f" {connections} needs {needed} (ulimit -n, LimitNOFILE=)"
            )
            print(warning, file=sys.stderr)


class _Server(uvicorn.Server):
    """Uvicorn that leaves signals, and accepting where it is not alone, to us."""

    def __init__(
        self, config: uvicorn.Config, *, accept: Accept | None, on_start: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._accept = accept
        self._on_start = on_start

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none; uvicorn would raise them again in the end, and the exit were not 0."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, then say so."""
        if self._accept is None or sockets is None:
            await super().startup(sockets)
        else:
            acceptors = [self._accept(listener, self._protocol) for listener in sockets]
            self.servers = cast("list[asyncio.Server]", acceptors)
            self.started = True
        self._on_start()

    def _protocol(self) -> asyncio.Protocol:
        make = cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class)
        state, app_state = self.server_state, self.lifespan.state
        return make(config=self.config, server_state=state, app_state=app_state)


def _stop_signals(server: uvicorn.Server, place: Place | None) -> asyncio.Event:
    """Return the event that the first signal sets. The second one ends every wait.

    For a worker the end of its supervisor is such a signal: nobody else would ever send one.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def told_to_stop() -> None:
        server.force_exit = stop.is_set()
        stop.set()

    def supervisor_ended() -> None:
        if place is not None:
            loop.remove_reader(place.supervisor)
        told_to_stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told_to_stop)
    if place is not None:
        loop.add_reader(place.supervisor, supervisor_ended)
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


def _announce(
    settings: Settings, gateway: Gateway, listener: socket.socket, place: Place | None
) -> None:
    """Say in one line where, on what, and with which key; a worker says it to its supervisor."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    storage = storage_config(settings)
    where = f"sqlite {storage.path}" if isinstance(storage, SqliteConfig) else "postgres"
    own = settings.identity.private_key_b64 is None
    source = f" from {settings.storage.data_dir / SIGNING_KEY_FILE}" if own else ""
    if not gateway.keyring.count and (place is None or place.slot == 0):
        warning = (
            "warning: there is no API key, so every call is refused with 401"
            " (signet api-keys create, or SP_API_KEYS)"
        )
        print(warning, file=sys.stderr)
    line = (
        f"signet {__version__} on http://{shown}:{port}, storage {where},"
        f" key {gateway.key.kid}{source}"
    )
    if place is None:
        print(line, flush=True)
    else:
        place.listening(line)
