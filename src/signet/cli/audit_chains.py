"""`signet audit-chains`: is everything in this database what it should be? Gateways may run on."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from signet.app import storage_config
from signet.cli.arguments import new_command
from signet.cli.exits import CommandFailed, Exit
from signet.cli.terminal import Progress as Line
from signet.gateway.chains import Flaw, Progress, audit
from signet.settings import read_settings
from signet.storage.database import Database, PostgresConfig, SqliteConfig, open_database
from signet.storage.schema import read_schema

if TYPE_CHECKING:
    from signet.cli.arguments import Subparsers

_SHOWN: Final = 100


def add_parser(subparsers: Subparsers) -> None:
    """Add `audit-chains` to the command's sub-commands."""
    parser = new_command(
        subparsers,
        "audit-chains",
        line="check every chain, head and unit of a live database",
        description="Recompute every hash, check every signature and link, hold heads against the"
        " receipts that they point at, and running totals against what receipts metered, in bounded"
        " memory and beside running gateways. Exits 1 when something does not hold.",
        examples="  signet audit-chains\n  signet audit-chains --json",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Print what does not hold and how much was looked at."""
    config = storage_config(read_settings(os.environ).settings)
    progress, flaws = asyncio.run(_audit(config))
    if args.json:
        shown = [asdict(flaw) for flaw in flaws]
        print(json.dumps({"ok": not progress.flaws, **asdict(progress), "found": shown}))
    else:
        print_flaws(progress, flaws)
    return Exit.FAILED if progress.flaws else Exit.DONE


def print_flaws(progress: Progress, flaws: list[Flaw]) -> None:
    """Print the first flaws, and how much holds."""
    for flaw in flaws:
        print(f"{flaw.kind}: tenant {flaw.tenant}, {flaw.subject}: {flaw.detail}")
    if progress.flaws > len(flaws):
        print(f"... and {progress.flaws - len(flaws)} more")
    verdict = f"{progress.flaws} DO NOT HOLD" if progress.flaws else "all hold"
    print(
        f"{progress.receipts} receipts, {progress.chains} chains, {progress.heads} heads,"
        f" {progress.months} months, {progress.entries} audit entries: {verdict}"
    )


async def audited(database: Database) -> tuple[Progress, list[Flaw]]:
    """Audit a database while a person watches; the first flaws and all counts."""
    progress, kept = Progress(), list[Flaw]()
    with Line("audit", stream=sys.stderr) as line:
        async for progress, flaws in audit(database):
            kept += flaws[: _SHOWN - len(kept)]
            line.show(
                f"{progress.receipts} receipts, {progress.heads} heads,"
                f" {progress.months} months, {progress.entries} audit entries,"
                f" {progress.flaws} flaws"
            )
    return progress, kept


async def _audit(config: SqliteConfig | PostgresConfig) -> tuple[Progress, list[Flaw]]:
    if isinstance(config, SqliteConfig) and not config.path.exists():
        raise CommandFailed(f"there is no database {config.path}", Exit.UNAVAILABLE)
    schema = await read_schema(config)
    if schema.pending:
        # An audit changes nothing, hence not the schema either.
        detail = f"the database is at schema {schema.version}; run signet migrate --apply first"
        raise CommandFailed(detail, Exit.UNAVAILABLE)
    async with open_database(config) as database:
        return await audited(database)
