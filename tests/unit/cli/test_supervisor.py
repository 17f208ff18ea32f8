"""What a worker is left by its supervisor; whole gateways are in tests/acceptance."""

from __future__ import annotations

import os
import socket
from contextlib import closing

from signet.cli.supervisor import take_place


def test_no_place() -> None:
    """Without all that a supervisor leaves, a process serves for itself."""
    assert take_place({}) is None
    assert take_place({"SIGNET_WORKER_SLOT": "1"}) is None


def test_place_is_taken() -> None:
    """A worker finds its slot and sockets, and what it starts inherits none of them."""
    listener, (ours, theirs) = socket.create_server(("127.0.0.1", 0)), socket.socketpair()
    address = listener.getsockname()
    environ = {
        "SIGNET_WORKER_SLOT": "3",
        "SIGNET_WORKER_SOCKETS": f"{listener.detach()},{theirs.detach()}",
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


def test_supervisor_that_is_gone() -> None:
    """Telling a supervisor that has died is no error: the end of file says so soon enough."""
    listener, (ours, theirs) = socket.create_server(("127.0.0.1", 0)), socket.socketpair()
    numbers = f"{listener.detach()},{theirs.detach()}"
    environ = {
        "SIGNET_WORKER_SLOT": "0",
        "SIGNET_WORKER_SOCKETS": numbers,
        "SIGNET_WORKER_METRICS": "/tmp",
    }
    place = take_place(environ)
    assert place is not None
    with closing(place.listener), closing(place.supervisor):
        ours.close()
        place.listening("too late")
