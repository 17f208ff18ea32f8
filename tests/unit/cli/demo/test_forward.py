"""The chapter about forwarding: it claims nothing that did not happen."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from signet.cli.demo import forward
from signet.cli.demo.outside import Outside
from signet.cli.demo.page import Page
from signet.cli.demo.stage import Stage
from signet.cli.exits import CommandFailed


def stage(directory: Path, printed: io.StringIO) -> Stage:
    """A stage without a gateway: the chapter brings its own."""
    return Stage(
        page=Page(printed),
        directory=directory,
        address=("127.0.0.1", 9),
        url="http://127.0.0.1:9",
        api_key="none",
        billed_key="none",
        kid="none",
        has_pain=False,
        settings={},
        account=None,
    )


def test_it_tells_one_charge_and_one_refusal(tmp_path: Path) -> None:
    """The retry is answered as the call was, and nothing connects to the inside."""
    printed = io.StringIO()
    forward.tell(stage(tmp_path, printed))
    told = " ".join(printed.getvalue().split())
    assert "the same answer; the service charged once" in told
    assert "HEL_RESOLVED_LINKLOCAL" in told


def test_a_second_charge_ends_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the retry charged again, the demo would say so and stop."""
    monkeypatch.setattr(Outside, "charges", property(lambda _: 2, lambda _, __: None))
    with pytest.raises(CommandFailed, match="charged 2 times"):
        forward.tell(stage(tmp_path, io.StringIO()))
