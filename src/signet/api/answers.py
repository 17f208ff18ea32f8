"""The bytes of a decided exchange's answer, made before it is committed and stored with it."""

from __future__ import annotations

import orjson

from signet.api.problems import MEDIA_TYPE, PROBLEMS, problem
from signet.core.exchange import Decision
from signet.receipts.receipt import SealedReceipt
from signet.storage.exchanges import Answer


def render(decision: Decision, receipt: SealedReceipt, *, trace_id: str) -> Answer:
    """Splice the signed receipt into the answer; its bytes are never serialised again."""
    if decision.refusal is None:
        return _exchanged(decision, receipt, trace_id)
    refusal = decision.refusal
    body = problem(
        refusal.code,
        refusal.detail,
        faults=refusal.faults,
        reason=refusal.reason,
        receipt=(receipt.canonical, receipt.jws),
        trace_id=trace_id,
        forwarded=decision.forwarded,
    )
    return Answer(status=PROBLEMS[refusal.code].status, content_type=MEDIA_TYPE, body=body)


def _exchanged(decision: Decision, receipt: SealedReceipt, trace_id: str) -> Answer:
    assert decision.normalized is not None
    assert decision.policy is not None
    document: dict[str, object] = {
        "trace_id": trace_id,
        "normalized": orjson.Fragment(decision.normalized),
        "policy": decision.policy.document(),
        "receipt": orjson.Fragment(receipt.canonical),
        "receipt_jws": receipt.jws,
    }
    if decision.forwarded is not None:
        document["forwarded"] = decision.forwarded
    return Answer(status=200, content_type="application/json", body=orjson.dumps(document))
