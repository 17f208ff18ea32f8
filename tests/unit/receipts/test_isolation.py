"""The library reaches no network: not by intention, and not through what it imports."""

import subprocess
import sys

import pytest

MODULES = (
    *("accelerator", "bundle", "canonical", "chain", "errors"),
    *("ijson", "keys", "receipt", "verify"),
)


@pytest.mark.parametrize("banned", ["asyncio", "socket", "_socket", "ssl", "http", "urllib"])
def test_importing_everything_loads_no_network_module(banned: str) -> None:
    """In a fresh interpreter none of the modules that could reach a network is loaded."""
    imports = "; ".join(f"import signet.receipts.{name}" for name in MODULES)
    code = f"import sys; {imports}; import signet.cli.verify; sys.exit({banned!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=300).returncode == 0
