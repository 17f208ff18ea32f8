"""Idempotency keys: what is known about one, and claims for exchanges that will do network work.

A claim is taken in its own short transaction before anything leaves the process (EXCHANGE: two
transactions around the network) and is closed by `commit_exchanges` under the same fence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from signet.storage.exchanges import Known
from signet.storage.tx import ReadTx, Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A wish to act under a key.

    `owner` names the process (boot id, pid and start time) so that recovery can prove it dead.
    `lease_us` must exceed the whole deadline of the network work. `intent` is what recovery needs
    to write the receipt. `spends_key` holds for a forward: the key then never acts again, even
    after its answer has expired.
    """

    tenant: str
    trace_id: str
    key_hash: bytes
    fingerprint: bytes
    owner: str
    lease_us: int
    intent: bytes
    spends_key: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """The key is ours until `lease_until_us` on the database's clock, under this fence."""

    fence: int
    lease_until_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """A claim that recovery has taken over, to be closed under the new `fence`."""

    tenant: str
    trace_id: str
    key_hash: bytes
    fingerprint: bytes
    owner: str
    intent: bytes
    fence: int
    claimed_us: int


async def lookup(tx: ReadTx, tenant: str, key_hash: bytes, fingerprint: bytes) -> Known | None:
    """What is known about a key; None: it is free. Run it with `read_current`.

    Only a hint that spares work: `commit_exchanges` and `claim` decide.
    """
    raise NotImplementedError


async def claim(tx: Tx, wish: Claim) -> Claimed | Known:
    """Take the key, or say why not. Never send anything before this has been acknowledged."""
    raise NotImplementedError


async def renew(tx: Tx, tenant: str, key_hash: bytes, fence: int, lease_us: int) -> bool:
    """Lengthen the lease from now on; False: recovery was first, stop before the next byte."""
    raise NotImplementedError


async def release(tx: Tx, tenant: str, key_hash: bytes, fence: int) -> bool:
    """Give the key back as if never claimed; only when it is certain that nothing was sent.

    False: the claim is no longer ours.
    """
    raise NotImplementedError


async def owners(tx: ReadTx) -> list[str]:
    """Whoever holds open claims, so that the caller can find out which of them are dead."""
    raise NotImplementedError


async def take_expired(
    tx: Tx, *, owner: str, lease_us: int, limit: int, dead: Sequence[str] = ()
) -> list[Orphan]:
    """Take over claims whose lease has ended, or whose owner is in `dead`; raises their fences.

    Several recoverers may run at once: no claim is given to two of them.
    """
    raise NotImplementedError


async def purge_answers(tx: Tx, before_us: int, limit: int) -> int:
    """Forget up to `limit` answers of receipts older than `before_us`; how many went.

    The keys become free again, except those that claimed a forward: they stay spent.
    """
    raise NotImplementedError
