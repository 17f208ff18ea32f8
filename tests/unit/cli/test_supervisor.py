"""What a worker is left by its supervisor; whole gateways are in tests/acceptance."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from signet.cli.sharing import Share, Shares, open_shares
from signet.cli.supervisor import Supervisor, take_place
from signet.telemetry.logs import build_logger
from signet.telemetry.metrics_directory import open_metrics_directory


@pytest.fixture
def shares() -> Iterator[Shares]:
    """Counts for four workers, whose descriptor is given away."""
    with open_shares(4) as counts:
        given = Shares(os.dup(counts.descriptor))
        yield given
        with suppress(OSError):  # a worker closes what it takes
            os.close(given.descriptor)


def test_no_place() -> None:
    """Without all that a supervisor leaves, a process serves for itself."""
    assert take_place({}) is None
    assert take_place({"SIGNET_WORKER_SLOT": "1"}) is None


def test_place_is_taken(shares: Shares) -> None:
    """A worker finds its slot and sockets, and what it starts inherits none of them."""
    listener, (ours, theirs) = socket.create_server(("127.0.0.1", 0)), socket.socketpair()
    address = listener.getsockname()
    environ = {
        "SIGNET_WORKER_SLOT": "3",
        "SIGNET_WORKER_SOCKETS": f"{listener.detach()},{theirs.detach()}",
        "SIGNET_WORKER_SHARES": str(shares.descriptor),
        "SIGNET_WORKER_METRICS": "/tmp/metrics",
        "HOME": "/",
    }
    place = take_place(environ)
    assert place is not None
    with closing(ours), closing(place.listener), closing(place.supervisor):
        assert place.slot == 3
        assert place.metrics_dir == "/tmp/metrics"
        assert environ == {"HOME": "/"}
        assert place.listener.getsockname() == address
        assert not os.get_inheritable(place.listener.fileno())
        place.listening("signet on http://127.0.0.1:1")
        assert ours.recv(100) == b"signet on http://127.0.0.1:1\n"


def test_supervisor_that_is_gone(shares: Shares) -> None:
    """Telling a supervisor that has died is no error: the end of file says so soon enough."""
    listener, (ours, theirs) = socket.create_server(("127.0.0.1", 0)), socket.socketpair()
    numbers = f"{listener.detach()},{theirs.detach()}"
    environ = {
        "SIGNET_WORKER_SLOT": "0",
        "SIGNET_WORKER_SOCKETS": numbers,
        "SIGNET_WORKER_SHARES": str(shares.descriptor),
        "SIGNET_WORKER_METRICS": "/tmp",
    }
    place = take_place(environ)
    assert place is not None
    with closing(place.listener), closing(place.supervisor):
        ours.close()
        place.listening("too late")


class Short(Supervisor):
    """A supervisor whose workers have five connections and die."""

    async def _run_worker(self, slot: int) -> int:
        Share(self._shares.descriptor, slot).tell(5)
        return 1


def test_nothing_is_left_to_the_dead(shares: Shares) -> None:
    """The slot of a worker that has died is vacant, as those are in which none has been."""
    counts = Share(shares.descriptor, 2)
    counts.tell(1000)
    with open_metrics_directory() as metrics, socket.socket() as listener:
        supervisor = Short(
            listener=listener,
            shares=shares,
            workers=1,
            stop_s=1.0,
            metrics=metrics,
            log=build_logger("error"),
        )
        assert asyncio.run(supervisor.run()) == 1
    assert not counts.is_ahead()
