"""The audit log: who did what, when, and what came of it, in one hash chain per tenant.

An entry never holds a payload, an API key or another secret. `docs/reference/audit.md` has the
format; `signet audit verify` checks it offline.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from signet.core.ids import TenantId
from signet.core.values import value_class
from signet.receipts.audit import PRUNED
from signet.receipts.canonical import (
    Json,
    canonicalize,
    content_id,
    parse_for_verification,
    simple_bytes,
)
from signet.receipts.receipt import timestamp

SYSTEM: Final = TenantId("_system")
"""The chain of what concerns the deployment rather than one tenant."""
RETENTION: Final = "_retention"
"""Who acts when something is removed because of its age."""

_VERSION: Final = 1
_MAX_TEXT: Final = 256
_MAX_STATE_BYTES: Final = 16_384


@value_class
class Origin:
    """Where a request came from. `address` is None where addresses are not to be kept."""

    request_id: str
    address: str | None
    received_us: int


@value_class
class Entry:
    """One entry before it has its place in the chain of `tenant`.

    `actor` is the id of the key that acted, never the key; what the gateway does by itself is done
    by `_recovery` or another name with `_` in front. `code` is `ok` or a problem's code. An entry
    with a `count` above one stands for as many equal attempts within one second.
    """

    tenant: TenantId
    ts_us: int
    actor: str
    action: str
    object: str | None = None
    code: str = "ok"
    count: int = 1
    receipt_hash: str | None = None
    latency_us: int | None = None
    request_id: str | None = None
    address: str | None = None
    before: Json = None
    after: Json = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """An administrative change; storage writes it in the transaction that makes the change.

    `tenant` is the one concerned, `SYSTEM` where the whole deployment is. `action` is a noun and a
    verb (`tenant.create`). `before` and `after` are the object's state without secrets, None where
    there is none.
    """

    actor: str
    tenant: TenantId
    action: str
    object: str
    before: Json = None
    after: Json = None
    origin: Origin | None = None

    def entry(self, now_us: int) -> Entry:
        """Return the entry of this change, made now."""
        origin = self.origin
        return Entry(
            tenant=self.tenant,
            ts_us=now_us,
            actor=self.actor,
            action=self.action,
            object=self.object,
            latency_us=None if origin is None else max(now_us - origin.received_us, 0),
            request_id=None if origin is None else origin.request_id,
            address=None if origin is None else origin.address,
            before=_bounded(self.before),
            after=_bounded(self.after),
        )


def pruned(tenant: TenantId, first_seq: int, last: bytes, now_us: int) -> Entry:
    """Return the entry that stands for what retention removes: `first_seq` to the entry `last`.

    By it a verifier knows that the chain's beginning was removed and not lost.
    """
    members = parse_for_verification(last)
    assert isinstance(members, dict), "it was sealed as an object"
    return Entry(
        tenant=tenant,
        ts_us=now_us,
        actor=RETENTION,
        action=PRUNED,
        object=f"{first_seq}-{members['seq']}",
        after={"through_seq": members["seq"], "entry_hash": members["entry_hash"]},
    )


class SealedEntry(NamedTuple):
    """An entry in its place: its canonical bytes, and the hash that the next one names."""

    body: bytes
    entry_hash: str


def seal_entry(entry: Entry, *, seq: int, prev_entry_hash: str | None) -> SealedEntry:
    """Return the entry as number `seq` of its chain, behind `prev_entry_hash` (None: the first).

    `entry_hash` is SHA-256 of the JCS (RFC 8785) of all other members. Raises `CanonicalError` for
    a state that no JSON can say.
    """
    # Two halves, cut where `entry_hash` belongs in the order of names, so that what is hashed is
    # what is stored, and nothing is serialised twice. Only a state may hold floats, or names that
    # are not ours.
    written = simple_bytes if entry.before is None and entry.after is None else canonicalize
    head = written(
        {
            "action": entry.action,
            "actor": entry.actor,
            "address": entry.address,
            "after": entry.after,
            "before": entry.before,
            "code": entry.code,
            "count": entry.count,
        }
    )[:-1]
    tail = simple_bytes(
        {
            "latency_us": entry.latency_us,
            "object": _plain(entry.object) if entry.object else None,
            "prev_entry_hash": prev_entry_hash,
            "receipt_hash": entry.receipt_hash,
            "request_id": entry.request_id,
            "seq": seq,
            "tenant": entry.tenant,
            "ts": timestamp(entry.ts_us),
            "v": _VERSION,
        }
    )[1:]
    entry_hash = content_id(b"%b,%b" % (head, tail))
    body = b'%b,"entry_hash":"%b",%b' % (head, entry_hash.encode("ascii"), tail)
    return SealedEntry(body, entry_hash)


def read_time(text: str) -> int:
    """Return the microseconds UTC of an RFC 3339 time, or of the beginning of a date.

    Raises `ValueError`.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _plain(text: str) -> str:
    """A text of a request, so that no request can make an entry large or impossible to write."""
    return text[:_MAX_TEXT].encode("utf-8", "replace").decode("utf-8")


def _bounded(state: Json) -> Json:
    """The state itself, or where it is large its name: a document may be a megabyte."""
    if state is None:
        return None
    written = canonicalize(state)
    if len(written) <= _MAX_STATE_BYTES:
        return state
    return {"cid": content_id(written), "size_bytes": len(written)}
