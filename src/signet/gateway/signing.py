"""Which key signs, and how the next one takes its turn (docs/adr/0075).

The database decides, by time: a key signs what carries a time from its `signs_from_us` on and
before its `retired_us`. Whoever signs picks the key by the very time that is written into the
document, so that a signature lies inside its key's life on whatever clock. What a process has read
of the database counts for `KNOWN_S`; a switch is always announced longer ahead than that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from signet.gateway.ports import Clock
from signet.receipts.keys import PublicKey, SigningKey
from signet.storage import keys as stored
from signet.storage.database import Database
from signet.storage.errors import StorageBusy
from signet.storage.keys import StoredKey
from signet.storage.tx import Tx

JWKS_CACHE_S: Final = 300
"""How long a verifier may keep the published keys; a new one is published that long ahead."""
KNOWN_S: Final = 8.0
"""How long a process signs by what it has read; it reads again every second."""
LEAST_LEAD_S: Final = 15
"""The shortest notice of a switch. What it exceeds `KNOWN_S` by is there for clocks that differ
between nodes and for a slow commit of the announcement."""

KeyAt = Callable[[int], SigningKey]
"""The key for what carries this time (microseconds). Raises `StorageBusy` where there is none."""
KeyFor = Callable[[int], Awaitable[SigningKey]]
"""The same for who can wait: it reads what is known anew where that is old."""
WebhookKeysAt = Callable[[int], Sequence[Ed25519PrivateKey]]
"""The keys that sign a forward of this time, the one in force first."""

_SECOND_US: Final = 1_000_000
_EVER: Final = 2**63 - 1
_PAST_US: Final = 60 * _SECOND_US
"""Keys that signed only before that are of no interest: no document is dated back."""


@dataclass(frozen=True, slots=True)
class HeldKey:
    """A private key that this process has, and the one derived from it that signs forwards."""

    signing: SigningKey
    webhook: Ed25519PrivateKey

    def published(self, now_us: int, *, nbf_us: int | None = None) -> StoredKey:
        """Return what the table of public keys says of it while it only stands by."""
        return StoredKey(
            kid=self.signing.kid,
            public=self.signing.public.raw,
            alias=self.signing.alias,
            created_us=now_us,
            nbf_us=nbf_us,
            exp_us=None,
            retired_us=None,
            revoked_us=None,
            webhook=self.webhook.public_key().public_bytes_raw(),
        )


Held = Callable[[str], HeldKey | None]
"""Finds the private key of a kid; None where this process does not have it. It may read a file."""


@dataclass(frozen=True, slots=True)
class _Span:
    from_us: int
    until_us: int
    kid: str
    held: HeldKey | None


class SigningKeys:
    """What this process knows of the keys in force. One object, read by everything that signs."""

    def __init__(
        self, *, database: Database, held: Held, clock: Clock, monotonic: Callable[[], float]
    ) -> None:
        self._database = database
        self._held = held
        self._clock = clock
        self._monotonic = monotonic
        self._known_until = monotonic()
        self._spans: Sequence[_Span] = ()

    async def refresh(self) -> int:
        """Read the keys anew; always 0, so that a worker that calls this never hurries."""
        # Taken before the snapshot is: what is not in it was announced later than this.
        asked = self._monotonic()
        keys = await self._database.read_current(stored.published)
        self._spans = _spans(keys, self._held, self._clock() - _PAST_US)
        self._known_until = asked + KNOWN_S
        return 0

    def at(self, time_us: int) -> SigningKey:
        """Return the key that signs what carries this time; see `KeyAt`."""
        return self._span(time_us).signing

    async def key_for(self, time_us: int) -> SigningKey:
        """Return the same after reading anew, if that was long ago; see `KeyFor`."""
        if self._monotonic() > self._known_until - KNOWN_S / 2:
            await self.refresh()
        return self.at(time_us)

    def webhooks_at(self, time_us: int) -> Sequence[Ed25519PrivateKey]:
        """Return the webhook keys of that time: before a switch the next one signs as well."""
        coming = [
            span.held.webhook
            for span in self._spans
            if span.from_us > time_us and span.held is not None
        ]
        return [self._span(time_us).webhook, *coming]

    def missing(self, now_us: int) -> Sequence[str]:
        """Name the keys that sign now or later and that this process does not have."""
        return [s.kid for s in self._spans if s.held is None and s.until_us > now_us]

    def _span(self, time_us: int) -> HeldKey:
        if self._monotonic() > self._known_until:
            detail = "which key signs was read too long ago; nothing was written"
            raise StorageBusy(detail)
        for span in self._spans:
            if span.from_us <= time_us < span.until_us:
                if span.held is None:
                    raise StorageBusy(f"this process does not have the signing key {span.kid}")
                return span.held
        raise StorageBusy("no key signs at this time; nothing was written")


async def announced(tx: Tx, first: HeldKey, following: HeldKey | None, now_us: int) -> None:
    """Publish the keys of a process that starts; where no key signs yet, `first` does from now on.

    A `first` that is not known where another key signs is left out: it was set by mistake.
    """
    known = {key.kid: key.webhook for key in await stored.published(tx)}
    wanted = [one for one in (first, following) if one is not None]
    if all(known.get(one.signing.kid) is not None for one in wanted):
        return
    await stored.take_turn(tx)
    keys = await stored.published(tx)
    begun = any(key.signs_from_us is not None for key in keys)
    for one in wanted:
        if one is following or not begun or one.signing.kid in known:
            await stored.publish(tx, one.published(now_us))
    if not begun:
        # From ever, so that a node whose clock is behind the first one's can sign as well.
        await stored.begin(tx, first.signing.kid, signs_from_us=0)


def signer_at(keys: Sequence[StoredKey], time_us: int) -> StoredKey | None:
    """Return the key that signs at that time: of several the one that began last."""
    signing = [
        key
        for key in keys
        if key.signs_from_us is not None and key.signs_from_us <= time_us < _until(key)
    ]
    return max(signing, key=_began, default=None)


def public_key(key: StoredKey) -> PublicKey:
    """Return a stored key as verifiers know it; its times in whole seconds (RFC 7519 §2)."""
    return PublicKey(
        raw=key.public,
        alias=key.alias,
        not_before_s=_seconds(key.nbf_us),
        expires_s=_seconds(key.exp_us),
        revoked_at_s=_seconds(key.revoked_us),
    )


def _spans(keys: Sequence[StoredKey], held: Held, since_us: int) -> Sequence[_Span]:
    """Return who signs when, from `since_us` on, oldest first and none beside another."""
    begun = sorted((key for key in keys if key.signs_from_us is not None), key=_began)
    spans: list[_Span] = []
    for number, key in enumerate(begun):
        following = begun[number + 1].signs_from_us if number + 1 < len(begun) else None
        until_us = min(_until(key), _EVER if following is None else following)
        if until_us > since_us:
            spans.append(_Span(_began(key)[0], until_us, key.kid, held(key.kid)))
    return spans


def _began(key: StoredKey) -> tuple[int, str]:
    return key.signs_from_us or 0, key.kid


def _until(key: StoredKey) -> int:
    ends = (key.retired_us, key.exp_us, key.revoked_us)
    return min((end for end in ends if end is not None), default=_EVER)


def _seconds(time_us: int | None) -> int | None:
    return None if time_us is None else time_us // _SECOND_US
