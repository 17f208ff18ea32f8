"""The story of one exchange, in order."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.inprocess import envelope, invoice, open_app
from tests.unit.gateway.calls import sheet

from signet.core.exchange import Outcome, PolicyVerdict, Refusal
from signet.gateway.pipeline import _decision

pytestmark = pytest.mark.anyio


def test_the_decision_is_the_closed_sheet() -> None:
    """Whatever the sheet holds is what the receipt will say."""
    made = sheet({})
    made.normalized, made.fence, made.fu_tokens = b"{}", 7, 3
    made.forwarded = {"outcome": "responded"}
    made.policy = PolicyVerdict(allowed=True, reason="ok", policy_hash="sha256:" + "1" * 64)
    decided = _decision(made, None)
    assert decided.outcome is Outcome.ALLOWED
    assert (decided.normalized, decided.fence, decided.fu_tokens) == (b"{}", 7, 3)
    assert decided.members["policy"] == made.policy.document()
    assert decided.forwarded == {"outcome": "responded"}
    refusal = Refusal(code="egress_denied", detail="", outcome=Outcome.DENIED)
    assert _decision(made, refusal).outcome is Outcome.DENIED


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (invoice("{", forward_url="nonsense") | {"payload_type": "x.v1"}, "unknown_type"),
        (envelope({}, forward_url="nonsense", delivery="queued"), "schema_invalid"),
        (invoice('{"invoice_id": NaN}', forward_url="nonsense"), "arguments_invalid"),
        (invoice({"invoice_id": "1"}, forward_url="nonsense"), "arguments_invalid"),
        (invoice(forward_url="nonsense", delivery="queued"), "delivery_unavailable"),
        (invoice(forward_url="nonsense"), "egress_denied"),
    ],
)
async def test_the_first_stage_that_refuses_ends_it(
    tmp_path: Path, body: object, code: str
) -> None:
    """Of several things wrong, the one that the order of stages meets first is told."""
    async with open_app(tmp_path) as app:
        assert (await app.exchange(body)).code == code
