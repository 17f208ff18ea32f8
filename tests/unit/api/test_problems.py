"""One table of every way to be refused, and its documents."""

from __future__ import annotations

import json

import pytest

from signet.api.problems import PROBLEMS, fault_document, problem
from signet.core.errors import Fault


@pytest.mark.parametrize("code", PROBLEMS)
def test_each_row_is_a_problem(code: str) -> None:
    """Every code makes a document of RFC 9457 with its own status, title and type."""
    document = json.loads(problem(code, "a sentence"))
    kind = PROBLEMS[code]
    assert document["type"] == f"urn:signet:problem:{code}"
    assert document["status"] == kind.status
    assert 400 <= kind.status <= 599
    assert document["title"] == kind.title
    assert document["detail"] == "a sentence"
    assert document["code"] == code
    assert document.get("retry") == kind.retry


def test_what_may_have_happened_is_never_retried_blindly() -> None:
    """No answer that leaves the effect open invites a new key."""
    for code in ("forward_outcome_unknown", "idempotency_key_spent", "idempotency_key_reused"):
        assert PROBLEMS[code].retry == "never_blind"
    for code, kind in PROBLEMS.items():
        if kind.status in {500, 503}:
            assert kind.retry == "same_key", code


def test_the_receipt_s_bytes_are_not_serialised_again() -> None:
    """The signed bytes stand in the document as they are, order and spelling included."""
    canonical = b'{"b":1.0e2,"a":"\xc3\xa9"}'
    body = problem("schema_invalid", "x", receipt=(canonical, "h..s"), trace_id="t")
    assert b'"receipt":' + canonical in body
    assert json.loads(body)["receipt_jws"] == "h..s"


def test_the_reason_is_told_where_it_says_more() -> None:
    """A reason that is the code itself is left out."""
    assert "reason" not in json.loads(problem("egress_denied", "x", reason="egress_denied"))
    told = json.loads(problem("egress_denied", "x", reason="HEL_URL_INVALID"))
    assert told["reason"] == "HEL_URL_INVALID"


def test_faults_are_few_and_short() -> None:
    """At most twenty are shown, and no pointer longer than a screen."""
    fault = Fault(pointer="/" + "x" * 1_000_000, code="c", detail="d", expected="e", got="g")
    document = json.loads(problem("schema_invalid", "x", faults=[fault] * 1000))
    assert len(document["faults"]) == 20
    assert len(document["faults"][0]["pointer"]) == 1024
    assert fault_document(Fault(pointer="", code="c", detail="d")) == {
        "pointer": "",
        "code": "c",
        "detail": "d",
    }
