"""Several processes on one socket: they are started, watched, restarted, and stopped together.

The supervisor binds and never serves. Each worker is the same command in a process of its own that
inherits the listening socket and one end of a socket pair: on it the worker says once that it
listens, and by its end of file the worker learns that the supervisor is gone, however it died.
How connections spread over the workers is `signet.cli.sharing`.
A worker keeps its slot's number over all its lives, so that its counters go on where they were.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from structlog.typing import FilteringBoundLogger

from signet.cli.exits import Exit
from signet.cli.sharing import Share, Shares, open_shares
from signet.core.backoff import full_jitter_us
from signet.telemetry.metrics import forget_gauges
from signet.telemetry.metrics_directory import MetricsDirectory, open_metrics_directory

_SLOT: Final = "SIGNET_WORKER_SLOT"
_SOCKETS: Final = "SIGNET_WORKER_SOCKETS"
_SHARES: Final = "SIGNET_WORKER_SHARES"
_METRICS: Final = "SIGNET_WORKER_METRICS"
_PROGRAM: Final = "import sys; from signet.cli.main import main; sys.exit(main())"
# Leaves the current directory out of the path: a file there must not stand in for a module.
_COMMAND: Final = (sys.executable, "-P", "-c", _PROGRAM, "serve")

_START_S: Final = 120.0  # a migration may wait a minute for another node's
_STOP_MORE_S: Final = 15.0  # for what follows the drain: the last commits, closing the pool
_STEADY_S: Final = 60.0  # who has lived this long and dies is restarted as if for the first time
_RESTART_US: Final = 250_000
_RESTART_MOST_US: Final = 30_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a worker has of its supervisor. It takes over both sockets."""

    slot: int
    listener: socket.socket
    supervisor: socket.socket
    share: Share
    metrics_dir: str

    def listening(self, line: str) -> None:
        """Tell the supervisor that this worker serves, and what a start line would say."""
        with suppress(BrokenPipeError):  # a supervisor that is gone is noticed elsewhere
            self.supervisor.sendall(line.encode() + b"\n")


def take_place(environ: MutableMapping[str, str]) -> Place | None:
    """Return what a supervisor left for this process, None where there is none.

    It is taken out of `environ`: a process that this one starts is no worker.
    """
    slot, sockets, shares, metrics_dir = (
        environ.pop(name, None) for name in (_SLOT, _SOCKETS, _SHARES, _METRICS)
    )
    if slot is None or sockets is None or shares is None or metrics_dir is None:
        return None
    listener, supervisor = (socket.socket(fileno=int(number)) for number in sockets.split(","))
    for inherited in (listener, supervisor):
        inherited.set_inheritable(False)
    with open(int(shares), "r+b") as counts:
        share = Share(counts.fileno(), int(slot))
    return Place(
        slot=int(slot),
        listener=listener,
        supervisor=supervisor,
        share=share,
        metrics_dir=metrics_dir,
    )


def supervise(
    listener: socket.socket, *, workers: int, drain_s: float, log: FilteringBoundLogger
) -> int:
    """Keep `workers` workers on `listener` until a signal, and return the exit code.

    The code is `Exit.DONE` after a stop in order; that of the worker that could not start, which
    has told the reason itself; `Exit.FAILED` if a worker had to be killed at the end.
    """
    with open_metrics_directory() as metrics, open_shares(workers) as shares:
        supervisor = Supervisor(
            listener=listener,
            shares=shares,
            workers=workers,
            stop_s=drain_s + _STOP_MORE_S,
            metrics=metrics,
            log=log,
        )
        return asyncio.run(supervisor.run())


class Supervisor:
    """Keeps one process per slot alive. A failing start is fatal only while nothing serves yet."""

    def __init__(
        self,
        *,
        listener: socket.socket,
        shares: Shares,
        workers: int,
        stop_s: float,
        metrics: MetricsDirectory,
        log: FilteringBoundLogger,
    ) -> None:
        self._listener = listener
        self._shares = shares
        self._stop_s = stop_s
        self._metrics = metrics
        self._log = log
        self._stopping = asyncio.Event()
        self._settled = [asyncio.Event() for _ in range(workers)]
        self._alive: dict[int, asyncio.subprocess.Process] = {}
        self._line = ""
        self._exit: int = Exit.DONE

    async def run(self) -> int:
        """Start all, say so in one line, and return when all have ended."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        async with asyncio.TaskGroup() as keepers:
            # The first one goes ahead: what keeps it from starting would keep all of them, and is
            # told once.
            keepers.create_task(self._keep(0))
            await self._settled[0].wait()
            for slot in range(1, len(self._settled)):
                keepers.create_task(self._keep(slot))
            for settled in self._settled:
                await settled.wait()
            if not self._stopping.is_set():
                print(f"{self._line}, {len(self._settled)} workers", flush=True)
        return self._exit

    def stop(self) -> None:
        """Tell every worker to stop in order; told again, they do not wait for their drain."""
        if not self._stopping.is_set():
            self._stopping.set()
            asyncio.get_running_loop().call_later(self._stop_s, self._kill)
        for process in self._alive.values():
            with suppress(ProcessLookupError):
                process.terminate()

    def _kill(self) -> None:
        for slot, process in self._alive.items():
            self._log.error("worker_killed", slot=slot, pid=process.pid)
            self._exit = Exit.FAILED
            with suppress(ProcessLookupError):
                process.kill()

    async def _keep(self, slot: int) -> None:
        """Run the slot's process, again and again, until all are told to stop."""
        settled, loop = self._settled[slot], asyncio.get_running_loop()
        deaths = 0
        try:
            while not self._stopping.is_set():
                started = loop.time()
                code = await self._run_worker(slot)
                forget_gauges(slot, self._metrics.path)
                self._shares.vacate(slot)
                if self._stopping.is_set():
                    return
                if not settled.is_set():
                    self._log.error("worker_did_not_start", slot=slot, exit=code)
                    self._exit = code if code > 0 else Exit.FAILED
                    self.stop()
                    return
                deaths = 1 if loop.time() - started > _STEADY_S else deaths + 1
                wait_us = full_jitter_us(
                    deaths, secrets.randbits(64), base_us=_RESTART_US, cap_us=_RESTART_MOST_US
                )
                wait_s = wait_us / 1_000_000
                self._log.error("worker_died", slot=slot, exit=code, restart_in_s=wait_s)
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._stopping.wait()
        finally:
            settled.set()

    async def _run_worker(self, slot: int) -> int:
        """Run one process to its end and return its exit code, negative for a signal."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                try:
                    process = await self._spawn(slot, theirs)
                except OSError as error:  # out of processes or memory, which passes
                    self._log.error("worker_not_spawned", slot=slot, error=error.strerror)
                    return Exit.UNAVAILABLE
            self._alive[slot] = process
            if self._stopping.is_set():  # the signal came before there was anybody to tell
                process.terminate()
            try:
                try:
                    async with asyncio.timeout(_START_S):
                        line = await _first_line(ours)
                except TimeoutError:
                    process.kill()  # neither up nor gone in all that time
                else:
                    if line:
                        self._line = self._line or line
                        self._settled[slot].set()
                return await process.wait()
            finally:
                del self._alive[slot]

    async def _spawn(self, slot: int, channel: socket.socket) -> asyncio.subprocess.Process:
        inherited = (self._listener.fileno(), channel.fileno())
        shares = self._shares.descriptor
        lock = self._metrics.lock  # held by every worker too, for as long as it lives
        return await asyncio.create_subprocess_exec(
            *_COMMAND,
            env={
                **os.environ,
                _SLOT: str(slot),
                _SOCKETS: ",".join(map(str, inherited)),
                _SHARES: str(shares),
                _METRICS: self._metrics.path,
            },
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(*inherited, shares) if lock is None else (*inherited, shares, lock),
            # A Ctrl-C in the terminal reaches the supervisor alone, which passes it on once.
            start_new_session=True,
        )


async def _first_line(channel: socket.socket) -> str | None:
    """Return what the worker says when it listens; None if it ended before."""
    loop = asyncio.get_running_loop()
    channel.setblocking(False)
    said = bytearray()
    while not said.endswith(b"\n"):
        try:
            part = await loop.sock_recv(channel, 4096)
        except ConnectionError:
            return None
        if not part:
            return None
        said += part
    return said.decode().rstrip("\n")
