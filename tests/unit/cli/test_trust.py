"""Whom an offline check trusts."""

from __future__ import annotations

import argparse

import pytest

from signet.cli.trust import add_trust


def parser() -> argparse.ArgumentParser:
    """A command that verifies."""
    made = argparse.ArgumentParser()
    add_trust(made, ("INTEGRITY", "SIGNED"))
    return made


def test_nobody_is_trusted_unless_it_is_said() -> None:
    """Without options no key is pinned, and a signature must be proven all the same."""
    assert vars(parser().parse_args([])) == {
        "jwks": None,
        "trust": [],
        "level": "SIGNED",
        "json": False,
    }
    several = parser().parse_args(["--trust", "a", "--trust", "b", "--level", "INTEGRITY"])
    assert (several.trust, several.level) == (["a", "b"], "INTEGRITY")


def test_no_other_level() -> None:
    """What the command cannot prove cannot be asked of it."""
    with pytest.raises(SystemExit):
        parser().parse_args(["--level", "COMPLETE"])
