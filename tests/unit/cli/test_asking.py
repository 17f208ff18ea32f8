"""Asking a gateway: what it answers, what it refuses, and when it is none."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from tests.live import live

from signet.cli.asking import ask
from signet.cli.exits import CommandFailed, Exit


def _args(url: str, api_key: str | None = "acme-key") -> argparse.Namespace:
    return argparse.Namespace(url=url, api_key=api_key)


def test_an_answer_and_a_refusal(tmp_path: Path) -> None:
    """An object is returned; a problem is raised with its title, its detail and its faults."""
    with live(tmp_path) as gateway:
        assert ask(_args(gateway.url), "GET", "/healthz")["ok"] is True
        with pytest.raises(CommandFailed, match="404") as caught:
            ask(_args(gateway.url), "GET", "/v1/registry/types/none.v1")
        assert caught.value.exit is Exit.FAILED
        with pytest.raises(CommandFailed, match="400") as caught:
            ask(_args(gateway.url), "POST", "/v1/dry-run", b"{}")
        assert "/payload" in [fault.pointer for fault in caught.value.faults]


@pytest.mark.parametrize("url", ["ftp://x", "http://[", "http://user:pass@x", "nothing"])
def test_a_url_that_is_none(url: str) -> None:
    """Said before anything is asked."""
    with pytest.raises(CommandFailed) as caught:
        ask(_args(url), "GET", "/")
    assert caught.value.exit is Exit.USAGE


def test_nobody_there_and_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its own exit code."""
    with pytest.raises(CommandFailed, match="no answer") as caught:
        ask(_args("http://127.0.0.1:9"), "GET", "/")
    assert caught.value.exit is Exit.UNAVAILABLE
    monkeypatch.delenv("SIGNET_API_KEY", raising=False)
    with pytest.raises(CommandFailed, match="SIGNET_API_KEY"):
        ask(_args("http://127.0.0.1:9", None), "GET", "/")
