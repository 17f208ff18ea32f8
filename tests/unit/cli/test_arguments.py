"""The parser that every command uses."""

from __future__ import annotations

import pytest

from signet.cli.arguments import Parser, new_command, spelled
from signet.cli.main import COMMANDS, command_parser

KID = "-hQ7zJ5mHq0Yk3Zb1c4d6e8f9A_-BCDEFGHIJKLMNOP"
"""As one key in 64 is called; argparse would print the help for this one."""


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


@pytest.mark.parametrize(
    ("arguments", "taken"),
    [
        (["verify", "a.json", "--trust", KID, "--json"], {"trust": [KID], "files": ["a.json"]}),
        (["verify", "--trust", "x", "--trust", KID, "a"], {"trust": ["x", KID], "files": ["a"]}),
        (["verify", f"--trust={KID}", "a"], {"trust": [KID]}),
        (["audit", "verify", "--trust", KID, "a"], {"trust": [KID], "file": "a"}),
        (["keys", "retire", KID], {"kid": KID, "json": False}),
        (["keys", "retire", KID, "--json"], {"kid": KID, "json": True}),
        (["keys", "revoke", "--json", "--", KID], {"kid": KID, "json": True}),
    ],
)
def test_a_key_may_begin_with_a_dash(arguments: list[str], taken: dict[str, object]) -> None:
    """Its id is a value and no option, before other arguments and behind them."""
    command = next(c for c in COMMANDS if c.name == arguments[0])
    args = vars(command_parser(command).parse_args(spelled(arguments)))
    assert {name: args[name] for name in taken} == taken


def test_everything_else_is_spelled_as_it_was() -> None:
    """Options, numbers and what stands behind the two dashes are left alone."""
    for arguments in (["serve", "--workers", "-1"], ["x", "-h"], ["x", "--", "a", KID], []):
        assert spelled(arguments) == arguments
