"""What making an exchange durable costs: in batches, next to one transaction for each.

Run `python -m bench.storage [ROWS]`. 64 callers commit exchanges of realistic size (2 KB payload,
1.2 KB receipt, 5.5 KB answer; a fresh key and trace each); sealing is left out. The ways are
taken in turns and each figure is the best of its rounds, so that ratios hold while the machine is
busy with something else. ROWS (default 10^5) receipts are then put into the tables to see whether
an exchange still costs the same.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.postgres import cluster

from signet.storage.committer import open_committer
from signet.storage.database import Database, PostgresConfig, SqliteConfig, open_database
from signet.storage.exchanges import (
    Answer,
    Committed,
    Head,
    PendingExchange,
    Result,
    Sealed,
    commit_exchanges,
)
from signet.storage.tx import Engine, Tx

CALLERS = 64
EXCHANGES = 3200
ROUNDS = 5

_BODY = secrets.token_bytes(5500)
_CANONICAL = secrets.token_bytes(1200)
_PAYLOAD = secrets.token_bytes(2000)
_ANSWER = Answer(status=200, content_type="application/json", body=_BODY)

Commit = Callable[[PendingExchange], Awaitable[Result]]

# Small rows with random keys: what makes a table slow is the number of rows and their order.
_FILL: dict[Engine, list[str]] = {
    "sqlite": [
        """
        CREATE TEMP TABLE n AS WITH RECURSIVE n (i) AS (
            SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows
        ) SELECT i + 10000000 AS i, randomblob(32) AS h, unixepoch() * 1000000 + i AS ts FROM n
        """,
        """
        INSERT INTO receipts SELECT i, i, 1, 'bench', 'exchange', 'allowed', ts, '2026-11',
            1, 0, h, 'h..s', h FROM n
        """,
        "INSERT INTO heads SELECT 'bench', lower(hex(h)), i, 1, h FROM n ORDER BY h",
        "INSERT INTO idempotency SELECT 'bench', h, h, i, 0 FROM n ORDER BY h",
        """
        INSERT INTO answers SELECT i, 'bench', h, hex(h), ts, 200, 'application/json', h, NULL
        FROM n
        """,
        "INSERT INTO payloads SELECT i, 'bench', h, ts, h, NULL FROM n",
        "DROP TABLE n",
        "UPDATE billing_cursor SET receipt = 20000000",  # they were metered when they came
    ],
    "postgres": [
        """
        CREATE TEMP TABLE n ON COMMIT DROP AS
        SELECT i + 10000000 AS i, sha256(i::text::bytea) AS h,
            extract(epoch FROM now())::bigint * 1000000 + i AS ts
        FROM generate_series(1, :rows) AS i
        """,
        """
        INSERT INTO receipts SELECT i, i, 1, 'bench', 'exchange', 'allowed', ts, '2026-11',
            1, 0, h, 'h..s', h FROM n
        """,
        "INSERT INTO heads SELECT 'bench', encode(h, 'hex'), i, 1, h FROM n",
        "INSERT INTO idempotency SELECT 'bench', h, h, i, 0 FROM n",
        """
        INSERT INTO answers SELECT i, 'bench', h, encode(h, 'hex'), ts, 200, 'application/json', h
        FROM n
        """,
        "INSERT INTO payloads SELECT i, 'bench', h, ts, h, NULL FROM n",
        "UPDATE billing_cursor SET receipt = 20000000",
        "SELECT setval('receipt_id', 20000000)",
    ],
}


def seal(pending: PendingExchange, last: Head | None) -> Sealed:
    """A receipt of the right size, without the work of making one."""
    receipt_hash = "sha256:" + secrets.token_hex(32)
    return Sealed(
        hop=last.hop + 1 if last else 1,
        ts_us=time.time_ns() // 1000,
        receipt_hash=receipt_hash,
        canonical=_CANONICAL,
        jws="x" * 180,
        kind="exchange",
        outcome="allowed",
        vex_units=1,
        fu_tokens=0,
        period="2026-11",
        answer=_ANSWER,
        payload_cid=receipt_hash,
        payload=_PAYLOAD,
    )


def fresh(trace: str | None = None) -> PendingExchange:
    """An exchange under a key never used before."""
    return PendingExchange(
        tenant="bench",
        # In the order of time, as the gateway makes them for callers who bring none.
        trace_id=trace or f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}",
        key_hash=secrets.token_bytes(32),
        fingerprint=_CANONICAL[:32],
    )


async def measure(commit: Commit, exchanges: int, trace: str | None = None) -> tuple[float, float]:
    """Seconds and CPU seconds of this process per exchange."""

    async def caller() -> None:
        for _ in range(exchanges // CALLERS):
            result = await commit(fresh(trace))
            assert isinstance(result, Committed), result

    wall, cpu = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(CALLERS):
            tasks.create_task(caller())
    return (time.perf_counter() - wall) / exchanges, (time.process_time() - cpu) / exchanges


def best(rounds: list[tuple[float, float]]) -> tuple[float, float]:
    """The least wall time and the least CPU time."""
    return min(wall for wall, _ in rounds), min(cpu for _, cpu in rounds)


async def fill(tx: Tx, rows: int) -> None:
    """Put many rows into every table that grows with exchanges."""
    for statement in _FILL[tx.engine]:
        bound = {"rows": rows} if ":rows" in statement else {}
        await tx.execute(statement, **bound)  # type: ignore[arg-type]


def show(name: str, best: tuple[float, float], base: tuple[float, float] | None = None) -> None:
    """One line of the report."""
    wall, cpu = best
    ratio = f"   {base[0] / wall:5.2f} x" if base else ""
    print(f"  {name:34} {1 / wall:8.0f} /s   {cpu * 1e6:6.0f} us CPU{ratio}")


async def engine(
    batched: SqliteConfig | PostgresConfig, single: SqliteConfig | PostgresConfig, rows: int
) -> None:
    """Batches against single transactions, then against full tables."""
    async with (
        open_database(batched) as db,
        open_database(single) as plain,
        open_committer(db, seal) as committer,
    ):

        async def one_by_one(pending: PendingExchange) -> Result:
            return (await plain.transact(commit_exchanges, [pending], seal))[0]

        found: dict[str, list[tuple[float, float]]] = {"single": [], "batch": [], "hot": []}
        for _ in range(ROUNDS):
            found["single"].append(await measure(one_by_one, EXCHANGES // 4))
            found["batch"].append(await measure(committer.commit, EXCHANGES))
            found["hot"].append(await measure(committer.commit, EXCHANGES, "hot"))
        base = best(found["single"])
        show("one transaction per exchange", base)
        show("in batches", best(found["batch"]), base)
        show("in batches, all on one trace", best(found["hot"]), base)
        await settle(db, rows)
        full = best([await measure(committer.commit, EXCHANGES) for _ in range(ROUNDS)])
        show(f"in batches, {rows:,} rows more", full, base)
        empty = best(found["batch"])
        print(f"  cost with these rows / without: {full[0] / empty[0]:.2f} wall,", end=" ")
        print(f"{full[1] / empty[1]:.2f} CPU")


async def settle(db: Database, rows: int) -> None:
    """Fill the tables, and let the engine digest it before anything is measured."""
    await db.transact(fill, rows)
    for _ in range(3):
        await db.ping()


def main() -> None:
    """Both engines, one after the other."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory(prefix="signet-bench-") as folder:
        path = Path(folder) / "signet.db"
        print(f"SQLite, synchronous=FULL, {CALLERS} callers")
        asyncio.run(engine(SqliteConfig(path=path), SqliteConfig(path=path, max_group=1), rows))
    with cluster(options={"fsync": "on"}) as server:
        print(f"PostgreSQL 16, synchronous_commit=on, {CALLERS} callers, pool of 10")
        url = server.url(server.empty_database())
        config = PostgresConfig(url=url, statement_s=600)
        asyncio.run(engine(config, config, rows))


if __name__ == "__main__":
    main()
