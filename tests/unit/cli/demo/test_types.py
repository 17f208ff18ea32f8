"""The demo's registry directory is the one that users are told to copy."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

EXAMPLES = Path(__file__).parents[4] / "examples" / "types"


def test_same_as_the_examples() -> None:
    """Every example is in the demo, and nothing else, byte for byte."""
    shipped = {
        entry.name: entry.read_bytes()
        for entry in resources.files("signet.cli.demo.types").iterdir()
        if entry.name.endswith(".json")
    }
    assert shipped == {path.name: path.read_bytes() for path in EXAMPLES.glob("*/*.json")}
