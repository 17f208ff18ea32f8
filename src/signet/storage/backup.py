"""A copy of a SQLite database as it is at one moment, taken while gateways go on writing.

PostgreSQL brings its own tools for this, which know more than we could.
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import Protocol, cast

import apsw

from signet.storage.config import SqliteConfig
from signet.storage.errors import StorageUnavailable


class _Connection(Protocol):
    """What is used of `apsw.Connection`, whose stubs leave the values' type unknown on 3.11."""

    def execute(self, statements: str, bindings: tuple[str, ...] = ()) -> object: ...
    def set_busy_timeout(self, milliseconds: int) -> None: ...
    def close(self) -> None: ...


def back_up(config: SqliteConfig, target: Path) -> int:
    """Write a whole database file to `target`, which must not exist; its size in bytes.

    The file appears under its name only when it is complete and on the disk. Raises
    `StorageUnavailable`, and `FileExistsError` before anything is read.
    """
    if target.exists():
        raise FileExistsError(f"{target} exists")
    partial = target.with_name(f".{target.name}.partial")
    try:
        # Payloads are nobody else's business in a copy either. VACUUM INTO takes an empty file.
        os.close(os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600))
        opened = apsw.Connection(str(config.path), flags=apsw.SQLITE_OPEN_READWRITE)
        with closing(cast(_Connection, opened)) as connection:
            connection.set_busy_timeout(round(config.busy_s * 1000))
            # One read transaction: writers are not held up and their later commits not seen.
            connection.execute("VACUUM INTO ?", (str(partial),))
        _sync(partial)
        # Unlike a rename, a link never takes the place of a file that has appeared meanwhile.
        target.hardlink_to(partial)
        _sync(target.parent)
    except apsw.Error as error:
        raise StorageUnavailable(f"Cannot back up {config.path}: {error}") from error
    except FileExistsError:
        raise
    except OSError as error:
        raise StorageUnavailable(f"Cannot write {target}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    return target.stat().st_size


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
