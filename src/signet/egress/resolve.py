"""Names to addresses, once per connection, by our own questions to the name servers.

Absolute names only (no search list), A and AAAA together, CNAME chains followed at most eight
steps within the answer; answers are kept for their TTL, between 1 and 60 seconds, and many who
ask for one name at one time make one question. What comes back is unjudged: see `address.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Literal, Protocol
from weakref import WeakValueDictionary

import aiodns
import pycares

from signet.egress.outcome import NotSentCode
from signet.egress.target import IPAddress

QueryKind = Literal["A", "AAAA"]

MAX_CNAME_STEPS: Final = 8
MIN_TTL_S: Final = 1
MAX_TTL_S: Final = 60
_MAX_CACHED_NAMES: Final = 4096
_NO_SUCH_RECORDS: Final = frozenset({1, 4})  # ares.h: ARES_ENODATA, ARES_ENOTFOUND
_LOOPBACK: Final = (IPv4Address("127.0.0.1"), IPv6Address("::1"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record of an answer section: `value` is an address or, for a CNAME, a name."""

    owner: str
    kind: Literal["A", "AAAA", "CNAME"]
    value: str
    ttl_s: int


class LookupFailed(Exception):
    """A name yielded no addresses; `code` says whether it has none or nobody would say."""

    def __init__(self, code: NotSentCode) -> None:
        super().__init__(code.value)
        self.code = code


class Resolver(Protocol):
    """Asks a name server one question.

    `query` returns the answer section as it came, foreign records and all, and nothing if the name
    or the type does not exist; it raises `LookupFailed` if no usable answer came. The caller
    bounds the time.
    """

    async def query(self, name: str, kind: QueryKind) -> Sequence[Record]: ...

    async def aclose(self) -> None: ...


class DNSResolver:
    """The system's name servers, asked through c-ares. `servers` replaces them for a test."""

    def __init__(self, *, servers: Sequence[str] | None = None, port: int | None = None) -> None:
        # Made on first use: c-ares wants the running loop, and many clients never ask a name.
        self._servers = servers
        self._port = port
        self._resolver: aiodns.DNSResolver | None = None

    async def query(self, name: str, kind: QueryKind) -> Sequence[Record]:
        try:
            if self._resolver is None:
                self._resolver = aiodns.DNSResolver(
                    self._servers, timeout=2.0, tries=2, udp_port=self._port, tcp_port=self._port
                )
            result = await self._resolver.query_dns(name + ".", kind)
        except aiodns.error.DNSError as error:
            if error.args and error.args[0] in _NO_SUCH_RECORDS:
                return ()
            raise LookupFailed(NotSentCode.RESOLUTION_FAILED) from error
        except pycares.AresError as error:  # no channel could be made
            raise LookupFailed(NotSentCode.RESOLUTION_FAILED) from error
        return [record for record in map(_record, result.answer) if record is not None]

    async def aclose(self) -> None:
        if self._resolver is not None:
            await self._resolver.close()
            self._resolver = None


@dataclass(frozen=True, slots=True)
class _Answer:
    addresses: tuple[IPAddress, ...] = ()
    ttl_s: int = MIN_TTL_S
    failure: NotSentCode | None = None


class Names:
    """The addresses of names, each asked once however many wait for it. Belongs to one loop."""

    def __init__(self, resolver: Resolver, clock: Callable[[], float]) -> None:
        self._resolver = resolver
        self._clock = clock
        self._cache: dict[str, tuple[float, _Answer]] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def addresses(self, host: str) -> tuple[IPAddress, ...]:
        """Return every address of `host`, IPv4 first. Raises `LookupFailed`; bound it in time."""
        if host == "localhost" or host.endswith(".localhost"):
            return _LOOPBACK  # RFC 6761 §6.3: these names are never asked on the network
        lock = self._locks.get(host)
        if lock is None:
            lock = self._locks[host] = asyncio.Lock()
        # Whoever holds the lock asks; those who waited find the answer, or the failure, kept. If
        # the one who asks is cancelled by its own deadline, the next in line asks anew.
        async with lock:
            expires, answer = self._cache.get(host, (0.0, _Answer()))
            if expires <= self._clock():
                answer = await self._ask(host)
                self._keep(host, answer)
        if answer.failure is not None:
            raise LookupFailed(answer.failure)
        return answer.addresses

    async def aclose(self) -> None:
        await self._resolver.aclose()

    async def _ask(self, host: str) -> _Answer:
        async with asyncio.TaskGroup() as group:
            v4 = group.create_task(self._ask_kind(host, "A"))
            v6 = group.create_task(self._ask_kind(host, "AAAA"))
        answers = (v4.result(), v6.result())
        addresses = tuple(a for answer in answers for a in answer.addresses)
        if addresses:
            return _Answer(addresses, min(answer.ttl_s for answer in answers if answer.addresses))
        # Half an answer will do to connect, but not to say that a name has no address.
        failures = (answer.failure for answer in answers)
        return _Answer(failure=next((f for f in failures if f), NotSentCode.NO_RESOLUTION))

    async def _ask_kind(self, host: str, kind: QueryKind) -> _Answer:
        try:
            return _follow(host, kind, await self._resolver.query(host, kind))
        except LookupFailed as error:
            return _Answer(failure=error.code)

    def _keep(self, host: str, answer: _Answer) -> None:
        self._cache.pop(host, None)
        self._cache[host] = (self._clock() + answer.ttl_s, answer)
        if len(self._cache) > _MAX_CACHED_NAMES:
            del self._cache[next(iter(self._cache))]


def _follow(host: str, kind: QueryKind, records: Sequence[Record]) -> _Answer:
    """Walk the CNAME chain from `host` and take the addresses at its end, and no others."""
    aliases = {_fold(r.owner): r for r in records if r.kind == "CNAME"}
    name, ttl_s = _fold(host), MAX_TTL_S
    for _ in range(MAX_CNAME_STEPS + 1):
        alias = aliases.get(name)
        if alias is None:
            break
        name, ttl_s = _fold(alias.value), min(ttl_s, alias.ttl_s)
    else:
        raise LookupFailed(NotSentCode.RESOLUTION_FAILED)
    addresses: list[IPAddress] = []
    for record in records:
        if record.kind == kind and _fold(record.owner) == name:
            addresses.append(_address(record.value, kind))
            ttl_s = min(ttl_s, record.ttl_s)
    return _Answer(tuple(addresses), max(MIN_TTL_S, ttl_s))


def _address(text: str, kind: QueryKind) -> IPAddress:
    try:
        return IPv4Address(text) if kind == "A" else IPv6Address(text)
    except ValueError as error:
        raise LookupFailed(NotSentCode.RESOLUTION_FAILED) from error


def _fold(name: str) -> str:
    return name.lower().removesuffix(".")


def _record(record: pycares.DNSRecord) -> Record | None:
    match record.data:
        case pycares.ARecordData(addr=value):
            kind = "A"
        case pycares.AAAARecordData(addr=value):
            kind = "AAAA"
        case pycares.CNAMERecordData(cname=value):
            kind = "CNAME"
        case _:
            return None
    return Record(owner=str(record.name), kind=kind, value=str(value), ttl_s=record.ttl)
