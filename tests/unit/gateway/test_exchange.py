"""What is known of a key, told as an answer or a problem; tests/api plays the whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.inprocess import invoice, open_app

from signet.api.problems import PROBLEMS
from signet.gateway.exchange import Answered, NotAccepted, _known
from signet.gateway.pipeline import LARGE_BODY_BYTES
from signet.storage.exchanges import (
    Answer,
    ChainMoved,
    Erased,
    Head,
    InFlight,
    KeyReused,
    KeySpent,
    Known,
    Replay,
)

pytestmark = pytest.mark.anyio

HASH = "sha256:" + "0" * 64
ANSWER = Answer(status=200, content_type="application/json", body=b"{}")


def test_a_replay_is_an_answer() -> None:
    """With the trace of the first, and marked."""
    told = _known(Replay(answer=ANSWER, receipt_hash=HASH, trace_id="t"))
    assert told == Answered(answer=ANSWER, trace_id="t", replayed=True)


@pytest.mark.parametrize(
    ("known", "status"),
    [
        (KeyReused(), 422),
        (InFlight(retry_after_s=2.5), 409),
        (KeySpent(receipt_hash=HASH), 409),
        (Erased(receipt_hash=HASH, canonical=b"{}", jws="a.b.c"), 410),
        (ChainMoved(head=None), 409),
        (ChainMoved(head=Head(hop=3, receipt_hash=HASH)), 409),
    ],
)
def test_everything_else_is_a_problem(known: Known | ChainMoved, status: int) -> None:
    """Each has a row of its own status, and tells what helps."""
    told = _known(known)
    assert isinstance(told, NotAccepted)
    assert PROBLEMS[told.code].status == status
    assert (told.retry_after_s is not None) == isinstance(known, InFlight)
    assert (told.receipt is not None) == isinstance(known, Erased)
    if isinstance(known, ChainMoved):
        assert told.faults[0].got == (HASH if known.head else "null")


async def test_a_large_body_is_read_off_the_loop(tmp_path: Path) -> None:
    """It gets the same answers as a small one."""
    body = json.dumps(invoice(trace_id="t")).encode() + b" " * LARGE_BODY_BYTES
    async with open_app(tmp_path) as app:
        first = await app.exchange(body, key="k")
        assert first.status == 200
        assert (await app.exchange(body, key="k")).body == first.body
        spoiled = await app.exchange(body + b"x")
        assert (spoiled.status, spoiled.code) == (400, "invalid_json")
