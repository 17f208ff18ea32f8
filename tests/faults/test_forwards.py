"""kill -9 at every step of a forward, and senders that wake after their lease."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.egress.stage import Authority
from tests.faults import forwards
from tests.faults.sender import BY_ITSELF, BY_THE_RECEIVER, PAUSES, Step


@pytest.fixture(scope="module")
def authority() -> Authority:
    """One certificate authority for all runs."""
    return Authority()


@pytest.mark.parametrize("step", [*BY_ITSELF, *BY_THE_RECEIVER])
def test_killed(step: Step, tmp_path: Path, authority: Authority) -> None:
    """One request upstream at most, one receipt, and a retry that tells it."""
    forwards.killed(step, tmp_path, authority)


@pytest.mark.parametrize("step", ["after intent", "request read", "before commit"])
def test_killed_before_an_idempotent_destination(
    step: Step, tmp_path: Path, authority: Authority
) -> None:
    """Where the destination promised to act once on a key, recovery sends again and knows."""
    forwards.killed(step, tmp_path, authority, idempotent=True)


@pytest.mark.parametrize("step", PAUSES)
def test_paused(step: Step, tmp_path: Path, authority: Authority) -> None:
    """A sender that slept through its lease sends nothing more and adds what it learned."""
    forwards.paused(step, tmp_path, authority)
