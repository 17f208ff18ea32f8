"""Claims: leave to do network work for one key, written down before anything leaves."""

from __future__ import annotations

from dataclasses import dataclass, field

from signet.gateway.intents import Intent
from signet.gateway.stages import Sheet
from signet.storage import idempotency
from signet.storage.exchanges import InFlight, Known
from signet.storage.idempotency import Claim, Claimed
from signet.storage.tx import Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is about to be done outside. A forward has a `url`, and spends its key."""

    spends_key: bool
    url: str | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    idempotent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """Takes claims in the name of this process. The lease outlasts any network work under it."""

    owner: str
    lease_us: int

    async def take(self, tx: Tx, sheet: Sheet, step: Step) -> Claimed | Known:
        """Claim the key for `step`, or go on under the claim that this exchange has already."""
        subject = sheet.call.subject
        intent = Intent(
            subject=subject,
            normalized=sheet.normalized,
            policy=sheet.policy,
            members=dict(sheet.members),
            fu_tokens=sheet.fu_tokens,
            url=step.url,
            headers=step.headers,
            idempotent=step.idempotent,
        )
        wish = Claim(
            tenant=subject.tenant,
            trace_id=subject.trace_id,
            key_hash=subject.key_hash,
            fingerprint=subject.fingerprint,
            owner=self.owner,
            lease_us=self.lease_us,
            intent=intent.encode(),
            spends_key=step.spends_key,
        )
        if sheet.fence is None:
            return await idempotency.claim(tx, wish)
        return await idempotency.advance(tx, wish, sheet.fence) or InFlight(retry_after_s=1.0)
