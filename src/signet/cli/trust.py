"""What every command that verifies offline is told: whom to trust, and how much must be proven."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def add_trust(parser: argparse.ArgumentParser, levels: Sequence[str]) -> None:
    """Add `--jwks`, `--trust`, `--level` (one of `levels`, SIGNED by default) and `--json`."""
    parser.add_argument("--jwks", metavar="FILE", help="a key set that you trust (RFC 7517)")
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="KID",
        help="a key thumbprint that you trust; may be given several times",
    )
    parser.add_argument(
        "--level",
        choices=levels,
        default="SIGNED",
        help="what must be proven (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
