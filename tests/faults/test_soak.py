"""Requests of every kind, few here, a hundred thousand in `make drills`."""

from __future__ import annotations

from pathlib import Path

from tests.drills.soak import soak


def test_every_request_gets_the_answer_that_it_earns(tmp_path: Path) -> None:
    """Sixteen callers mix all kinds: no answer is missing, another, or without its receipt.

    How much memory that takes is for the drill: two thousand requests warm the caches at most.
    """
    result = soak(tmp_path, 2000)
    print(result)
    assert result.right, result
    told = result.answers.keys() - {"503"}
    assert told == {"200", "400", "401", "403", "404", "422", "429"}
    assert list(result.resident_bytes) == [2000 * tenth // 10 for tenth in range(1, 11)]
