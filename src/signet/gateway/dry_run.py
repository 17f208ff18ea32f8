"""What a call would become, without making it: nothing is stored, sent, asked or metered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from signet.core.errors import Fault
from signet.core.exchange import (
    Call,
    EnvelopeInvalid,
    PolicyVerdict,
    Refusal,
    Subject,
    read_envelope,
)
from signet.core.ids import KeyHash, TraceId
from signet.core.registry import Entry
from signet.core.tenant import Principal
from signet.egress import AddressRules, Refused, Verdict, classify
from signet.gateway.exchange import NotAccepted
from signet.gateway.forwarding import denied, judge
from signet.gateway.pipeline import Pipeline
from signet.gateway.stages import Sheet
from signet.receipts.canonical import Json, content_id, parse
from signet.receipts.errors import ReceiptError


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """How far a call gets, and what it is by then. `refusal` is how it would end, if it would.

    `members` are those that a receipt would have: the repair, the schemas, the mapping.
    `fallback` says that a model would be asked, whose answer nobody knows. `addresses` says whether
    those of the destination were judged; the ones that a name leads to are not looked up.
    """

    payload: Json
    parsed: Json
    normalized: bytes | None
    cid: str | None
    policy: PolicyVerdict | None
    refusal: Refusal | None
    members: Mapping[str, Json]
    deprecated: tuple[Entry, ...]
    fallback: bool
    addresses: Literal["not_asked", "not_resolved", "judged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRuns:
    """The use case behind `POST /v1/dry-run`."""

    pipeline: Pipeline
    has_fallback: bool
    addresses: AddressRules
    canon_profile: str
    max_depth: int

    async def dry_run(self, principal: Principal, body: bytes) -> DryRun | NotAccepted:
        """Take the envelope `body` through every stage that needs no network and no database."""
        try:
            envelope = read_envelope(parse(body, max_depth=self.max_depth))
        except ReceiptError as error:
            fault = Fault(pointer=error.pointer or "", code=error.code, detail=error.detail)
            return NotAccepted(code="invalid_json", detail=str(error), faults=(fault,))
        except EnvelopeInvalid as error:
            return NotAccepted(code=error.code, detail=error.detail, faults=error.faults)
        tenant = principal.tenant
        subject = Subject(
            tenant=tenant.id,
            actor=principal.key_id,
            trace_id=envelope.trace_id or TraceId("dry-run"),
            key_hash=KeyHash(bytes(32)),
            fingerprint=b"",
            salt=None,
            request_cid=content_id(body),
            payload_type=envelope.payload_type,
            target_type=envelope.target_type,
            canon_profile=tenant.canon_profile or self.canon_profile,
        )
        call = Call(principal=principal, subject=subject, envelope=envelope, body_bytes=len(body))
        sheet = Sheet(call=call, registry=await self.pipeline.registries.of(tenant.id))
        refusal = await self.pipeline.rehearse(sheet)
        addresses: Literal["not_asked", "not_resolved", "judged"] = "not_asked"
        if refusal is None and envelope.forward_url is not None:
            refusal, addresses = self._judged(sheet, envelope.forward_url)
        cid = None
        if sheet.normalized is not None and not tenant.sealed:
            cid = content_id(sheet.normalized)
        return DryRun(
            payload=sheet.payload,
            parsed=sheet.parsed,
            normalized=sheet.normalized,
            cid=cid,
            policy=sheet.policy,
            refusal=refusal,
            members=sheet.members,
            deprecated=sheet.deprecated,
            fallback=bool(sheet.broken) and self.has_fallback and tenant.fallback_enabled,
            addresses=addresses,
        )

    def _judged(
        self, sheet: Sheet, url: str
    ) -> tuple[Refusal | None, Literal["not_asked", "not_resolved", "judged"]]:
        """What the policy says, and whether the addresses had their say."""
        policy = self.pipeline.policies.of(sheet.call.principal)
        judged = judge(sheet, url, policy)
        if isinstance(judged, Refused):
            return denied(sheet, policy, judged), "not_asked"
        target, _ = judged
        if target.address is None:
            return None, "not_resolved"
        verdict = classify(target.address, self.addresses)
        if verdict is Verdict.OK:
            return None, "judged"
        return denied(sheet, policy, Refused(code=verdict, host=target.host)), "judged"
