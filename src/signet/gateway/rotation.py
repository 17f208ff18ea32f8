"""Changing the signing key: announce, switch, and say so in a public chain of receipts.

The receipts of kind `key` are the trace `signet.keys` of the reserved tenant `_system`. That of a
rotation is signed by the new key and by the one before it, so that whoever trusts the old key can
follow to the new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from signet.core.audit import SYSTEM, Change
from signet.core.billing import period_of
from signet.core.errors import SignetError
from signet.gateway.ports import Dice
from signet.gateway.signing import JWKS_CACHE_S, LEAST_LEAD_S, HeldKey, signer_at
from signet.receipts.canonical import Json
from signet.receipts.keys import SigningKey
from signet.receipts.receipt import KEY_TENANT, KEY_TRACE, RECEIPT_TYP, seal, timestamp
from signet.storage import keys as stored
from signet.storage.audit import record_change
from signet.storage.database import Database
from signet.storage.exchanges import (
    Answer,
    Committed,
    Head,
    PendingExchange,
    Sealed,
    commit_exchanges,
)
from signet.storage.keys import StoredKey
from signet.storage.tx import ReadTx, Tx

OVERLAP_S: Final = 60
"""How long after its last signature a retired key's signatures still count. A node whose clock is
behind, or that heard of the switch late, makes none that fail."""

_SECOND_US: Final = 1_000_000


class KeyChangeRefused(SignetError):
    """The change would leave receipts unsigned or in doubt; the message says what to do first."""

    code = "key_change_refused"


class KeyUnknown(SignetError):
    """No key of this kid was ever published here."""

    code = "key_not_found"


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """A rotation that is announced: `kid` signs from `signs_from_us` on."""

    kid: str
    previous: str
    signs_from_us: int
    receipt_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A key that was retired or revoked at `at_us`."""

    kid: str
    at_us: int
    receipt_hash: str


State = Literal["next", "scheduled", "signing", "retired", "revoked"]
"""`next` is published and signs nothing yet; `scheduled` has its day to begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A key as an operator sees it."""

    key: StoredKey
    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """The use cases behind `signet keys`. `actor` is who the audit log names."""

    database: Database
    issuer: str
    dice: Dice
    actor: str

    async def listing(self) -> list[Listed]:
        """Return every key with what it does now, the oldest first."""
        return await self.database.read_current(_listing)

    async def rotate(
        self, new: HeldKey, previous: HeldKey | None, *, lead_s: int | None = None
    ) -> Switch:
        """Announce that `new` signs in `lead_s` seconds, and `previous` until then.

        Without `lead_s` it is as soon as every verifier's copy of the key set holds the new key.
        `previous` is None only where the key in force is lost: nobody vouches for the new one
        then. Raises `KeyChangeRefused`.
        """
        return await self.database.transact(self._rotate, new, previous, lead_s)

    async def retire(self, kid: str, by: SigningKey) -> Ended:
        """Put a key aside that is published and was never to sign. Raises `KeyChangeRefused`."""
        return await self.database.transact(self._end, kid, by, "retired")

    async def revoke(self, kid: str, by: SigningKey) -> Ended:
        """Say that a key is not to be trusted from now on. Raises `KeyChangeRefused`."""
        return await self.database.transact(self._end, kid, by, "revoked")

    async def _rotate(
        self, tx: Tx, new: HeldKey, previous: HeldKey | None, lead_s: int | None
    ) -> Switch:
        await stored.take_turn(tx)
        now_us = await tx.now_us()
        keys = await stored.published(tx)
        current = _may_follow(keys, new.signing.kid, now_us)
        if previous is not None and previous.signing.kid != current.kid:
            raise KeyChangeRefused(f"the key in force is {current.kid}; rotate where it is held")
        standing_by = {key.kid: key for key in keys}.get(new.signing.kid)
        if lead_s is None and previous is None:
            lead_s = LEAST_LEAD_S  # nobody can sign until then
        elif lead_s is None:
            waited_us = 0 if standing_by is None else now_us - standing_by.created_us
            lead_s = max(JWKS_CACHE_S - waited_us // _SECOND_US, LEAST_LEAD_S)
        # Verifiers count in whole seconds.
        began_us = now_us // _SECOND_US * _SECOND_US
        switch_us = began_us + (lead_s + 1) * _SECOND_US
        await stored.publish(tx, new.published(now_us, nbf_us=began_us))
        await stored.begin(tx, new.signing.kid, signs_from_us=switch_us)
        exp_us = switch_us + OVERLAP_S * _SECOND_US
        await stored.retire(tx, current.kid, retired_us=switch_us, exp_us=exp_us)
        told: dict[str, Json] = {
            "event": "rotated",
            "kid": new.signing.kid,
            "previous": None if previous is None else current.kid,
            "signs_from": timestamp(switch_us),
            "previous_exp": timestamp(exp_us),
        }
        sealed = await self._receipted(tx, now_us, told, new.signing)
        if previous is not None:
            jws = previous.signing.jws(sealed.canonical, typ=RECEIPT_TYP)
            await stored.countersign(tx, sealed.receipt_hash, jws)
        change = self._change("signing_key.rotate", new.signing.kid, told)
        await record_change(tx, change)
        return Switch(
            kid=new.signing.kid,
            previous=current.kid,
            signs_from_us=switch_us,
            receipt_hash=sealed.receipt_hash,
        )

    async def _end(
        self, tx: Tx, kid: str, by: SigningKey, event: Literal["retired", "revoked"]
    ) -> Ended:
        await stored.take_turn(tx)
        now_us = await tx.now_us()
        keys = await stored.published(tx)
        key = next((key for key in keys if key.kid == kid), None)
        if key is None:
            raise KeyUnknown(f"no key {kid} was ever published here")
        current = signer_at(keys, now_us)
        if current is None or by.kid != current.kid:
            raise KeyChangeRefused("only the key in force can say this; do it where it is held")
        state = state_of(key, current, now_us)
        if state in ("signing", "scheduled"):
            raise KeyChangeRefused(
                "this key signs, or is to: rotate to another one, and wait for the switch"
            )
        # Times of a life are whole seconds. It is rounded up: what was signed so far stands.
        at_us = -(-now_us // _SECOND_US) * _SECOND_US
        if event == "retired":
            changed = await stored.retire(tx, kid, retired_us=at_us, exp_us=at_us)
        else:
            changed = await stored.revoke(tx, kid, at_us)
        if not changed:
            raise KeyChangeRefused(f"the key was {event} before")
        told: dict[str, Json] = {"event": event, "kid": kid, f"{event}_at": timestamp(at_us)}
        sealed = await self._receipted(tx, now_us, told, by)
        verb = "retire" if event == "retired" else "revoke"
        await record_change(tx, self._change(f"signing_key.{verb}", kid, told))
        return Ended(kid=kid, at_us=at_us, receipt_hash=sealed.receipt_hash)

    def _change(self, action: str, kid: str, told: dict[str, Json]) -> Change:
        return Change(actor=self.actor, tenant=SYSTEM, action=action, object=kid, after=told)

    async def _receipted(
        self, tx: Tx, now_us: int, told: dict[str, Json], by: SigningKey
    ) -> Sealed:
        """Append what happened to the chain of the keys, in the same transaction."""

        def seal_it(_pending: PendingExchange, head: Head | None) -> Sealed:
            hop = head.hop + 1 if head else 1
            members: dict[str, Json] = {
                "v": 1,
                "iss": self.issuer,
                "trace_id": KEY_TRACE,
                "hop": hop,
                "prev_receipt_hash": head.receipt_hash if head else None,
                "ts": timestamp(now_us),
                "tenant": KEY_TENANT,
                "kind": "key",
                "algo": "sha256",
                "nonce": self.dice(16).hex(),
                "key": told,
            }
            receipt = seal(members, by)
            return Sealed(
                hop=hop,
                ts_us=now_us,
                receipt_hash=receipt.receipt_hash,
                canonical=receipt.canonical,
                jws=receipt.jws,
                kind="key",
                outcome="",
                vex_units=0,
                fu_tokens=0,
                period=period_of(now_us, "UTC").name,
                answer=_NOBODY_ASKED,
            )

        pending = PendingExchange(tenant=KEY_TENANT, trace_id=KEY_TRACE, kind="key", key_hash=None)
        (result,) = await commit_exchanges(tx, [pending], seal_it)
        assert isinstance(result, Committed), "it has no idempotency key and expects no head"
        return result.sealed


_NOBODY_ASKED: Final = Answer(status=0, content_type="", body=b"")


def state_of(key: StoredKey, current: StoredKey | None, now_us: int) -> State:
    """Return what a key does now, where `current` signs."""
    if key.revoked_us is not None:
        return "revoked"
    if current is not None and key.kid == current.kid:
        return "signing"
    if key.signs_from_us is None:
        return "next" if key.retired_us is None else "retired"
    return "scheduled" if key.signs_from_us > now_us else "retired"


async def _listing(tx: ReadTx) -> list[Listed]:
    now_us = await tx.now_us()
    keys = await stored.published(tx)
    current = signer_at(keys, now_us)
    return [Listed(key=key, state=state_of(key, current, now_us)) for key in keys]


def _may_follow(keys: Sequence[StoredKey], kid: str, now_us: int) -> StoredKey:
    """Return the key in force, which `kid` may take over from. Raises `KeyChangeRefused`."""
    current = signer_at(keys, now_us)
    if current is None:
        raise KeyChangeRefused("no key signs here yet: start the gateway first")
    for key in keys:
        if key.signs_from_us is not None and key.signs_from_us > now_us:
            moment = timestamp(key.signs_from_us)
            raise KeyChangeRefused(f"{key.kid} takes over at {moment} already; wait for that")
    if current.kid == kid:
        raise KeyChangeRefused("this key signs already; the next one must be another")
    known = {key.kid: key for key in keys}.get(kid)
    if known is not None and (known.signs_from_us, known.retired_us, known.revoked_us) != (
        None,
        None,
        None,
    ):
        raise KeyChangeRefused("a key that has signed or was put aside never signs again")
    return current
