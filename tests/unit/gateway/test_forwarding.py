"""What receipt and answer say of a forward; tests/api/test_forward.py sends real ones."""

from __future__ import annotations

import pytest
from tests.unit.gateway.calls import subject

from signet.core.exchange import Outcome
from signet.egress import (
    Indeterminate,
    IndeterminateCode,
    NotSent,
    NotSentCode,
    Refused,
    Responded,
    Verdict,
)
from signet.gateway.forwarding import receipted, refusal_of, shown
from signet.receipts.canonical import content_id

BODY = b'{"a":1}'
HOST, IP = "api.example.com", "93.184.215.14"
HASH = "sha256:" + "4" * 64
RESPONDED = Responded(
    status=500, host=HOST, pinned_ip=IP, response_size=3, response_hash=HASH, body=b"yes"
)


@pytest.mark.parametrize("code", NotSentCode)
def test_what_was_not_sent_failed(code: NotSentCode) -> None:
    """Every failure before the first byte, DNS included, is `failed` and safe to try anew."""
    outcome = NotSent(code=code, host=HOST)
    refusal = refusal_of(outcome)
    assert refusal is not None
    assert (refusal.code, refusal.outcome) == ("forward_not_sent", Outcome.FAILED)
    assert refusal.reason == code.value
    assert receipted(outcome, subject(), BODY)["error"] == code.value
    assert shown(outcome)["status_code"] == 599


@pytest.mark.parametrize("code", IndeterminateCode)
def test_what_may_have_happened_is_unknown(code: IndeterminateCode) -> None:
    """Every failure after the first byte is `unknown`, with the address it went to."""
    outcome = Indeterminate(code=code, host=HOST, pinned_ip=IP)
    refusal = refusal_of(outcome)
    assert refusal is not None
    assert (refusal.code, refusal.outcome) == ("forward_outcome_unknown", Outcome.UNKNOWN)
    told = receipted(outcome, subject(), BODY)
    assert (told["pinned_ip"], told["error"]) == (IP, code.value)


@pytest.mark.parametrize("status", [200, 302, 404, 500])
def test_any_answer_is_an_answer(status: int) -> None:
    """A whole answer ends the exchange as allowed, whatever it says."""
    outcome = Responded(status=status, host=HOST, pinned_ip=IP, response_size=0, response_hash=HASH)
    assert refusal_of(outcome) is None
    told = receipted(outcome, subject(), BODY, attempt=2)
    assert (told["status_code"], told["response_cid"], told["attempt"]) == (status, HASH, 2)
    assert told["request_cid"] == content_id(BODY)


@pytest.mark.parametrize("code", Verdict)
def test_a_refusal_tells_no_address(code: Verdict) -> None:
    """Neither receipt nor answer says where a refused name leads."""
    outcome = Refused(code=code, host=HOST)
    told = receipted(outcome, subject(), BODY)
    assert told == {
        "host": HOST,
        "request_cid": content_id(BODY),
        "attempt": 1,
        "result": "refused",
        "error": code.value,
    }
    assert shown(outcome)["pinned_ip"] is None


def test_a_sealed_tenant_s_hashes_are_salted() -> None:
    """What went out and what came back are hashed behind the salt, or not at all."""
    salt = b"s" * 16
    told = receipted(RESPONDED, subject(salt=salt), BODY)
    assert told["request_cid"] == content_id(salt + BODY)
    assert told["response_cid"] == content_id(salt + b"yes")
    bare = Responded(status=200, host=HOST, pinned_ip=IP, response_size=3, response_hash=HASH)
    assert "response_cid" not in receipted(bare, subject(salt=salt), BODY)
