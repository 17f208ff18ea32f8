"""The outside world of one chapter: a payment service that loses its answers, and a trap.

A gateway of its own runs beside it in this process, because its egress client is built with the
seams below the validation: names are answered here, one public address leads to loopback, and one
test certificate authority is trusted. No rule is relaxed for it; the rules are what is shown.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import ssl
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from signet.app import open_gateway
from signet.egress.client import EgressClient
from signet.egress.resolve import QueryKind, Record
from signet.egress.target import IPAddress
from signet.egress.transport import dial
from signet.receipts.keys import SigningKey
from signet.settings import read_settings

SHOP: Final = "payments.example.com"
TRAP: Final = "metadata.example.net"
METADATA: Final = "169.254.169.254"

_PUBLIC: Final = "93.184.215.14"
_START_S: Final = 120.0
_TTL_S: Final = 60


@dataclass(slots=True)
class Outside:
    """What runs while the chapter is told: where its gateway listens, and what was charged."""

    api_key: str
    address: tuple[str, int] = ("127.0.0.1", 0)
    charges: int = 0
    connections: int = 0
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _loop: asyncio.AbstractEventLoop | None = None
    _up: threading.Event = field(default_factory=threading.Event)
    _failure: BaseException | None = None

    async def serve(self, directory: Path) -> None:
        """Run the shop and the gateway until told to stop."""
        self._loop = asyncio.get_running_loop()
        trust, tls = _test_authority(directory)
        shop = await asyncio.start_server(self._charge, "127.0.0.1", 0, ssl=tls)
        port: int = shop.sockets[0].getsockname()[1]
        keys = {self.api_key: {"tenant": "acme", "allowlist": [SHOP, TRAP]}}
        settings = read_settings(
            {
                "SP_DATA_DIR": str(directory),
                "SP_PRIVATE_KEY_B64": SigningKey.generate().seed_b64,
                "SP_API_KEYS": json.dumps(keys),
                "SP_LOG_LEVEL": "error",
            }
        ).settings
        sender = EgressClient(resolver=_Names(), dialler=_Dialler(port), trust=trust)
        listener = socket.create_server(self.address)
        self.address = listener.getsockname()[:2]
        async with shop, open_gateway(settings, sender=sender) as gateway:
            config = uvicorn.Config(gateway.asgi, lifespan="off", log_config=None, ws="none")
            server = uvicorn.Server(config)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(server.serve([listener]))
                self._up.set()
                await self._stopping.wait()
                server.should_exit = True

    async def _charge(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one request, charge for it, and hang up before the answer."""
        self.connections += 1
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.partition(b":")[2])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        )
        await reader.readexactly(length)
        self.charges += 1
        writer.transport.abort()

    def run(self, directory: Path) -> None:
        """Serve in a thread of its own; `open_outside` reads what failed."""
        try:
            asyncio.run(self.serve(directory))
        except BaseException as error:
            self._failure = error
        finally:
            self._up.set()

    def await_start(self) -> None:
        """Return once the gateway listens; raise what kept it from that."""
        self._up.wait(_START_S)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """End `serve`."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stopping.set)


@contextmanager
def open_outside(directory: Path) -> Generator[Outside]:
    """Run the shop, the trap and the gateway between us and them until the block ends."""
    directory.mkdir()
    outside = Outside(api_key=secrets.token_urlsafe(24))
    thread = threading.Thread(target=outside.run, args=(directory,), name="demo-outside")
    thread.start()
    try:
        outside.await_start()
        yield outside
    finally:
        outside.stop()
        thread.join(_START_S)


class _Names:
    """Answers as a name server would: the shop is public, the trap names an inside address."""

    async def query(self, name: str, kind: QueryKind) -> Sequence[Record]:
        """Return the address of a name."""
        value = {SHOP: _PUBLIC, TRAP: METADATA}.get(name)
        if kind != "A" or value is None:
            return ()
        return (Record(owner=name, kind="A", value=value, ttl_s=_TTL_S),)

    async def aclose(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True, slots=True)
class _Dialler:
    """Leads the shop's public address to where the shop really listens."""

    port: int

    async def __call__(
        self, address: IPAddress, port: int
    ) -> tuple[socket.socket, tuple[str, int]]:
        """Connect to loopback in the place of `address`."""
        sock, _ = await dial(ip_address("127.0.0.1"), self.port)
        return sock, (str(address), port)


def _test_authority(directory: Path) -> tuple[str, ssl.SSLContext]:
    """Return a certificate to trust, and a server's context that shows it for the shop."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "signet demo")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(SHOP)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    chain = directory / "shop.pem"
    chain.write_bytes(private + pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return pem.decode("ascii"), context
