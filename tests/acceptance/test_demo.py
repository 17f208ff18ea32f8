"""`signet demo` as a stranger runs it: a process of its own, and afterwards nothing of it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from tests.live import environment, signet, until


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """The directory for temporary files."""
    directory = tmp_path / "tmp"
    directory.mkdir()
    return directory


def test_whole_story(tmp_path: Path, scratch: Path) -> None:
    """It ends well, within a minute, shows every chapter, and leaves nothing behind."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        signet("demo"),
        cwd=tmp_path,
        env=environment({"TMPDIR": str(scratch)}),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # Of processor time, so that it holds on a machine that others use.
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime < 60
    for shown in (
        "an invoice: 1234.5 EUR, 123450 cents",
        "a pain.001.001.09, sha256:",
        "byte for byte: one effect, one receipt",
        "idempotency_key_reused",
        'arguments_invalid at /payload/tool_calls/0/function/arguments: "currency"',
        "mapping_failed at /payload/tool_calls/0/function/arguments/amount: EUR has",
        "the same answer; the service charged once",
        "HEL_RESOLVED_LINKLOCAL",
        "SIGNED: bundle of trace demo-1, tenant acme",
        "INVALID: Step 4, hop 2, `receipt_hash`",
        "180 % 18 of 10 reserved",
        "over the reserve: 8 exchanges, 3.40 USD",
        "tenant bakery 3 lines of 18 receipts, 3.40 USD",
        "tier 1 5 2.50 5 5 units tier 2 3 0.90 3 3 units",
    ):
        assert shown in " ".join(done.stdout.split())
    assert done.stdout.isascii()
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert done.stderr == ""
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted(tmp_path: Path, scratch: Path, number: signal.Signals) -> None:
    """Ctrl-C, a kill or a closed terminal end it with 130; gateway and files are gone."""
    demo = subprocess.Popen(
        signet("demo"),
        cwd=tmp_path,
        env=environment({"TMPDIR": str(scratch)}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert demo.stdout is not None
        next(line for line in demo.stdout if line.startswith("1  "))
        children = psutil.Process(demo.pid).children(recursive=True)
        assert children
        os.kill(demo.pid, number)
        demo.stdout.read()
        assert demo.wait(120) == 130
        until(lambda: not any(child.is_running() for child in children))
        assert list(scratch.iterdir()) == []
    finally:
        if demo.poll() is None:
            demo.kill()
        demo.wait(120)
        assert demo.stdout is not None
        demo.stdout.close()
