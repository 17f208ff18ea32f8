"""Fallback-unit quota: a hold is taken before the call and settled with what was really used.

The check and the reservation are one conditional statement, so concurrent callers never pass the
limit together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from signet.storage.tx import ReadTx, Tx


class Standing(NamedTuple):
    """How much of a period's quota is used and held."""

    used: int
    reserved: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The tokens are reserved under this id until it is settled or expires."""

    hold_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaExceeded:
    """Too little is left; `available` is what a smaller hold could still get."""

    available: int


class ExpiredHold(NamedTuple):
    """A hold whose owner did not settle it in time."""

    hold_id: str
    tenant: str
    period: str
    tokens: int


async def hold(
    tx: Tx, *, hold_id: str, tenant: str, period: str, tokens: int, limit: int, ttl_us: int
) -> Held | QuotaExceeded:
    """Reserve `tokens` of the tenant's `limit` for `period`. The same id again changes nothing."""
    raise NotImplementedError


async def settle(tx: Tx, hold_id: str, *, used: int, estimated: bool = False) -> bool:
    """Turn a hold into real usage, even beyond what was held: spent is spent.

    Idempotent by id: True the first time, False when it is already settled or unknown.
    """
    raise NotImplementedError


async def expired(tx: ReadTx, limit: int) -> list[ExpiredHold]:
    """Holds past their time, oldest first. Whoever reads this settles them."""
    raise NotImplementedError


async def standing(tx: ReadTx, tenant: str, period: str) -> Standing:
    """What a period's quota looks like now; zeros when nothing was ever held."""
    raise NotImplementedError
