"""One run of the fault suite: a forward whose sender ends at a step, and what must hold afterwards.

the upstream saw at most one request per key (two, alike, where it is declared idempotent)
every key ends in exactly one `exchange` receipt, in a chain that verifies
a retry with the same key tells that receipt and sends nothing more
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
from tests.egress.stage import Authority
from tests.faults.sender import FALLBACK_S, Orders, Step
from tests.inprocess import signing_key

from signet.receipts.keys import KeySet
from signet.receipts.verify import verify_chain

WAIT_S = 240.0
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"charged":"yes"}'

# What a retry finds after a crash at each step: HTTP status, and how often upstream was asked.
AFTERWARDS: dict[Step, tuple[int, int]] = {
    "before intent": (200, 1),
    "intent written, not committed": (200, 1),
    "after intent": (504, 0),
    "before first byte": (504, 0),
    "in the middle of the body": (504, 0),
    "request read": (504, 1),
    "after the answer": (504, 1),
    "before commit": (504, 1),
    "receipt written, not committed": (504, 1),
    "after commit": (200, 1),
}


class Receiver:
    """A TLS receiver in threads that counts whole requests by their idempotency key."""

    def __init__(self, authority: Authority) -> None:
        self._tls = authority.issue()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.whole: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
        self.on_head: Callable[[], None] | None = None
        self.on_request: Callable[[], None] | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                raw, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        raw.settimeout(WAIT_S)
        with suppress(OSError, ssl.SSLError), self._tls.wrap_socket(raw, server_side=True) as peer:
            while True:
                data = b""
                while b"\r\n\r\n" not in data:
                    piece = peer.recv(4096)
                    if not piece:
                        return
                    data += piece
                head, _, body = data.partition(b"\r\n\r\n")
                if self.on_head is not None:
                    self.on_head()
                    return
                lines = [line.split(": ", 1) for line in head.decode().split("\r\n")[1:]]
                headers = {name.lower(): value for name, value in lines}
                while len(body) < int(headers["content-length"]):
                    piece = peer.recv(65536)
                    if not piece:
                        return
                    body += piece
                self.whole[headers["idempotency-key"]] += 1
                self.headers.append(headers)
                if self.on_request is not None:
                    self.on_request()
                    return
                peer.sendall(ANSWER)


@contextmanager
def receiver(authority: Authority) -> Iterator[Receiver]:
    """A receiver for the block."""
    opened = Receiver(authority)
    try:
        yield opened
    finally:
        opened.close()


class Sender:
    """One process of tests.faults.sender."""

    def __init__(self, orders: Orders) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.sender"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(orders.text())
        self.process.stdin.close()

    def line(self) -> dict[str, Any]:
        """The next thing that it says."""
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        if not said:
            raise AssertionError(f"the sender said nothing: {self.complaint()}")
        return json.loads(said)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.send_signal(signal.SIGKILL)

    def wait(self) -> int:
        """Its exit code."""
        return self.process.wait(WAIT_S)

    def complaint(self) -> str:
        """What it wrote to standard error, once it has ended."""
        assert self.process.stderr is not None
        assert self.process.stdout is not None
        said = self.process.stdout.read() + self.process.stderr.read()
        return f"exit {self.process.returncode}: {said[-3000:]}"

    def close(self) -> None:
        """Leave nothing behind."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(WAIT_S)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


@contextmanager
def sender(orders: Orders) -> Iterator[Sender]:
    """A sender for the block; it ends with it."""
    started = Sender(orders)
    try:
        yield started
    finally:
        started.close()


def told(orders: Orders) -> dict[str, Any]:
    """Run a process to its end and return what it said."""
    with sender(orders) as process:
        said = process.line()
        assert process.wait() == 0
    return said


def killed(step: Step, directory: Path, authority: Authority, *, idempotent: bool = False) -> None:
    """Kill a sender at `step`, recover in a second process, and hold the promises."""
    with receiver(authority) as upstream:
        orders = Orders(
            directory=str(directory),
            receiver_port=upstream.port,
            authority=authority.pem,
            key="the-key",
            step=step,
            large=step == "in the middle of the body",
            idempotent=idempotent,
        )
        with sender(orders) as victim:
            if step == "in the middle of the body":
                upstream.on_head = victim.kill
            elif step == "request read":
                upstream.on_request = victim.kill
            assert victim.wait() == -signal.SIGKILL, f"it survived {step!r}: {victim.complaint()}"
        upstream.on_head = upstream.on_request = None
        sent_before = upstream.whole.total()
        assert told(replace(orders, key=None, step="none")) == {"recovered": True}
        said = told(replace(orders, step="none"))
        status, asked = AFTERWARDS[step]
        receipts = _receipts(directory)
        assert [receipt["kind"] for receipt in receipts] == ["exchange"]
        (receipt,) = receipts
        assert said["body"]["receipt"] == receipt
        if not idempotent:
            assert (said["status"], upstream.whole.total()) == (status, asked), said
            if status == 504:
                assert (receipt["outcome"], receipt["reason"]) == ("unknown", "SENDER_DIED")
        else:
            assert said["status"] == 200
            assert receipt["outcome"] == "allowed"
            assert upstream.whole.total() <= sent_before + 1
        assert len(upstream.whole) <= 1, "two idempotency keys for one call"


def paused(step: Step, directory: Path, authority: Authority, *, lease_more_s: float = 6.0) -> None:
    """Stop a sender until its lease is over and two recoverers have raced for it; then wake it."""
    with receiver(authority) as upstream:
        orders = Orders(
            directory=str(directory),
            receiver_port=upstream.port,
            authority=authority.pem,
            key="the-key",
            step=step,
            forward_s=10.0,
            lease_more_s=lease_more_s,
        )
        with sender(orders) as sleeper:
            assert sleeper.line() == {"paused": True}
            slept_from = time.monotonic()
            lease_s = orders.forward_s + FALLBACK_S + lease_more_s
            time.sleep(max(0.0, slept_from + lease_s + 0.2 - time.monotonic()))
            recover = replace(orders, key=None, step="none")
            with sender(recover) as one, sender(recover) as other:
                for racer in (one, other):
                    assert racer.line() == {"recovered": True}
                    assert racer.wait() == 0
            os.kill(sleeper.process.pid, signal.SIGCONT)
            late = sleeper.line()
            assert sleeper.wait() == 0
        said = told(replace(orders, step="none"))
        receipts = _receipts(directory)
        assert [receipt["kind"] for receipt in receipts] == ["exchange", "resolution"]
        exchange, resolution = receipts
        assert (exchange["outcome"], exchange["reason"]) == ("unknown", "SENDER_DIED")
        assert resolution["vex_units"] == 0
        assert late["status"] == said["status"] == 504
        assert late["body"]["receipt"] == said["body"]["receipt"] == exchange
        if step == "paused before first byte":
            assert upstream.whole.total() == 0
            assert resolution["outcome"] == "failed"
        else:
            assert upstream.whole.total() == 1
            assert resolution["outcome"] == "allowed"


def _receipts(directory: Path) -> list[dict[str, Any]]:
    """All receipts of the database, in the order written; their one chain verifies."""
    connection = apsw.Connection(str(directory / "signet.db"))
    rows = list(connection.execute("SELECT canonical, jws FROM receipts ORDER BY id"))
    open_claims = next(iter(connection.execute("SELECT count(*) FROM claims")))[0]
    connection.close()
    assert open_claims == 0
    key = signing_key()
    keys = KeySet.of([key.public])
    verify_chain([row[0] for row in rows], [row[1] for row in rows], jwks=keys)
    return [json.loads(row[0]) for row in rows]
