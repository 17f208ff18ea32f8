"""Moving everything from one database to another, whichever engines they are.

Every table is walked in the order of its primary key, a page of each side at a time, and only
what differs is written. So a copy that was interrupted goes on by finding most of it in place,
and a pass that finds nothing to write has proven both sides equal.

The names of tables and columns come from the databases' own catalogues, so that a migration need
not be told here; `_literal` lets nothing else than a plain name into a statement.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final, LiteralString, NamedTuple, cast

from signet.storage.database import Database
from signet.storage.errors import StorageError
from signet.storage.tx import PerRow, ReadTx, Tx, Value

# Small enough that a page of the largest payloads and answers fits into memory.
PAGE: Final = 64
NOT_COPIED: Final = {
    "schema_migrations": "each side has its own, and both must be at the same one",
    "probe": "the row that a readiness probe rewrites",
}
"""Tables that are not moved, each with the reason. All others are, whoever makes them."""
# A row here that the source does not have means that the target belongs to somebody else.
_NEVER_REMOVED: Final = frozenset(
    {
        *("receipts", "heads", "signing_keys", "registry_documents", "billing_statements"),
        *("tenants", "api_keys"),
    }
)
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_LETTERS: Final[Sequence[LiteralString]] = ("a", "b", "c", "d", "e", "f")

Row = tuple[Value, ...]


class CopyRefused(StorageError):
    """The two databases cannot be made one: the target holds what the source does not."""

    code = "storage_copy_refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """How far one table is in this pass: rows compared, written and removed."""

    table: str
    compared: int
    written: int
    removed: int


async def copy_all(
    source: Database, target: Database, *, page: int = PAGE
) -> AsyncIterator[Copied]:
    """Make `target` hold exactly what `source` holds; yield after every page.

    What is written to the source behind the walk is found by the next pass. Raises `CopyRefused`
    before anything is overwritten that was not copied from there.
    """
    # The log goes first: by it a foreign target is recognised before anything is touched.
    for table in sorted(
        await _tables(source, target), key=lambda t: (t.name != "receipts", t.name)
    ):
        async for copied in _copy(source, target, table, page):
            yield copied
    await target.transact(_go_on_counting)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """A table as both databases have it. `kinds` are the columns' types."""

    name: LiteralString
    columns: tuple[LiteralString, ...]
    kinds: tuple[LiteralString, ...]
    key: tuple[LiteralString, ...]

    def kind(self, column: LiteralString) -> LiteralString:
        return self.kinds[self.columns.index(column)]

    def key_of(self, row: Row) -> Row:
        return tuple(row[self.columns.index(name)] for name in self.key)


class _Column(NamedTuple):
    """A column in a catalogue; `key` is its place in the primary key from 1, 0 if it has none."""

    table: str
    column: str
    kind: str
    key: int


async def _tables(source: Database, target: Database) -> list[_Table]:
    """Every table. Raises `CopyRefused` when the two sides do not have the same ones."""
    here, there = await source.read_current(_columns), await target.read_current(_columns)
    if {c[:2] + c[3:] for c in here} != {c[:2] + c[3:] for c in there}:
        raise CopyRefused("The databases do not have the same tables; migrate both first.")
    # PostgreSQL is told the types of what it is sent; SQLite knows them by itself.
    columns = here if source.kind == "postgres" else there
    tables: list[_Table] = []
    for name in sorted({c.table for c in columns} - NOT_COPIED.keys()):
        ours = [c for c in columns if c.table == name]
        tables.append(
            _Table(
                name=_literal(name),
                columns=tuple(_literal(c.column) for c in ours),
                kinds=tuple(_literal(c.kind) for c in ours),
                key=tuple(_literal(c.column) for c in sorted(ours, key=lambda c: c.key) if c.key),
            )
        )
    return tables


def _literal(name: str) -> LiteralString:
    """A name out of a catalogue, fit to stand in a statement."""
    if _NAME.fullmatch(name) is None:
        raise CopyRefused(f"The name {name!r} was not made by a migration.")
    return cast(LiteralString, name)


async def _columns(tx: ReadTx) -> list[_Column]:
    if tx.engine == "sqlite":
        return await tx.all(
            _Column,
            """
            SELECT t.name, c.name, lower(c.type), c.pk
            FROM sqlite_schema t JOIN pragma_table_info(t.name) c
            WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite%'
            """,
        )
    # Unlogged tables are what may be forgotten at any time, so they are not moved either.
    return await tx.all(
        _Column,
        """
        SELECT CAST(t.relname AS TEXT), CAST(a.attname AS TEXT),
            CAST(format_type(a.atttypid, NULL) AS TEXT), coalesce(k.place, 0)
        FROM pg_class t JOIN pg_attribute a ON a.attrelid = t.oid
        LEFT JOIN pg_index i ON i.indrelid = t.oid AND i.indisprimary
        LEFT JOIN LATERAL unnest(CAST(i.indkey AS int2[])) WITH ORDINALITY AS k (number, place)
            ON k.number = a.attnum
        WHERE t.relkind = 'r' AND t.relpersistence = 'p' AND a.attnum > 0 AND NOT a.attisdropped
            AND t.relnamespace = CAST(current_schema() AS regnamespace)
        """,
    )


async def _copy(
    source: Database, target: Database, table: _Table, page: int
) -> AsyncIterator[Copied]:
    compared = written = removed = 0
    after: Row | None = None
    while True:
        theirs = await source.read_current(_rows, table, after=after, upto=None, limit=page)
        upto = table.key_of(theirs[-1]) if len(theirs) == page else None
        ours = await target.read_current(
            _rows, table, after=after, upto=upto, limit=len(theirs) + page
        )
        full = len(ours) == len(theirs) + page
        if full:  # the target has far more here, so only what was read of it can be compared
            upto = table.key_of(ours[-1])
            theirs = [row for row in theirs if not _is_behind(table.key_of(row), upto)]
        known = {table.key_of(row): row for row in ours}
        changed = [row for row in theirs if known.get(table.key_of(row)) != row]
        extra = known.keys() - {table.key_of(row) for row in theirs}
        _refuse_foreign(table, changed, known, extra)
        if changed or extra:
            await target.transact(_write, table, changed, sorted(extra, key=repr))
        compared, written, removed = (
            compared + len(theirs),
            written + len(changed),
            removed + len(extra),
        )
        yield Copied(table=table.name, compared=compared, written=written, removed=removed)
        if upto is None:
            return
        after = upto


def _is_behind(one: Row, other: Row) -> bool:
    """Whether a key comes later. Code points are in the order of their UTF-8 bytes."""
    return cast("tuple[str, ...]", one) > cast("tuple[str, ...]", other)


def _refuse_foreign(
    table: _Table, changed: Sequence[Row], known: dict[Row, Row], extra: set[Row]
) -> None:
    overwritten = table.name == "receipts" and any(table.key_of(row) in known for row in changed)
    if overwritten or (extra and table.name in _NEVER_REMOVED):
        raise CopyRefused(
            f"The target has rows in {table.name} that the source has not: it is another"
            " deployment's database. Copy into an empty one."
        )


async def _rows(
    tx: ReadTx, table: _Table, *, after: Row | None, upto: Row | None, limit: int
) -> list[Row]:
    """Rows in the order of the key, behind `after` and not behind `upto`."""
    # Any other collation than that of the bytes would order the two sides differently.
    ordered = ", ".join(
        f'{name} COLLATE "C"' if tx.engine == "postgres" and table.kind(name) == "text" else name
        for name in table.key
    )
    conditions: list[LiteralString] = []
    params: dict[str, Value] = {"most": limit}
    if after is not None:
        conditions.append(f"({ordered}) > ({_bound('after', after, params)})")
    if upto is not None:
        conditions.append(f"({ordered}) <= ({_bound('upto', upto, params)})")
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    return await tx.all(
        _row,
        f"SELECT {', '.join(table.columns)} FROM {table.name} {where}"  # noqa: S608
        f" ORDER BY {ordered} LIMIT :most",
        **params,
    )


def _bound(prefix: LiteralString, values: Row, params: dict[str, Value]) -> LiteralString:
    """Parameters for the values of a key, which are put into `params`."""
    names: list[LiteralString] = [f"{prefix}_{letter}" for letter in _LETTERS[: len(values)]]
    params.update(zip(names, values, strict=True))
    marks: list[LiteralString] = [f":{name}" for name in names]
    return ", ".join(marks)


def _row(*values: Value) -> Row:
    return values


async def _write(tx: Tx, table: _Table, changed: Sequence[Row], extra: Sequence[Row]) -> None:
    """Remove the rows with the keys `extra`, then insert `changed` or replace what is there."""
    key, columns = ", ".join(table.key), ", ".join(table.columns)
    await tx.execute_each(
        PerRow(
            sqlite=f"DELETE FROM {table.name} WHERE ({key}) = ({_marks(table.key)})",  # noqa: S608
            postgres=f"DELETE FROM {table.name} WHERE ({key}) IN"  # noqa: S608
            f" (SELECT * FROM unnest({_arrays(table, table.key)}))",
        ),
        extra,
    )
    others: list[LiteralString] = [name for name in table.columns if name not in set(table.key)]
    replaced: list[LiteralString] = [f"{name} = excluded.{name}" for name in others]
    replace = ", ".join(replaced)
    otherwise: LiteralString = f"ON CONFLICT ({key}) DO " + (
        f"UPDATE SET {replace}" if others else "NOTHING"
    )
    await tx.execute_each(
        PerRow(
            sqlite=f"INSERT INTO {table.name} ({columns})"  # noqa: S608
            f" VALUES ({_marks(table.columns)})"
            f" {otherwise}",
            postgres=f"INSERT INTO {table.name} ({columns}) OVERRIDING SYSTEM VALUE"  # noqa: S608
            f" SELECT * FROM unnest({_arrays(table, table.columns)}) {otherwise}",
        ),
        changed,
    )


def _marks(names: Sequence[LiteralString]) -> LiteralString:
    marks: list[LiteralString] = ["?"] * len(names)
    return ", ".join(marks)


def _arrays(table: _Table, names: Sequence[LiteralString]) -> LiteralString:
    arrays: list[LiteralString] = [
        f"${_digits(number)}::{table.kind(name)}[]" for number, name in enumerate(names, start=1)
    ]
    return ", ".join(arrays)


def _digits(number: int) -> LiteralString:
    return cast(LiteralString, str(number))


class _Identity(NamedTuple):
    table: str
    column: str


async def _go_on_counting(tx: Tx) -> None:
    """Let PostgreSQL give out numbers behind those that came with the rows."""
    if tx.engine == "sqlite":
        return
    await tx.one(int, "SELECT setval('receipt_id', coalesce(max(id), 0)) FROM receipts")
    identities = await tx.all(
        _Identity,
        """
        SELECT CAST(t.relname AS TEXT), CAST(a.attname AS TEXT)
        FROM pg_class t JOIN pg_attribute a ON a.attrelid = t.oid
        WHERE a.attidentity <> '' AND t.relnamespace = CAST(current_schema() AS regnamespace)
        """,
    )
    for identity in identities:
        table, column = _literal(identity.table), _literal(identity.column)
        await tx.all(
            _row,
            f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), max({column}))"  # noqa: S608
            f" FROM {table}",
        )
