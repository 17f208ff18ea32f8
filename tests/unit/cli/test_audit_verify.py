"""`signet audit verify` needs nothing of the server, and never reads a hostile line whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from signet.cli.audit_verify import verify_file


def test_it_loads_no_part_of_the_server() -> None:
    """An auditor with the base install can run it."""
    program = (
        "import sys, signet.cli.audit_verify\n"
        "print([m for m in sys.modules if m.split('.')[0] in"
        " ('starlette', 'apsw', 'asyncpg', 'prometheus_client', 'http', 'socket', 'asyncio')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("content", [b"x" * (5 << 20), b"", b"\n\n", b"[" * 100_000])
def test_a_hostile_file_is_invalid(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the file holds, it is said to be invalid."""
    file = tmp_path / "log.jsonl"
    file.write_bytes(content)
    code = verify_file(str(file), manifest=None, jwks=None, trust=(), signed=False, as_json=False)
    assert code == 1
    assert capsys.readouterr().out.startswith("INVALID: ")
