"""A report tells a person and a program the same."""

from __future__ import annotations

import pytest

from signet.receipts.report import Level, Report, StatementReport, Step

HASH = "sha256:" + "0" * 64
LIMITS = ("that anybody else has seen it",)
OF_A_CHAIN = Report(
    document="bundle",
    level=Level.SIGNED,
    trace_id="order-1",
    tenant="acme",
    hops=2,
    head=HASH,
    first_ts="2026-01-01T00:00:00.000000Z",
    last_ts="2026-01-01T00:00:01.000000Z",
    signed_by=("kid-1",),
    limits=LIMITS,
)
OF_A_STATEMENT = StatementReport(
    level=Level.INTEGRITY,
    tenant="acme",
    period="2026-01",
    revision=1,
    currency="USD",
    total="3.40",
    lines=3,
    receipts=18,
    statement_hash=HASH,
    signed_by=(),
    limits=LIMITS,
)


@pytest.mark.parametrize("report", [OF_A_CHAIN, OF_A_STATEMENT])
def test_the_text_says_what_the_document_says(report: Report | StatementReport) -> None:
    """The verdict comes first, and every key and limit of the JSON form is in the text too."""
    told, text = report.as_json(), report.as_text()
    assert text.startswith(f"{told['verdict']}: ")
    assert str(told["tenant"]) in text.splitlines()[0]
    for said in (*report.signed_by, *report.limits):
        assert said in text
    assert (told["signed_by"], told["limits"]) == (list(report.signed_by), list(LIMITS))


def test_one_receipt_is_not_many() -> None:
    """The text counts as a person would."""
    assert "  2 receipts, " in OF_A_CHAIN.as_text()
    assert "18 receipts, 3.40 USD" in OF_A_STATEMENT.as_text()


def test_levels_and_steps_are_in_order() -> None:
    """Each level includes those before it; each step has a number and says what it proves."""
    assert Level.INTEGRITY < Level.SIGNED < Level.LOGGED < Level.WITNESSED
    assert [step.value for step in Step] == list(range(1, len(Step) + 1))
    assert len({step.claim for step in Step}) == len(Step)
