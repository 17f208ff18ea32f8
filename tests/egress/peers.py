"""Servers whose misbehaviour is a script: blocking sockets in threads of their own.

They share no event loop with the client, so that what they do costs it nothing and its CPU time
can be measured alone.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from typing import Self

Script = Callable[["Conversation"], None]


class Conversation:
    """One accepted connection as a script sees it."""

    def __init__(self, sock: socket.socket, peer: Peer) -> None:
        self.sock = sock
        self.peer = peer
        self.stopped = peer.stopped

    def start_tls(self, context: ssl.SSLContext) -> None:
        self.sock = context.wrap_socket(self.sock, server_side=True)

    def read_request(self) -> bytes:
        """Read one request whole, and note it."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._receive()
        head, _, body = data.partition(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        while len(body) < length:
            body += self._receive()
        self.peer.requests.append(head + b"\r\n\r\n" + body)
        return body

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send_forever(self, data: bytes, *, pause_s: float = 0.0) -> None:
        """Send `data` again and again until the client has had enough."""
        while not self.stopped.wait(pause_s):
            self.sock.sendall(data)

    def wait(self, seconds: float = 30.0) -> None:
        """Keep the connection open and say nothing."""
        self.stopped.wait(seconds)

    def close_notify(self) -> None:
        """End the TLS stream properly."""
        assert isinstance(self.sock, ssl.SSLSocket)
        self.sock.settimeout(1.0)
        self.sock.unwrap()

    def reset(self) -> None:
        """Send a TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _receive(self) -> bytes:
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionError("the client has gone")
        return data


class Peer:
    """A listening server on loopback that runs `script` for every connection."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.stopped = threading.Event()
        self._script = script
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self._threads: list[threading.Thread] = []

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stopped.set()
        for thread in self._threads:
            thread.join(timeout=300)
            assert not thread.is_alive()
        self._listener.close()

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.stopped.is_set():
            with contextlib.suppress(TimeoutError):
                sock, _ = self._listener.accept()
                self.connections += 1
                self._start(self._converse, sock)

    def _converse(self, sock: socket.socket) -> None:
        sock.settimeout(120.0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conversation = Conversation(sock, self)
        # A client that refuses the certificate or has had enough hangs up; that is the point.
        with contextlib.suppress(OSError):
            if self._tls is not None:
                conversation.start_tls(self._tls)
            self._script(conversation)
        with contextlib.suppress(OSError):
            conversation.sock.shutdown(socket.SHUT_RDWR)
        conversation.sock.close()
        sock.close()
