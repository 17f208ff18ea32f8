"""A thousand examples of every operation against a running gateway, with every check.

    python -m tests.drills.openapi [--examples N]

Uses schemathesis; every answer must be one that the OpenAPI document describes, and none a 5xx.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path

from tests.api.test_openapi import explore
from tests.drills.evidence import Evidence
from tests.live import live


def main() -> int:
    """Explore, and keep what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.drills.openapi")
    parser.add_argument("--examples", type=int, default=1000)
    args = parser.parse_args()
    began = time.time()
    with (
        tempfile.TemporaryDirectory(prefix="signet-drill-") as directory,
        live(Path(directory)) as gateway,
    ):
        explored = explore(gateway.url, args.examples)
        complaints = gateway.errors.read_text()
    found = re.search(r"Test cases:\s+(.+)", explored.stdout)
    seed = re.search(r"Seed: ([0-9]+)", explored.stdout)
    result = {
        "cases": found[1] if found else None,
        "seed": seed[1] if seed else None,
        "errors_logged": complaints.count('"level":"error"'),
    }
    holds = explored.returncode == 0 and result["errors_logged"] == 0
    Evidence("openapi").add(
        "explored", times=args.examples, holds=holds, began=began, result=result
    )
    print(result, flush=True)
    if not holds:
        print(explored.stdout[-12000:], complaints[-4000:], sep="\n", file=sys.stderr)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
