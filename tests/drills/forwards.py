"""kill -9 at every step of a forward, and paused senders, 200 runs in all.

    python -m tests.drills.forwards [--times N] [--again]

`--times` is another count for each scene. What must hold is in tests/faults/forwards.py.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.drills.evidence import Evidence
from tests.egress.stage import Authority
from tests.faults import forwards
from tests.faults.sender import BY_ITSELF, BY_THE_RECEIVER, PAUSES

TIMES = 15
"""Of each of ten steps, three idempotent scenes and two pauses: 225 runs, 30 of them pauses."""
IDEMPOTENT = ("after intent", "request read", "before commit")


def scenes(authority: Authority) -> dict[str, Callable[[Path], None]]:
    """Every scene by its name."""
    played: dict[str, Callable[[Path], None]] = {}
    for step in (*BY_ITSELF, *BY_THE_RECEIVER):
        played[f"killed {step}"] = lambda at, step=step: forwards.killed(step, at, authority)
    for step in BY_ITSELF + BY_THE_RECEIVER:
        if step in IDEMPOTENT:
            played[f"killed {step}, idempotent destination"] = lambda at, step=step: (
                forwards.killed(step, at, authority, idempotent=True)
            )
    for step in PAUSES:
        played[step] = lambda at, step=step: forwards.paused(step, at, authority)
    return played


def main() -> int:
    """Play what is left to play; 0 if everything held."""
    parser = argparse.ArgumentParser(prog="python -m tests.drills.forwards")
    parser.add_argument("--times", type=int, default=TIMES)
    parser.add_argument("--again", action="store_true", help="do not go on with an earlier run")
    args = parser.parse_args()
    evidence = Evidence("forwards")
    played = scenes(Authority())
    if args.again:
        evidence.forget(played)
    all_held = True
    for name, play in played.items():
        done = evidence.held(name)
        while done < args.times:
            began = time.time()
            with tempfile.TemporaryDirectory(prefix="signet-drill-") as directory:
                try:
                    play(Path(directory))
                    failure = None
                except AssertionError as error:
                    failure = str(error)[-2000:]  # the end says what was raised
            evidence.add(name, times=1, holds=failure is None, began=began, result=failure)
            if failure is not None:
                print(f"{name}: DOES NOT HOLD: {failure}", flush=True)
                all_held = False
                break
            done += 1
        print(f"{name}: {done} of {args.times}", flush=True)
    return 0 if all_held else 1


if __name__ == "__main__":
    sys.exit(main())
