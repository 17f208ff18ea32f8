"""The chapter of a tenant's month, with and without a Stripe to send to."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import pytest

from signet.cli.demo import month
from signet.cli.demo import stage as staging
from signet.cli.demo.page import Page
from signet.cli.demo.stage import open_stage
from signet.cli.exits import CommandFailed


def test_without_stripe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the SDK is missing the month is told all the same, and says what is left out."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(staging, "_has_stripe", lambda: False)
    text = io.StringIO()
    with open_stage(Page(text)) as stage:
        assert stage.account is None
        month.tell(stage)
    said = " ".join(text.getvalue().split())
    assert "tier 1 5 2.50 5 - tier 2 3 0.90 3 -" in said
    assert "SIGNED: statement 1" in said
    assert "Stripe is left out" in said
    assert list(tmp_path.iterdir()) == []


def test_it_claims_nothing_that_did_not_happen(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for in vain ends the demo with a sentence."""
    monkeypatch.setattr(month, "_WAIT_S", 0.3)
    with pytest.raises(CommandFailed, match="it did not come"):
        month._awaited(lambda: None, "it did not come")
