"""Which database the processes of a test share, as their arguments say it."""

from __future__ import annotations

from pathlib import Path

from signet.storage.database import PostgresConfig, SqliteConfig


def patient(kind: str, where: str) -> SqliteConfig | PostgresConfig:
    """The database at a path (`sqlite`) or a URL, which others may keep locked for a minute."""
    if kind == "sqlite":
        return SqliteConfig(path=Path(where), busy_s=60)
    return PostgresConfig(url=where, lock_s=60, connect_s=60)
