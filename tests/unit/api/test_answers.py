"""The bytes of an answer, made before they are stored."""

from __future__ import annotations

import json

import pytest

from signet.api.answers import render
from signet.api.problems import PROBLEMS
from signet.core.errors import Fault
from signet.core.exchange import Decision, Outcome, PolicyVerdict, Refusal
from signet.receipts.receipt import SealedReceipt

RECEIPT = SealedReceipt(canonical=b'{"v":1}', receipt_hash="sha256:" + "0" * 64, jws="h.p.s")
POLICY = PolicyVerdict(allowed=True, reason="ok", policy_hash="sha256:" + "1" * 64)
FORWARDED = {
    "status_code": 200,
    "host": "a.example",
    "pinned_ip": "192.0.2.1",
    "response_size": 2,
    "outcome": "responded",
}


def _decision(refusal: Refusal | None = None, **members: object) -> Decision:
    return Decision(
        outcome=Outcome.ALLOWED if refusal is None else refusal.outcome,
        refusal=refusal,
        normalized=b'{"n":1e+30}',
        policy=POLICY,
        members={},
        **members,  # type: ignore[arg-type]
    )


def test_an_allowed_exchange() -> None:
    """200 with the canonical bytes and the receipt's bytes spliced in."""
    answer = render(_decision(), RECEIPT, trace_id="t")
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert b'"normalized":{"n":1e+30}' in answer.body
    assert b'"receipt":{"v":1}' in answer.body
    document = json.loads(answer.body)
    assert list(document) == ["trace_id", "normalized", "policy", "receipt", "receipt_jws"]
    assert document["policy"] == POLICY.document()


def test_a_forwarded_exchange_tells_of_it() -> None:
    """`forwarded` comes last."""
    answer = render(_decision(forwarded=FORWARDED), RECEIPT, trace_id="t")
    assert json.loads(answer.body)["forwarded"] == FORWARDED


@pytest.mark.parametrize("code", PROBLEMS)
def test_every_refusal_can_be_rendered(code: str) -> None:
    """Rendering is total: whatever the code, a problem with the receipt comes out."""
    refusal = Refusal(
        code=code,
        detail="why",
        outcome=Outcome.DENIED,
        reason="HEL_HOST_NOT_ALLOWED",
        faults=(Fault(pointer="/payload", code="x", detail="y \ud7ff \U0001f600"),),
    )
    answer = render(_decision(refusal, forwarded=FORWARDED), RECEIPT, trace_id="t")
    assert answer.status == PROBLEMS[code].status
    assert answer.content_type == "application/problem+json"
    document = json.loads(answer.body)
    assert document["receipt"] == {"v": 1}
    assert document["trace_id"] == "t"
    assert document["forwarded"] == FORWARDED
    assert document["reason"] == "HEL_HOST_NOT_ALLOWED"
    assert "normalized" not in document
