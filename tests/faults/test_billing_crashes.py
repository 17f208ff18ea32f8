"""A few runs of the billing drill on each engine; `python -m tests.drills.billing` runs many."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RUNS = 3


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_killed_between_any_two_steps(engine: str) -> None:
    """Whenever the processes die, Stripe ends with exactly what the receipts say."""
    command = [sys.executable, "-m", "tests.drills.billing", "--runs", str(RUNS)]
    done = subprocess.run(
        [*command, "--engine", engine, "--seed", "7"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    assert f"{engine}: {RUNS} of {RUNS} runs exact" in done.stdout
