"""A stage for the egress client: names, certificates and TLS servers that can be made hostile.

Only what lies below the validation is replaced, through the constructor: names resolve to public
addresses, and the dialler leads those to loopback. No packet leaves the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from signet.egress import EgressClient, Limits, Outcome, Policy, Record, parse_target
from signet.egress.resolve import LookupFailed, QueryKind
from signet.egress.target import IPAddress

PUBLIC_IP = "93.184.215.14"
HOST = "api.example.com"
URL = f"https://{HOST}/hook"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Authority:
    """A certificate authority of its own, made anew for every test session."""

    def __init__(self, name: str = "Test CA") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=400))
            .not_valid_after(now + datetime.timedelta(days=400))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def issue(
        self,
        names: Iterable[str] = (HOST,),
        *,
        common_name: str = "leaf",
        not_before_days: int = -1,
        not_after_days: int = 30,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
        self_signed: bool = False,
        maximum: ssl.TLSVersion | None = None,
    ) -> ssl.SSLContext:
        """Return a server's TLS configuration with a fresh certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if self_signed else self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days=not_before_days))
            .not_valid_after(now + datetime.timedelta(days=not_after_days))
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        sans = [_general_name(name) for name in names]
        if sans:
            builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
        certificate = builder.sign(key if self_signed else self._key, hashes.SHA256())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if maximum is not None:
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            context.maximum_version = maximum
            context.set_ciphers("ALL:@SECLEVEL=0")
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "leaf.pem"
            path.write_bytes(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
                + certificate.public_bytes(serialization.Encoding.PEM)
            )
            context.load_cert_chain(path)
        return context


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class StaticNames:
    """A resolver that answers from a table: name -> addresses, records, or a failure."""

    def __init__(self, table: Mapping[str, Sequence[str | Record] | LookupFailed]) -> None:
        self.table = dict(table)
        self.asked: list[tuple[str, QueryKind]] = []

    async def query(self, name: str, kind: QueryKind) -> Sequence[Record]:
        self.asked.append((name, kind))
        await asyncio.sleep(0)
        entry = self.table.get(name, ())
        if isinstance(entry, LookupFailed):
            raise entry
        return [
            item if isinstance(item, Record) else address_record(name, item)
            for item in entry
            if isinstance(item, Record) or (":" in item) == (kind == "AAAA")
        ]

    async def aclose(self) -> None:
        pass


def address_record(owner: str, address: str, ttl_s: int = 60) -> Record:
    return Record(owner=owner, kind="AAAA" if ":" in address else "A", value=address, ttl_s=ttl_s)


class LoopbackDialler:
    """Leads public addresses to loopback ports and says that it reached the public ones."""

    def __init__(self) -> None:
        self.ports: dict[tuple[str, int], int] = {}
        self.dialled: list[tuple[str, int]] = []
        self.lie: tuple[str, int] | None = None

    async def __call__(
        self, address: IPAddress, port: int
    ) -> tuple[socket.socket, tuple[str, int]]:
        self.dialled.append((str(address), port))
        local = self.ports.get((str(address), port))
        if local is None:
            raise ConnectionRefusedError
        sock = socket.socket()
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", local))
        except BaseException:
            sock.close()
            raise
        return sock, self.lie or (str(address), port)


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read one request whole: its head and its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return head, await reader.readexactly(length)


def answering(response: bytes, *, close: bool = False) -> Handler:
    """Return a handler that answers every request of a connection with these bytes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(response)
            await writer.drain()
            if close:
                return

    return handle


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@dataclass(slots=True)
class Stage:
    """One client, its names and dialler, and the servers behind them."""

    authority: Authority
    names: StaticNames
    dialler: LoopbackDialler
    client: EgressClient
    servers: contextlib.AsyncExitStack
    connections: list[tuple[str, int]] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(
        self,
        handler: Handler,
        *,
        ip: str = PUBLIC_IP,
        port: int = 443,
        tls: ssl.SSLContext | None = None,
        plain: bool = False,
    ) -> None:
        """Put a server behind `ip`:`port`."""

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections.append((ip, port))
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            # A client that gives up in the middle, and the end of the test, are no faults.
            with contextlib.suppress(
                OSError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.CancelledError
            ):
                await handler(reader, writer)
                async with asyncio.timeout(10):
                    writer.close()
                    await writer.wait_closed()
            writer.transport.abort()
            self._tasks.discard(task)

        context = None if plain else tls or self.authority.issue()
        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
        self.dialler.ports[ip, port] = server.sockets[0].getsockname()[1]
        self.servers.callback(server.close)

    async def end(self) -> None:
        """Close everything, and wait for the servers' connections to notice."""
        await self.client.aclose()
        await self.servers.aclose()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=300)

    async def deserted(self) -> None:
        """Wait until the servers have ended every connection."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def send(self, url: str = URL, body: bytes = b"{}", **options: object) -> Outcome:
        """Send one request through the client."""
        headers = options.pop("headers", {})
        policy = options.pop("policy", None)
        assert policy is None or isinstance(policy, Policy)
        return await self.client.send(parse_target(url), body, headers, policy, **options)  # type: ignore[arg-type]


def patient(limits: Limits) -> Limits:
    """The same limits, with long times in place of the defaults."""
    usual = Limits()
    long = {"deadline_s": 30.0, "resolve_s": 30.0, "idle_s": 100.0, "max_age_s": 600.0}
    unset = {name: s for name, s in long.items() if getattr(limits, name) == getattr(usual, name)}
    return replace(limits, **unset)


@contextlib.asynccontextmanager
async def stage(
    authority: Authority,
    *,
    limits: Limits | None = None,
    names: Mapping[str, Sequence[str | Record] | LookupFailed] | None = None,
    trust: str | None = None,
) -> AsyncIterator[Stage]:
    """Set the stage: by default `HOST` resolves to `PUBLIC_IP`, and nothing listens there.

    Times that `limits` leaves as they are become long: a busy machine may stand still for seconds.
    """
    resolver = StaticNames(names if names is not None else {HOST: [PUBLIC_IP]})
    dialler = LoopbackDialler()
    client = EgressClient(
        resolver=resolver,
        dialler=dialler,
        trust=trust or authority.pem,
        limits=patient(limits or Limits()),
    )
    it = Stage(authority, resolver, dialler, client, contextlib.AsyncExitStack())
    try:
        yield it
    finally:
        await it.end()
