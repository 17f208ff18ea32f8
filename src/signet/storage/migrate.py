"""Which schema files there are, and which of them a database still needs.

The engines apply them, each under its own lock, so that any number of processes may start at once
on an empty database.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import NamedTuple

from signet.storage.errors import MigrationEdited, SchemaNewer
from signet.storage.tx import Engine, ReadTx, Tx

_FILE = re.compile(r"(\d{4})_([a-z0-9_]+)(?:\.(sqlite|postgres))?\.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One numbered step of the schema for one engine."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, by which an edit after the fact is found."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


class Applied(NamedTuple):
    """A row of `schema_migrations`: a step that this database has taken."""

    version: int
    name: str
    checksum: str


TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    checksum TEXT NOT NULL
)
"""


async def applied(tx: ReadTx) -> list[Applied]:
    """The steps that this database has taken."""
    return await tx.all(
        Applied, "SELECT version, name, checksum FROM schema_migrations ORDER BY version"
    )


async def newest(tx: ReadTx) -> int:
    """The number of the last step that this database has taken."""
    return await tx.one(int, "SELECT coalesce(max(version), 0) FROM schema_migrations") or 0


async def record(tx: Tx, step: Migration) -> None:
    """Note a step in the transaction that took it."""
    await tx.execute(
        "INSERT INTO schema_migrations (version, name, checksum) VALUES (:version, :name, :sum)",
        version=step.version,
        name=step.name,
        sum=step.checksum,
    )


def migrations(engine: Engine) -> list[Migration]:
    """Every step for an engine, in order. The numbers begin at 1 and leave no gap."""
    found = [
        Migration(version=int(match[1]), name=match[2], sql=entry.read_text("utf-8"))
        for entry in files("signet.storage.migrations").iterdir()
        if (match := _FILE.fullmatch(entry.name)) and match[3] in (None, engine)
    ]
    found.sort(key=lambda step: step.version)
    if [step.version for step in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"The {engine} migrations are not numbered 1, 2, 3, …")
    return found


def pending(steps: Sequence[Migration], taken: Sequence[Applied]) -> Sequence[Migration]:
    """The steps that a database that took `taken` still needs.

    Raises `SchemaNewer` when it has steps unknown here, and `MigrationEdited` when one of its steps
    reads differently now.
    """
    if len(taken) > len(steps):
        raise SchemaNewer(
            f"The database is at schema {taken[-1].version}; this release knows {len(steps)}. "
            "Start the release that migrated it, or a newer one."
        )
    for step, ran in zip(steps, taken, strict=False):
        if ran != (step.version, step.name, step.checksum):
            raise MigrationEdited(
                f"Migration {step.version:04} ({step.name}) is not the one that this database ran "
                f"as {ran.version:04} ({ran.name}). Restore the released file; add a new one."
            )
    return steps[len(taken) :]
