"""What an engine must be told to open a database."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteConfig:
    """Where the file is, and how patient and how large its writer's queue may be.

    `busy_s` bounds the wait for another process's lock. `max_group` units share one commit.
    """

    path: Path
    busy_s: float = 5.0
    queue_limit: int = 4096
    max_group: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresConfig:
    """How to reach PostgreSQL.

    `url` may name several hosts; the one that accepts writes is used, also after a failover.
    `replica_url` serves `Database.read` only. `statement_cache_size` must be 0 behind a pooler in
    transaction mode. `queue_s` bounds the wait for a connection of the pool that others use.
    """

    # Never shown: it may hold a password.
    url: str = field(repr=False)
    replica_url: str | None = field(default=None, repr=False)
    pool_size: int = 10
    connect_s: float = 5.0
    queue_s: float = 20.0
    statement_s: float = 10.0
    lock_s: float = 5.0
    statement_cache_size: int = 100
