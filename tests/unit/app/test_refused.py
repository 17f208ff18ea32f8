"""Why a gateway does not start."""

from __future__ import annotations

from signet.app.refused import StartRefused


def test_it_says_what_to_mend() -> None:
    """The message is for a person, the code for a program."""
    error = StartRefused("chmod 600 it")
    assert (str(error), error.code) == ("chmod 600 it", "start_refused")
