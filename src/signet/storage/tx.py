"""The contract between SQL and the engines that run it.

A *transaction function* is an `async def f(tx: Tx, …) -> T` that awaits nothing but `tx`. One
function serves both engines:

- SQLite drives it synchronously inside the one writer, where its awaits never suspend. Units that
  wait at the same time are committed together, each in its own savepoint.
- PostgreSQL runs it on a pooled connection, READ COMMITTED (reads: one REPEATABLE READ snapshot),
  and runs it again after a serialisation failure, a deadlock or `Raced`, so it must be safe to run
  twice: no effect outside `tx`.

Awaiting anything else raises `ForeignAwait` at once and rolls back: a network call inside would
keep rows locked, and on SQLite the one writer from everybody else.

What it returned is handed to its caller only after the commit is durable. If the caller is
cancelled meanwhile, the unit may still commit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, LiteralString, Protocol, TypeVar

Engine = Literal["sqlite", "postgres"]
Value = None | int | str | bytes
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PerRow:
    """One statement to be carried out for each of many rows, in the form each engine is fast at.

    `sqlite` has one `?` per column and runs once per row, prepared once, or, where it takes them
    as `VALUES (?, …)`, for several rows at a time. `postgres` takes one array per column (`$1`,
    `$2`, …, usually through `unnest`) and runs once for all rows.
    """

    sqlite: LiteralString
    postgres: LiteralString


@dataclass(slots=True)
class Ask(Generic[T]):
    """What `ReadTx.ask` is to find out; afterwards `found` has all rows found for all `rows`."""

    make: Callable[..., T]
    statement: PerRow
    rows: Sequence[tuple[Value, ...]]
    found: list[T] = field(default_factory=list[T])


class ReadTx(Protocol):
    """One consistent look at the database. It has no way to write.

    `make` is called with a row's columns in order; a NamedTuple, a dataclass without keywords,
    or `int`, `str`, `bytes` for a single column. Parameters are `:name` in the text.
    """

    @property
    def engine(self) -> Engine:
        """Which engine runs this; for the rare statement whose text must differ."""
        ...

    async def one(self, make: Callable[..., T], sql: LiteralString, /, **params: Value) -> T | None:
        """The first row, or None."""
        ...

    async def all(self, make: Callable[..., T], sql: LiteralString, /, **params: Value) -> list[T]:
        """Every row; bound it in the statement."""
        ...

    async def each(
        self, make: Callable[..., T], statement: PerRow, rows: Sequence[tuple[Value, ...]], /
    ) -> list[T]:
        """All rows found for all of `rows`, in no promised order."""
        ...

    async def ask(self, *asked: Ask[Any]) -> None:
        """Answer all of `asked` in one round trip, as `each` would, in no promised order.

        None of them sees what another one waited for.
        """
        ...

    async def now_us(self) -> int:
        """The database's clock, which every process that shares the database agrees on."""
        ...


class Tx(ReadTx, Protocol):
    """One transaction: everything it wrote becomes durable together, or nothing does.

    A refused constraint raises `IntegrityViolated` and the whole unit is rolled back; do not catch
    it and go on, ask with `ON CONFLICT` instead.
    """

    async def execute(self, sql: LiteralString, /, **params: Value) -> int:
        """Run one statement; how many rows it touched."""
        ...

    async def execute_each(self, statement: PerRow, rows: Sequence[tuple[Value, ...]], /) -> int:
        """Run one statement for every row; how many rows it touched in all."""
        ...

    async def execute_all(
        self,
        steps: Sequence[tuple[PerRow, Sequence[tuple[Value, ...]]]],
        /,
        *asked: Ask[Any],
        guards: int = 0,
    ) -> list[int]:
        """Run `execute_each` for every step in one round trip; how many rows each touched.

        No step sees what another one wrote, and rows are locked in the order of the steps. The
        first `guards` compare and swap: raises `Raced`, before any later step, where one of them
        touched fewer rows than it has. Last, in the same trip, `asked` is answered as by `ask`;
        nothing that a step writes may be asked for.
        """
        ...
