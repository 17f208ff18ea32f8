"""Problems that are answered without a receipt."""

from __future__ import annotations

import json

import pytest

from signet.api.operations import problem_response
from signet.core.errors import Fault


@pytest.mark.parametrize(
    ("wait_s", "told"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.01, "2"), (39.9, "40")]
)
def test_the_wait_is_in_whole_seconds(wait_s: float, told: str) -> None:
    """`Retry-After` is never too short and never zero (RFC 9110 §10.2.3)."""
    response = problem_response("idempotency_in_flight", "x", retry_after_s=wait_s)
    assert response.headers["retry-after"] == told


def test_no_wait_no_header() -> None:
    """Where waiting does not help, none is asked for."""
    assert "retry-after" not in problem_response("not_found", "x").headers


def test_who_is_not_known_is_told_how_to_be() -> None:
    """401 carries its challenge (RFC 9110 §11.6.1)."""
    response = problem_response("unauthenticated", "x")
    assert response.headers["www-authenticate"] == 'Bearer realm="signet"'
    assert response.status_code == 401
    assert response.code == "unauthenticated"


def test_faults_and_receipt_are_in_the_body() -> None:
    """Everything known is told."""
    fault = Fault(pointer="/a", code="c", detail="d")
    response = problem_response("payload_erased", "x", faults=(fault,), receipt=(b'{"v":1}', "j"))
    document = json.loads(response.body)
    assert document["faults"] == [{"pointer": "/a", "code": "c", "detail": "d"}]
    assert document["receipt"] == {"v": 1}
    assert response.media_type == "application/problem+json"
