"""`signet config`: what is in force, where each value comes from, secrets masked."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from signet.cli.arguments import new_command
from signet.cli.exits import Exit
from signet.settings import Environment, read_settings

if TYPE_CHECKING:
    from signet.cli.arguments import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add `config` to the command's sub-commands."""
    parser = new_command(
        subparsers,
        "config",
        line="show the settings in force",
        description="Show every setting in force and where it comes from. Secrets are masked."
        " Exits 78, with all faults, when the environment cannot be used.",
        examples="  signet config\n  signet config --json | jq '.SP_STORAGE'",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, name to value")


def run(args: argparse.Namespace) -> int:
    """Print the settings; raise `SettingsInvalid` where they cannot be used."""
    environment = read_settings(os.environ)
    if args.json:
        shown = {
            origin.declared.name: {"value": origin.shown, "source": origin.source}
            for origin in environment.origins
        }
        print(json.dumps(shown, indent=2))
    else:
        print(_table(environment))
    warn_of_unread(environment)
    return Exit.DONE


def warn_of_unread(environment: Environment) -> None:
    """Say on standard error which `SP_*` names mean nothing, and which database is not in use: what
    was mistyped or forgotten is silent otherwise."""
    for name in environment.unknown:
        print(f"warning: nothing reads {name}", file=sys.stderr)
    for name in environment.idle:
        print(f"warning: {name} is not used, because SP_STORAGE is sqlite", file=sys.stderr)


def _table(environment: Environment) -> str:
    rows = [(o.declared.name, o.shown or "-", o.source) for o in environment.origins]
    name_width = max(len(name) for name, _, _ in rows)
    value_width = max(len(value) for _, value, _ in rows if len(value) <= 44)
    return "\n".join(
        f"{name:<{name_width}}  {value:<{value_width}}  {source}" for name, value, source in rows
    )
