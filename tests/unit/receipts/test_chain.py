"""How receipts hang together."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.receipts.samples import chain, loaded, sha

from signet.receipts.chain import first_break


@pytest.fixture
def receipts() -> list[dict[str, Any]]:
    """A whole chain of four."""
    return [loaded(receipt.canonical) for receipt in chain(4)]


def broken(receipts: list[dict[str, Any]]) -> tuple[str, int | None, str]:
    """Where and how this chain breaks."""
    found = first_break(receipts)
    assert found is not None
    return found.code, found.hop, found.member


def test_a_whole_chain(receipts: list[dict[str, Any]]) -> None:
    """No break, whatever the length."""
    for length in range(1, 5):
        assert first_break(receipts[:length]) is None


def test_no_receipts() -> None:
    """Nothing is not a chain."""
    assert broken([]) == ("chain_empty", None, "chain")


def test_starting_late(receipts: list[dict[str, Any]]) -> None:
    """The first receipt is hop 1."""
    assert broken(receipts[1:]) == ("chain_start", 2, "hop")


def test_a_hop_missing(receipts: list[dict[str, Any]]) -> None:
    """Each hop follows the one before it."""
    assert broken([receipts[0], *receipts[2:]]) == ("chain_hop", 3, "hop")


def test_a_hop_repeated(receipts: list[dict[str, Any]]) -> None:
    """The same receipt twice continues the same one twice."""
    assert broken([*receipts[:2], *receipts[1:]]) == ("chain_fork", 2, "prev_receipt_hash")


def test_two_continuations(receipts: list[dict[str, Any]]) -> None:
    """Two receipts with one predecessor are a fork, even with consecutive hops."""
    receipts[2]["prev_receipt_hash"] = receipts[1]["prev_receipt_hash"]
    assert broken(receipts) == ("chain_fork", 3, "prev_receipt_hash")


def test_a_broken_link(receipts: list[dict[str, Any]]) -> None:
    """Each receipt names the hash of the one before."""
    receipts[2]["prev_receipt_hash"] = sha("0")
    assert broken(receipts) == ("chain_link", 3, "prev_receipt_hash")


@pytest.mark.parametrize(
    ("member", "code"), [("trace_id", "chain_trace"), ("tenant", "chain_tenant")]
)
def test_one_trace_of_one_tenant(receipts: list[dict[str, Any]], member: str, code: str) -> None:
    """A trace belongs to one tenant; the same text of another tenant is another chain."""
    receipts[1][member] = "other"
    assert broken(receipts) == (code, 2, member)
