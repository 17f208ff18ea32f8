"""`signet migrate`: what the database's schema lacks, and bringing it up to date.

`signet serve` does the same at its start. Here it is a step of its own, for deployments that
migrate once before they roll out, or under another database role. It needs the database alone: a
job that migrates is not given the signing key.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from typing import TYPE_CHECKING

from signet.app import storage_config
from signet.cli.arguments import new_command
from signet.cli.exits import Exit
from signet.settings import read_settings
from signet.storage.database import PostgresConfig, SqliteConfig, open_database
from signet.storage.schema import Schema, read_schema

if TYPE_CHECKING:
    from signet.cli.arguments import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add `migrate` to the command's sub-commands."""
    parser = new_command(
        subparsers,
        "migrate",
        line="bring the database's schema up to date",
        description="Say which migrations the database of the settings lacks, or apply them under"
        " a lock, all or none. --check changes nothing and exits 1 when something is lacking.",
        examples="  signet migrate --check\n  signet migrate --apply",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true", help="only say what is lacking")
    what.add_argument("--apply", action="store_true", help="apply what is lacking")


def run(args: argparse.Namespace) -> int:
    """Print where the database is; with --check exit 1 when that is not the newest schema."""
    config = storage_config(read_settings(os.environ, signs=False).settings)
    before = asyncio.run(read_schema(config))
    if args.apply:
        version = asyncio.run(_apply(config))
        for step in before.pending:
            print(f"applied {step.version:04} {step.name}")
        print(f"the database is at schema {version}")
        return Exit.DONE
    print(f"the database is at schema {before.version}{_lacking(before)}")
    return Exit.FAILED if before.pending else Exit.DONE


async def _apply(config: SqliteConfig | PostgresConfig) -> int:
    async with open_database(config) as database:
        return database.schema_version


def _lacking(schema: Schema) -> str:
    if not schema.pending:
        return ", which is the newest"
    steps = ", ".join(f"{step.version:04} {step.name}" for step in schema.pending)
    return f"; it lacks {steps}: run signet migrate --apply, or start the gateway"
