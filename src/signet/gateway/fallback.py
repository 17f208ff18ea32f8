"""The metered LLM fallback: at most one call for a key, never past the quota, never past the guard.

In order: the claim and the hold are durable before the call leaves; the hold is settled with what
the provider says was used, whatever came of it; and the model's answer is held against the same
invariants as our own repair. Spent is spent: tokens of a rejected answer count and are marked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, Protocol

from signet.core.billing import period_of
from signet.core.errors import Fault, SignetError
from signet.core.exchange import Outcome, Refusal
from signet.core.fallback import Estimate, FallbackResult
from signet.core.ids import TenantId
from signet.core.tenant import Principal
from signet.core.toolcalls import EmbeddedText
from signet.gateway.claims import Claims, Step
from signet.gateway.ports import Clock
from signet.gateway.reading import Broken, Read, held_against, read_text
from signet.gateway.stages import Sheet
from signet.receipts.canonical import Json
from signet.storage import quota
from signet.storage.database import Database
from signet.storage.errors import StorageError
from signet.storage.exchanges import Known
from signet.storage.idempotency import Claimed
from signet.storage.tx import Tx
from signet.telemetry.metrics import Metrics

_NO_LIMIT: Final = 2**53 - 1
_SETTLE_AGAIN_S: Final = (0.1, 0.5, 2.0)
_LEAST_OUTPUT: Final = 0.5
"""Of the output a call may need, the part below which it is not worth making."""


class FallbackProvider(Protocol):
    """A model that can be asked once to mend a text."""

    def estimate(self, broken_json: str, schema: Json | None = None) -> Estimate:
        """Return what `arepair_with_tokens` would cost at most."""
        ...

    async def arepair_with_tokens(
        self, broken_json: str, schema: Json | None = None, *, output_cap: int | None = None
    ) -> FallbackResult:
        """Make one call; expected failures are values."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """The stage that may spend tokens. Without a provider it refuses what is broken."""

    provider: FallbackProvider | None
    database: Database
    claims: Claims
    metrics: Metrics
    clock: Clock
    zone_of: Callable[[TenantId], str]
    max_depth: int

    async def mend(self, sheet: Sheet) -> Refusal | Known | None:
        """Mend the texts that our own rules could not, if the tenant has the fallback."""
        if not sheet.broken:
            return None
        if self.provider is None or not sheet.call.principal.tenant.fallback_enabled:
            return unread(sheet.broken)
        for broken in sheet.broken:
            ending = await self._mend_one(self.provider, sheet, broken.embedded)
            if ending is not None:
                return ending
        return None

    async def _mend_one(
        self, provider: FallbackProvider, sheet: Sheet, embedded: EmbeddedText
    ) -> Refusal | Known | None:
        schema = None if embedded.schema is None else embedded.schema.document
        estimate = provider.estimate(embedded.text, schema)
        permit = await self._permit(sheet, embedded, estimate)
        if not isinstance(permit, _Permit):
            return permit
        sheet.fence = permit.fence
        with self.metrics.fallback_seconds.time():
            answer = await provider.arepair_with_tokens(
                embedded.text, schema, output_cap=permit.output_cap
            )
        await self._settle_patiently(permit, answer)
        self.metrics.fallbacks.inc()
        if answer.estimated:
            self.metrics.fallback_estimated.inc()
        sheet.fu_tokens += answer.fu_tokens
        mended = self._guarded(sheet, embedded, answer)
        result = "accepted" if isinstance(mended, Read) else mended.reason or mended.code
        self.metrics.fallback_answers.labels(result).inc()
        sheet.members["repair"] = _receipted(embedded, answer, accepted=isinstance(mended, Read))
        if isinstance(mended, Refusal):
            return mended
        sheet.put(mended, text=answer.repaired_text)
        return None

    async def _settle_patiently(self, permit: _Permit, answer: FallbackResult) -> None:
        """Write down what was spent: it is paid for, and settling twice settles once.

        Where that cannot be, recovery ends the exchange after its lease, and the hold counts in
        full.
        """
        spent = (permit.holds, answer.fu_tokens, answer.estimated)
        for pause_s in _SETTLE_AGAIN_S:
            try:
                return await self.database.transact(_settle, *spent)
            except StorageError:
                await asyncio.sleep(pause_s)
        return await self.database.transact(_settle, *spent)

    async def _permit(
        self, sheet: Sheet, embedded: EmbeddedText, estimate: Estimate
    ) -> _Permit | Refusal | Known:
        """Get leave for one call: with all the output it may need, or with what is left of that."""
        zone = self.zone_of(sheet.call.subject.tenant)
        period = period_of(self.clock(), zone)
        cap = estimate.output_cap
        try:
            return await self.database.transact(
                self._take, sheet, embedded, period.name, estimate.prompt_tokens, cap
            )
        except _TooLittle as short:
            cap = short.available - estimate.prompt_tokens
        if cap >= estimate.output_cap * _LEAST_OUTPUT:
            with suppress(_TooLittle):
                return await self.database.transact(
                    self._take, sheet, embedded, period.name, estimate.prompt_tokens, cap
                )
        return Refusal(
            code="fu_quota_exceeded",
            detail=f"the fallback quota of {period.name} does not suffice for this call",
            outcome=Outcome.DENIED,
            retry_after_s=(period.end_us - self.clock()) / 1_000_000,
        )

    async def _take(
        self,
        tx: Tx,
        sheet: Sheet,
        embedded: EmbeddedText,
        period: str,
        prompt_tokens: int,
        output_cap: int,
    ) -> _Permit | Known:
        """Take the key and hold the tokens in one transaction; no call is made before it.

        Raises `_TooLittle`, which rolls both back.
        """
        claimed = await self.claims.take(tx, sheet, Step(spends_key=False))
        if not isinstance(claimed, Claimed):
            return claimed
        holds: list[str] = []
        for account, limit in _accounts(sheet.call.principal):
            hold_id = f"{sheet.call.subject.key_hash.hex()}{embedded.pointer}@{account}"
            held = await quota.hold(
                tx,
                hold_id=hold_id,
                tenant=account,
                period=period,
                tokens=prompt_tokens + output_cap,
                limit=limit,
                ttl_us=self.claims.lease_us,
            )
            if isinstance(held, quota.QuotaExceeded):
                raise _TooLittle(held.available)
            holds.append(hold_id)
        return _Permit(fence=claimed.fence, holds=tuple(holds), output_cap=output_cap)

    def _guarded(
        self, sheet: Sheet, embedded: EmbeddedText, answer: FallbackResult
    ) -> Read | Refusal:
        """Hold the model's answer against the text that it was given."""
        if not answer.success or answer.repaired_text is None:
            detail = f"the fallback gave no answer: {answer.error}"
            return replace(unread(sheet.broken), detail=detail)
        read = read_text(
            replace(embedded, text=answer.repaired_text),
            max_depth=self.max_depth,
            nfc=sheet.call.subject.canon_profile == "nfc+jcs",
        )
        if isinstance(read, Broken) or read.repaired is not None:
            detail = "the fallback's answer is not strict JSON"
            return replace(unread(sheet.broken), detail=detail)
        changed = held_against(embedded, answer.repaired_text)
        if changed:
            return _changed_meaning(
                tuple(replace(fault, pointer=f"/payload{fault.pointer}") for fault in changed)
            )
        return read


class _TooLittle(SignetError):
    """A quota has less left than the call may cost; rolls the transaction back."""

    code = "fu_quota_exceeded"

    def __init__(self, available: int) -> None:
        super().__init__(f"only {available} tokens are left")
        self.available = available


@dataclass(frozen=True, slots=True, kw_only=True)
class _Permit:
    fence: int
    holds: tuple[str, ...]
    output_cap: int


def _accounts(principal: Principal) -> Iterator[tuple[str, int]]:
    """Yield each account that a call is held against, with its limit."""
    tenant = principal.tenant
    yield tenant.id, _NO_LIMIT if tenant.fu_monthly_limit is None else tenant.fu_monthly_limit
    if principal.fu_monthly_limit is not None:
        yield principal.account, principal.fu_monthly_limit


async def _settle(tx: Tx, holds: Sequence[str], used: int, estimated: bool) -> None:
    for hold_id in holds:
        await quota.settle(tx, hold_id, used=used, estimated=estimated)


def unread(broken: Sequence[Broken]) -> Refusal:
    """Return how an exchange ends whose texts nobody may or can read."""
    faults = tuple(replace(b.fault, pointer=f"/payload{b.fault.pointer}") for b in broken)
    if any(fault.code.startswith("semantic_violation") for fault in faults):
        return _changed_meaning(faults)
    detail = "the arguments are not I-JSON, and what was meant cannot be known"
    return Refusal(code="arguments_invalid", detail=detail, faults=faults)


def _changed_meaning(faults: tuple[Fault, ...]) -> Refusal:
    detail = "a repair would say something else than the arguments did"
    return Refusal(code="semantic_violation", detail=detail, faults=faults)


def _receipted(
    embedded: EmbeddedText, answer: FallbackResult, *, accepted: bool
) -> dict[str, Json]:
    told: dict[str, Json] = {
        "method": "llm",
        "pointer": embedded.pointer,
        "accepted": accepted,
        "fu_tokens": answer.fu_tokens,
        "estimated": answer.estimated,
    }
    if answer.model is not None:
        told["model"] = answer.model
    return told
