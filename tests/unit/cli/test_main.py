"""`signet`: the overview, misuse, and how every failure becomes a sentence and an exit code."""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.live import environment, run_signet
from tests.unit.receipts.samples import chain, export

from signet import __version__
from signet.cli.exits import MEANINGS, Exit
from signet.cli.main import COMMANDS, Command, command_parser, main, overview
from signet.receipts.keys import SigningKey


def test_overview(capsys: pytest.CaptureFixture[str]) -> None:
    """--help names every command and every exit code, within 100 columns."""
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert said == overview() + "\n"
    for command in COMMANDS:
        assert f"  {command.name:<12} {command.line}" in said
    for code in Exit:
        assert f"  {code.value:<4} {MEANINGS[code]}" in said
    assert max(map(len, said.splitlines())) <= 100


def test_nothing_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command it is misuse, and the overview goes to standard error."""
    assert main([]) == 64
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == overview() + "\n"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """--version prints the version."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"signet {__version__}\n"


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown command is misuse; a close one is offered; a long one is cut."""
    assert main(["verfy"]) == 64
    assert "did you mean verify?" in capsys.readouterr().err
    assert main(["x" * 100_000]) == 64
    assert len(capsys.readouterr().err) < 200


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_help_of_every_command(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command of the overview exists, and tells what it does."""
    assert main([command.name, "--help"]) == 0
    assert f"usage: signet {command.name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [["config", "--nonsense"], ["verify"], ["keys"], ["keys", "destroy"], ["config", "--js"]],
)
def test_misuse(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Misuse of a command ends with 64 and one line that says where to read on."""
    assert main(arguments) == 64
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.rstrip().endswith("--help")


def test_missing_package(tmp_path: Path) -> None:
    """Without its packages a command says in one sentence what to install, and ends with 69."""
    for blocked, command, extra in (
        ("uvicorn", ["serve"], "server"),
        ("starlette", ["doctor"], "server"),
    ):
        done = without(blocked, *command, cwd=tmp_path)
        assert done.returncode == 69
        assert done.stderr == (
            f"signet {command[0]}: needs the package {blocked}:"
            f" pip install 'signet-protocol[{extra}]'\n"
        )


def test_verify_needs_nothing_of_the_server(tmp_path: Path) -> None:
    """`signet verify`, `config` and `keys generate` work with the base install alone."""
    server = ("apsw", "aiohttp", "httptools", "jsonschema_rs", "orjson", "starlette", "structlog")
    blocked = ",".join((*server, "uvicorn", "uvloop", "prometheus_client", "jmespath", "idna"))
    bundle = tmp_path / "bundle.json"
    bundle.write_bytes(b"{}")
    done = without(blocked, "verify", str(bundle), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith("INVALID")
    assert without(blocked, "config", cwd=tmp_path).returncode == 0
    assert without(blocked, "keys", "generate", cwd=tmp_path).returncode == 0
    assert without(blocked, "--help", cwd=tmp_path).returncode == 0


def test_a_key_whose_id_begins_with_a_dash_is_pinned(tmp_path: Path) -> None:
    """A receipt of such a key is verified as that of any other is."""
    seeds = (number.to_bytes(32, "big") for number in itertools.count())
    key = next(key for key in map(SigningKey.from_seed, seeds) if key.kid.startswith("-"))
    file = tmp_path / "bundle.json"
    file.write_bytes(export(chain(2, key=key), key=key))
    assert main(["verify", str(file), "--trust", key.kid]) == 0


def test_reader_that_leaves(tmp_path: Path) -> None:
    """`signet config | head -1` ends quietly."""
    line = f"{sys.executable} -c 'from signet.cli.main import main; main()' config | head -c 1"
    done = subprocess.run(
        ["/bin/sh", "-c", line],
        cwd=tmp_path,
        env=environment({}),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert done.stderr == ""


def test_failure_nobody_expected(tmp_path: Path) -> None:
    """A defect is told in two lines, and with its traceback where debugging is on."""
    program = (
        "import signet.cli.config as c; from signet.cli.main import main;"
        "c.read_settings = lambda environ: 1 / 0; raise SystemExit(main(['config']))"
    )
    plain = python(program, cwd=tmp_path, settings={})
    assert plain.returncode == 1
    assert plain.stderr == textwrap.dedent(
        """\
        signet config: failed unexpectedly: ZeroDivisionError: division by zero
          SP_LOG_LEVEL=debug shows where
        """
    )
    debugged = python(program, cwd=tmp_path, settings={"SP_LOG_LEVEL": "debug"})
    assert debugged.returncode == 1
    assert "Traceback" in debugged.stderr


def test_interrupted(tmp_path: Path) -> None:
    """Ctrl-C ends with 130 and says nothing."""
    program = (
        "import signet.cli.config as c; from signet.cli.main import main\n"
        "def interrupt(environ): raise KeyboardInterrupt\n"
        "c.read_settings = interrupt; raise SystemExit(main(['config']))"
    )
    done = python(program, cwd=tmp_path, settings={})
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_settings_invalid(tmp_path: Path) -> None:
    """Settings that cannot be used are 78 from whichever command reads them."""
    for command in ("config", "serve"):
        done = run_signet(command, cwd=tmp_path, settings={"SP_PORT": "-1"})
        assert done.returncode == 78
        assert "  SP_PORT: expected a whole number from 0 to 65535\n" in done.stderr


def without(blocked: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in an interpreter in which the packages `blocked` cannot be found."""
    program = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked.split(",")!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
from signet.cli.main import main
raise SystemExit(main({list(arguments)!r}))
"""
    return python(program, cwd=cwd, settings={})


def python(
    program: str, *, cwd: Path, settings: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a program in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=cwd,
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def parsers(parser: argparse.ArgumentParser, line: str) -> Iterator[tuple[str, Any]]:
    """A parser and all those below it, each with its command line."""
    yield line, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from parsers(below, f"{line} {name}".strip())


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_help_is_complete(command: Command) -> None:
    """Every command and action says what it does, and every argument what it is for."""
    for line, parser in list(parsers(command_parser(command), ""))[1:]:
        assert parser.description, line
        for action in parser._actions:
            described = action.help or isinstance(action, argparse._SubParsersAction)
            assert described, f"{line} {action.dest}"
            for choice in getattr(action, "_choices_actions", ()):
                assert choice.help, f"{line} {choice.dest}"
