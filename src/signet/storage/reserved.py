"""Reserved-capacity documents: which one is in force, for every process of every node."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from signet.storage.errors import Raced
from signet.storage.tx import ReadTx, Tx


class StoredReserved(NamedTuple):
    """A document that came into force; later revisions replace earlier ones."""

    revision: int
    document: bytes


async def in_force(tx: ReadTx) -> StoredReserved | None:
    """The document in force; None before there ever was one."""
    return await tx.one(
        StoredReserved,
        "SELECT revision, document FROM reserved_documents ORDER BY revision DESC LIMIT 1",
    )


async def newer_than(tx: ReadTx, revision: int) -> StoredReserved | None:
    """The document in force, unless it is of this revision."""
    return await tx.one(
        StoredReserved,
        """SELECT revision, document FROM reserved_documents WHERE revision > :revision
        ORDER BY revision DESC LIMIT 1""",
        revision=revision,
    )


async def was_in_force(tx: ReadTx, document: bytes) -> bool:
    """Tell whether this very document is in force or was before."""
    found = await tx.one(
        int,
        "SELECT revision FROM reserved_documents WHERE hash = :hash LIMIT 1",
        hash=hashlib.sha256(document).digest(),
    )
    return found is not None


async def put_into_force(tx: Tx, document: bytes, now_us: int) -> int:
    """Bring a document into force and return its revision; the one in force stays as it is.

    Raises `Raced` when another process did so at this very moment.
    """
    now = await in_force(tx)
    if now is not None and now.document == document:
        return now.revision
    revision = 1 if now is None else now.revision + 1
    written = await tx.execute(
        """INSERT INTO reserved_documents (revision, hash, at_us, document)
        VALUES (:revision, :hash, :now, :document) ON CONFLICT DO NOTHING""",
        revision=revision,
        hash=hashlib.sha256(document).digest(),
        now=now_us,
        document=document,
    )
    if not written:
        raise Raced("Another process put a document into force first.")
    return revision
