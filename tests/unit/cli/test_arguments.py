"""The parser that every command uses."""

from __future__ import annotations

import pytest

from signet.cli.arguments import Parser, new_command


def test_misuse_is_64(capsys: pytest.CaptureFixture[str]) -> None:
    """Misuse ends with 64, never with argparse's own 2, which means `below` here."""
    parser = Parser(prog="signet")
    new_command(
        parser.add_subparsers(), "do", line="does", description="Does.", examples="  x\n  y"
    )
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(["do", "--unknown"])
    assert stopped.value.code == 64
    assert capsys.readouterr().err.endswith("; see signet --help\n")


def test_examples_stay_as_written(capsys: pytest.CaptureFixture[str]) -> None:
    """The lines of the examples are not filled together."""
    parser = Parser(prog="signet")
    new_command(
        parser.add_subparsers(), "do", line="does", description="Does.", examples="  x\n  y"
    )
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(["do", "--help"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.endswith("examples:\n  x\n  y\n")
