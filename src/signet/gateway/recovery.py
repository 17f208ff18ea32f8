"""Ending what a dead sender began: every claimed key gets its one receipt.

Recovery takes claims whose lease has ended on the database's clock, or whose owner is proven
dead, and raises their fence. What it cannot know it says: the receipt's outcome is `unknown`.
Only a destination that is declared idempotent is sent to again, before the receipt is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from signet.core.exchange import Decision, Outcome, Refusal
from signet.egress import Request, Responded, TargetInvalid, parse_target
from signet.egress.signing import forward_headers
from signet.gateway.forwarding import Sender, receipted, shown
from signet.gateway.intents import Intent
from signet.gateway.policies import Policies
from signet.gateway.ports import Clock
from signet.gateway.sealing import Draft, pending
from signet.gateway.signing import WebhookKeysAt
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
    policies: Policies
    owner: str
    lease_us: int
    metrics: Metrics
    clock: Clock
    is_dead: Callable[[str], bool]
    deadline_s: float
    webhook_keys_at: WebhookKeysAt

    async def run_once(self) -> int:
        """Take over and end up to a batch of orphaned claims; return how many were ended.

        They are ended side by side, so that one slow destination does not outlast the leases of
        the others. What one of them raises is raised when all the others have ended; its claim
        stays and is taken again after its lease.
        """
        owners = await self.database.read_current(idempotency.owners)
        dead = [owner for owner in owners if owner != self.owner and self.is_dead(owner)]
        orphans = await self.database.transact(self._take, dead)
        failures: list[Exception] = []

        async def end(orphan: Orphan) -> None:
            try:
                await self._end(orphan)
            except Exception as error:
                failures.append(error)

        async with asyncio.TaskGroup() as tasks:
            for orphan in orphans:
                tasks.create_task(end(orphan))
        if failures:
            raise failures[0]
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
        await self.database.transact(_settle_holds_of, intent.subject.key_hash.hex())
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
        """Send once more to a destination that promised to act once on one key.

        It must still be allowed and still promise so. The key and the webhook id stay the same;
        time and signature are those of this attempt, or its receiver would take it for a replay.
        """
        subject, body = intent.subject, intent.normalized
        if intent.url is None or body is None:
            return None
        try:
            target = parse_target(intent.url)
        except TargetInvalid:
            return None
        policy = self.policies.of_tenant(subject.tenant)
        destination = policy.decide(target, Request(body_size=len(body))).destination
        if destination is None or not destination.idempotent:
            return None
        now_us = self.clock()
        headers = forward_headers(
            body=body,
            trace_id=subject.trace_id,
            traceparent=intent.headers["traceparent"],
            idempotency_key=subject.key_hash.hex(),
            prev_receipt_hash=intent.headers.get("X-SIGNET-Prev-Receipt"),
            webhook_id=intent.headers["webhook-id"],
            timestamp_s=now_us // 1_000_000,
            secrets=(destination.secret,) if destination.secret else (),
            signing_keys=self.webhook_keys_at(now_us),
        )
        outcome = await self.sender.send(
            target,
            body,
            headers,
            policy,
            deadline_s=self.deadline_s,
            keep_body=subject.salt is not None,
        )
        if not isinstance(outcome, Responded):
            return None
        return Decision(
            outcome=Outcome.ALLOWED,
            refusal=None,
            normalized=body,
            policy=intent.policy,
            members={
                **intent.members,
                **_policy_member(intent),
                "forwarded": receipted(outcome, subject, body, attempt=2),
            },
            fu_tokens=intent.fu_tokens,
            forwarded=shown(outcome),
            fence=orphan.fence,
        )


async def _settle_expired(tx: Tx) -> int:
    return await _settle_in_full(tx, await quota.expired(tx, _BATCH))


async def _settle_holds_of(tx: Tx, key_hash: str) -> int:
    """Whoever held for this exchange is dead; its call may have been made."""
    return await _settle_in_full(tx, await quota.held_under(tx, key_hash, _BATCH))


async def _settle_in_full(tx: Tx, holds: Sequence[quota.ExpiredHold]) -> int:
    for hold in holds:
        await quota.settle(tx, hold.hold_id, used=hold.tokens, estimated=True)
    return len(holds)


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
