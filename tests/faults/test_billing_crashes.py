"""A few runs of the billing drill on each engine; `python -m tests.drills.billing` runs many."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
@pytest.mark.parametrize(("scene", "runs"), [("killed", 3), ("restored", 2)])
def test_stripe_ends_with_what_the_receipts_say(engine: str, scene: str, runs: int) -> None:
    """Whenever the processes die, and when a backup silently takes the database's place."""
    command = [sys.executable, "-m", "tests.drills.billing", "--runs", str(runs)]
    done = subprocess.run(
        [*command, "--engine", engine, "--scene", scene, "--seed", "7"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr
    assert f"{scene}-{engine}: {runs} of {runs} runs exact" in done.stdout
