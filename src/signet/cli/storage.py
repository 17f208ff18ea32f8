"""`signet storage`: move a deployment to another database, or keep a copy of it.

A move proves that everything arrived. It may be interrupted and run again, and it may be run once
while the gateway still serves, so that the run after its stop has little left to do.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from signet.app import storage_config
from signet.app.billing import stripe_landmark
from signet.cli.arguments import new_command
from signet.cli.audit_chains import audited, print_flaws
from signet.cli.exits import CommandFailed, Exit
from signet.cli.terminal import Progress as Line
from signet.cli.terminal import bytes_text
from signet.settings import read_settings
from signet.storage import outbox
from signet.storage.backup import back_up
from signet.storage.copying import copy_all
from signet.storage.database import Database, PostgresConfig, SqliteConfig, open_database
from signet.storage.schema import read_schema

if TYPE_CHECKING:
    from signet.cli.arguments import Subparsers

_PASSES: Final = 3


def add_parser(subparsers: Subparsers) -> None:
    """Add `storage` to the command's sub-commands."""
    parser = new_command(
        subparsers,
        "storage",
        line="move everything to another database, or back it up",
        description="Move everything to another database, take a backup of SQLite, or say that"
        " the database of the settings comes from one.",
        examples="""  signet storage copy --from sqlite:data/signet.db --to postgres:
  signet storage backup /backups/signet-2026-11-23.db""",
    )
    what = parser.add_subparsers(dest="what", required=True, metavar="ACTION")
    copy = new_command(
        what,
        "copy",
        line="copy everything, and verify it",
        description="Copy every row from one database to another, whichever engines they are, and"
        " verify every chain, head and unit on arrival. Run it again after an interruption; it"
        " writes only what is not there.",
        examples="""  signet storage copy --from sqlite:data/signet.db --to postgres:
  signet storage copy --from postgres: --to sqlite:copy.db""",
    )
    for option, dest in (("--from", "source"), ("--to", "target")):
        copy.add_argument(
            option,
            dest=dest,
            required=True,
            metavar="DB",
            type=_database,
            help="sqlite:PATH, a postgresql:// URL, or `postgres:` for SP_POSTGRES_URL, which keeps"
            " the password out of the process list",
        )
    backup = new_command(
        what,
        "backup",
        line="copy the SQLite file",
        description="Write the SQLite database of the settings to a file as it is at one moment,"
        " while gateways go on writing.",
    )
    backup.add_argument("file", metavar="FILE", type=Path, help="a file that is not there yet")
    new_command(
        what,
        "restored",
        line="say that this is a restored backup",
        description="Say that the database of the settings comes from a backup, before anything is"
        " served: audit it, and have Stripe asked what it holds before anything is sent.",
    )


def run(args: argparse.Namespace) -> int:
    """Copy until a pass finds nothing to write, then audit the target; or back up."""
    if args.what == "backup":
        return _back_up(storage_config(read_settings(os.environ).settings), args.file)
    if args.what == "restored":
        settings = read_settings(os.environ).settings
        return asyncio.run(_restored(storage_config(settings), stripe_landmark(settings).read()))
    if args.source == args.target:
        raise CommandFailed("source and target are the same database", Exit.USAGE)
    return asyncio.run(_copy(args.source, args.target))


def _database(text: str) -> SqliteConfig | PostgresConfig:
    engine, _, place = text.partition(":")
    if engine == "sqlite" and place:
        return SqliteConfig(path=Path(place.removeprefix("//")).expanduser().resolve())
    if engine in ("postgres", "postgresql"):
        storage = read_settings(os.environ).settings.storage
        url = text if place.startswith("//") else place or storage.postgres_url
        if url:
            cache = storage.postgres_statement_cache
            return PostgresConfig(url=url, statement_cache_size=cache)
    raise argparse.ArgumentTypeError(
        "a database reads sqlite:PATH, postgres:URL, or postgres: with SP_POSTGRES_URL set"
    )


def _back_up(config: SqliteConfig | PostgresConfig, file: Path) -> int:
    if isinstance(config, PostgresConfig):
        detail = "PostgreSQL is backed up by its own tools (pg_dump, pg_basebackup)"
        raise CommandFailed(detail, Exit.USAGE)
    try:
        size = back_up(config, file)
    except FileExistsError as error:
        raise CommandFailed(f"{error}; a backup never overwrites", Exit.USAGE) from error
    print(f"{file}: {bytes_text(size)}")
    return Exit.DONE


async def _restored(config: SqliteConfig | PostgresConfig, sends: int) -> int:
    if isinstance(config, SqliteConfig) and not config.path.exists():
        raise CommandFailed(f"there is no database {config.path}", Exit.UNAVAILABLE)
    async with open_database(config) as database:
        fresh, now_us = secrets.token_hex(16), time.time_ns() // 1000
        await database.transact(outbox.restored, fresh, now_us, sends=sends)
        progress, flaws = await audited(database)
    print_flaws(progress, flaws)
    print("nothing is sent to Stripe before it has been asked what it holds")
    return Exit.FAILED if progress.flaws else Exit.DONE


async def _copy(
    source_config: SqliteConfig | PostgresConfig, target_config: SqliteConfig | PostgresConfig
) -> int:
    if isinstance(source_config, SqliteConfig) and not source_config.path.exists():
        raise CommandFailed(f"there is no database {source_config.path}", Exit.UNAVAILABLE)
    schema = await read_schema(source_config)
    if schema.pending:
        # The source is only read, so that the old deployment can still be gone back to.
        detail = f"the source is at schema {schema.version}; migrate it first (signet migrate)"
        raise CommandFailed(detail, Exit.UNAVAILABLE)
    async with open_database(source_config) as source, open_database(target_config) as target:
        for number in range(1, _PASSES + 1):
            if not await _pass(source, target, number):
                break
        else:
            detail = "the source is still being written to: stop its gateways and run this again"
            raise CommandFailed(detail)
        progress, flaws = await audited(target)
    print_flaws(progress, flaws)
    return Exit.FAILED if progress.flaws else Exit.DONE


async def _pass(source: Database, target: Database, number: int) -> int:
    """Go through all tables once; how many rows had to be written or removed."""
    tables: dict[str, int] = {}
    compared: dict[str, int] = {}
    with Line(f"pass {number}", stream=sys.stderr) as line:
        async for copied in copy_all(source, target):
            tables[copied.table] = copied.written + copied.removed
            compared[copied.table] = copied.compared
            line.show(f"{copied.table}: {copied.compared} rows, {copied.written} written")
    changed = sum(tables.values())
    print(f"pass {number}: {sum(compared.values())} rows compared, {changed} written or removed")
    return changed
