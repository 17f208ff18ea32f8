"""Outcomes as the dictionaries that `safe_forward` returns."""

import pytest

from signet.egress.outcome import (
    Indeterminate,
    IndeterminateCode,
    NotSent,
    NotSentCode,
    Outcome,
    Refused,
    Responded,
    as_forwarded,
)
from signet.egress.verdict import Verdict


def test_a_response_shows_its_own_status_and_where_it_came_from() -> None:
    """A redirect is an outcome like any other and carries no error."""
    response = Responded(
        status=302, host="a.example", pinned_ip="8.8.8.8", response_size=5, response_hash="sha256:"
    )
    assert as_forwarded(response) == {
        "status_code": 302,
        "host": "a.example",
        "pinned_ip": "8.8.8.8",
        "response_size": 5,
        "outcome": "responded",
    }


@pytest.mark.parametrize("verdict", [v for v in Verdict if v is not Verdict.OK])
def test_a_refusal_names_its_reason_and_no_address(verdict: Verdict) -> None:
    """A refusal is 403 (413 for a body over the destination's limit) and tells no address."""
    forwarded = as_forwarded(Refused(code=verdict, host="a.example"))
    assert forwarded == {
        "status_code": 413 if verdict is Verdict.BODY_TOO_LARGE else 403,
        "host": "a.example",
        "pinned_ip": None,
        "response_size": 0,
        "outcome": "refused",
        "error": verdict.value,
    }


@pytest.mark.parametrize("code", list(NotSentCode))
def test_what_was_not_sent_is_599(code: NotSentCode) -> None:
    """A transport failure before the first byte is 599 and says what failed."""
    forwarded = as_forwarded(NotSent(code=code, host="a.example"))
    assert (forwarded["status_code"], forwarded["outcome"]) == (599, "not_sent")
    assert forwarded["error"] == code.value


@pytest.mark.parametrize("code", list(IndeterminateCode))
def test_what_may_have_happened_is_never_shown_as_an_answer(code: IndeterminateCode) -> None:
    """Even if a status line came, an answer that is not whole is 599, or 413 if too large."""
    outcome = Indeterminate(
        code=code, host="a.example", pinned_ip="8.8.8.8", status=200, response_size=7
    )
    forwarded = as_forwarded(outcome)
    expected = 413 if code is IndeterminateCode.BODY_TOO_LARGE else 599
    assert (forwarded["status_code"], forwarded["outcome"]) == (expected, "indeterminate")
    assert forwarded["error"] == code.value
    assert forwarded["response_size"] == 7


def test_timing_does_not_make_outcomes_differ() -> None:
    """Two outcomes with the same facts are equal however long they took."""
    outcomes: list[Outcome] = [
        NotSent(code=NotSentCode.DEADLINE, host="a"),
        NotSent(code=NotSentCode.DEADLINE, host="a"),
    ]
    assert outcomes[0] == outcomes[1]
