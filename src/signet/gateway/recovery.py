"""Ending what a dead sender began: every claimed key gets its one receipt.

Recovery takes claims whose lease has ended on the database's clock, or whose owner is proven
dead, and raises their fence. What it cannot know it says: the receipt's outcome is `unknown`.
Only a destination that is declared idempotent is sent to again, before the receipt is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from signet.core.exchange import Decision, Outcome, Refusal
from signet.egress import Policy, Responded, TargetInvalid, as_forwarded, parse_target
from signet.gateway.forwarding import Sender, receipted, refusal_of
from signet.gateway.intents import Intent
from signet.gateway.sealing import Draft, pending
from signet.receipts.canonical import Json
from signet.storage import idempotency, quota
from signet.storage.committer import Committer
from signet.storage.database import Database
from signet.storage.exchanges import Committed
from signet.storage.idempotency import Orphan
from signet.storage.tx import Tx
from signet.telemetry.metrics import Metrics

_BATCH: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """The use case that a worker calls at start and every few seconds."""

    database: Database
    committer: Committer
    sender: Sender
    owner: str
    lease_us: int
    metrics: Metrics
    is_dead: Callable[[str], bool]
    deadline_s: float

    async def run_once(self) -> int:
        """Take over and end up to a batch of orphaned claims; return how many were ended."""
        owners = await self.database.read_current(idempotency.owners)
        dead = [owner for owner in owners if owner != self.owner and self.is_dead(owner)]
        orphans = await self.database.transact(self._take, dead)
        for orphan in orphans:
            await self._end(orphan)
        return len(orphans)

    async def settle_holds(self) -> int:
        """Count in full the fallback holds that nobody settled in time; return how many.

        Their calls may have been made, and a quota that forgets spent tokens is none.
        """
        return await self.database.transact(_settle_expired)

    async def _take(self, tx: Tx, dead: Sequence[str]) -> list[Orphan]:
        return await idempotency.take_expired(
            tx, owner=self.owner, lease_us=self.lease_us, limit=_BATCH, dead=dead
        )

    async def _end(self, orphan: Orphan) -> None:
        """Write the orphan's receipt; whoever lost the fence to another recoverer writes none."""
        intent = Intent.decode(orphan.intent)
        decision = await self._sent_again(intent, orphan) if intent.idempotent else None
        draft = Draft(subject=intent.subject, decision=decision or _unknown(intent, orphan))
        result = await self.committer.commit(pending(draft, expected="any"))
        if isinstance(result, Committed):
            sealed = result.sealed
            self.metrics.recovered.labels(sealed.outcome).inc()
            self.metrics.decided(
                outcome=sealed.outcome,
                reason=draft.decision.reason,
                vex_units=sealed.vex_units,
                fu_tokens=sealed.fu_tokens,
            )

    async def _sent_again(self, intent: Intent, orphan: Orphan) -> Decision | None:
        """Send once more to a destination that promised to act once on one key."""
        if intent.url is None or intent.normalized is None:
            return None
        try:
            target = parse_target(intent.url)
        except TargetInvalid:
            return None
        outcome = await self.sender.send(
            target,
            intent.normalized,
            intent.headers,
            Policy.parse([{"host": target.host, "port": target.port}]),
            deadline_s=self.deadline_s,
        )
        if not isinstance(outcome, Responded):
            return None
        refusal = refusal_of(outcome)
        return Decision(
            outcome=Outcome.ALLOWED,
            refusal=refusal,
            normalized=intent.normalized,
            policy=intent.policy,
            members={
                **intent.members,
                **_policy_member(intent),
                "forwarded": {**receipted(outcome, intent.normalized), "attempt": 2},
            },
            fu_tokens=intent.fu_tokens,
            forwarded=dict(as_forwarded(outcome).items()),  # pyright: ignore[reportArgumentType] - a TypedDict of JSON values
            fence=orphan.fence,
        )


async def _settle_expired(tx: Tx) -> int:
    left = await quota.expired(tx, _BATCH)
    for hold in left:
        await quota.settle(tx, hold.hold_id, used=hold.tokens, estimated=True)
    return len(left)


def _unknown(intent: Intent, orphan: Orphan) -> Decision:
    if intent.url is None:
        code, reason = "fallback_interrupted", "fallback_interrupted"
        detail = "the gateway stopped while the fallback was asked; nothing was forwarded"
    else:
        code, reason = "forward_outcome_unknown", "SENDER_DIED"
        detail = "the gateway stopped while the request was under way: it may have happened"
    return Decision(
        outcome=Outcome.UNKNOWN,
        refusal=Refusal(code=code, detail=detail, outcome=Outcome.UNKNOWN, reason=reason),
        normalized=intent.normalized,
        policy=intent.policy,
        members={**intent.members, **_policy_member(intent)},
        fu_tokens=intent.fu_tokens,
        fence=orphan.fence,
    )


def _policy_member(intent: Intent) -> dict[str, Json]:
    return {} if intent.policy is None else {"policy": intent.policy.document()}
