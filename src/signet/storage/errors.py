"""What the storage room can fail with. Everything a driver raises arrives as one of these."""

from __future__ import annotations

from signet.core.errors import SignetError


class StorageError(SignetError):
    """The root of every storage error. `code` is stable."""

    code = "storage_error"


class StorageUnavailable(StorageError):
    """Not acknowledged: the work is not known to be durable, and may or may not have happened.

    A retry with the same idempotency key yields the first execution or its stored answer.
    """

    code = "storage_unavailable"


class StorageBusy(StorageError):
    """Nothing was written: the queue is full, or another process kept the lock past the limit."""

    code = "storage_busy"


class IntegrityViolated(StorageError):
    """A constraint of the schema refused the row, so the transaction was rolled back."""

    code = "storage_integrity"


class Raced(StorageError):
    """Another process wrote the same row first and nothing was written here; do it again.

    Raised by transaction functions for the engine, which runs them again. Callers see it as
    `StorageBusy` when that did not help.
    """

    code = "storage_raced"


class ForeignAwait(StorageError):
    """A transaction function awaited something that is not its transaction; it was rolled back."""

    code = "storage_foreign_await"


class SchemaNewer(StorageError):
    """The database was migrated by a newer release than this one and was left untouched."""

    code = "storage_schema_newer"


class MigrationEdited(StorageError):
    """A migration that already ran was changed afterwards; the database was left untouched."""

    code = "storage_migration_edited"
