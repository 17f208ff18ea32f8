"""argparse as every command uses it: one exit code for misuse, examples kept as written."""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NoReturn

from signet.cli.exits import Exit

if TYPE_CHECKING:
    from typing import TypeAlias

    Subparsers: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]  # pyright: ignore[reportPrivateUsage] # argparse has no public name for it

_COLUMNS: Final = 80
_KID_WITH_DASH: Final = re.compile(r"-[A-Za-z0-9_-]{42}")


class Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong and where to read on."""

    def error(self, message: str) -> NoReturn:
        """Exit 64 (argparse's own 2 means `below` here)."""
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(Exit.USAGE)


def spelled(arguments: Sequence[str]) -> list[str]:
    """Return the same arguments, the ids of keys so that argparse takes them for values.

    One key in 64 has an id that begins with a dash, and argparse sees an option in it, wherever it
    stands and however it is quoted.
    """
    kept: list[str] = []
    kids: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            return [*kept, argument, *kids, *rest]
        if not _KID_WITH_DASH.fullmatch(argument):
            kept.append(argument)
        elif kept and kept[-1] == "--trust":
            kept[-1] = f"--trust={argument}"
        else:
            kids.append(argument)
    return [*kept, "--", *kids] if kids else kept


def new_command(
    subparsers: Subparsers, name: str, *, line: str, description: str, examples: str = ""
) -> argparse.ArgumentParser:
    """Add a command; `line` is for the overview, `examples` are shown below the options."""
    return subparsers.add_parser(
        name,
        help=line,
        description=textwrap.fill(description, _COLUMNS),
        epilog=f"examples:\n{examples}" if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
