"""The hot path: a batch of exchanges becomes receipts, heads, answers and usage in one go.

Each exchange is written whole or not at all; a conflict or a duplicate is a result for its own
caller and never an error for its neighbours (atomic per exchange, durable per batch).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from signet.storage.tx import Tx

ANY_PREV = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingExchange:
    """One exchange on its way into the log.

    `key_hash` (32 bytes) and `fingerprint` identify the call for idempotency within `tenant`; both
    None-able: a receipt that nobody can retry, such as a resolution, has no key. `expected_prev` is
    "any", None (it must begin the chain) or the hash the caller saw last. `fence` is the number its
    claim was given, None if it never claimed. `draft` is opaque here and handed to `seal`.
    """

    tenant: str
    trace_id: str
    kind: str = "exchange"
    key_hash: bytes | None
    fingerprint: bytes = b""
    expected_prev: str | None = ANY_PREV
    fence: int | None = None
    draft: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The newest receipt of a chain."""

    hop: int
    receipt_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the caller is told, byte for byte, now and at every replay."""

    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A receipt with everything that becomes durable together with it.

    `canonical` are the signed bytes. `jws` may be the detached form (`header..signature`), since
    `canonical` is its payload. `period` is the billing period that `vex_units` and `fu_tokens`
    count in. `payload` is kept under (tenant, `payload_cid`) so that it can be erased while the
    receipt stands; `payload_salt` is kept and erased with it.
    """

    hop: int
    ts_us: int
    receipt_hash: str
    canonical: bytes
    jws: str
    kind: str
    outcome: str
    vex_units: int
    fu_tokens: int
    period: str
    answer: Answer
    payload_cid: str | None = None
    payload: bytes | None = None
    payload_salt: bytes | None = None


Seal = Callable[[PendingExchange, Head | None], Sealed]
"""Builds, hashes and signs the receipt that follows `head` (None: hop 1). Pure: it may be called
again for the same exchange with another head when a transaction is repeated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """It is durable, and this is the only receipt of its key."""

    sealed: Sealed


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The same call was answered before; this is that answer."""

    answer: Answer
    receipt_hash: str
    trace_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyReused:
    """The key belongs to a call with another fingerprint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """The same call is being carried out; its claim ends in `retry_after_s` at the latest."""

    retry_after_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySpent:
    """The key once claimed a forward and its answer has expired: it never acts again."""

    receipt_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """The call was answered before, but its content has been erased; the receipt stands."""

    receipt_hash: str
    canonical: bytes
    jws: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainMoved:
    """The chain does not end where `expected_prev` says; `head` is where it ends."""

    head: Head | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceLost:
    """Recovery took the claim over; nothing was written. `receipt_hash` is the recovered receipt,
    if there is one by now."""

    receipt_hash: str | None


Known = Replay | KeyReused | InFlight | KeySpent | Erased
"""What can already be known about an idempotency key."""

Result = Committed | Known | ChainMoved | FenceLost


async def commit_exchanges(tx: Tx, batch: Sequence[PendingExchange], seal: Seal) -> list[Result]:
    """Write a batch; the results stand in the order of `batch`.

    The same key twice in one batch: the later one replays the first. Several exchanges of one trace
    chain in the order given.
    """
    raise NotImplementedError
