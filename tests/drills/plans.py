"""The plans of every hot statement on tables of 10^6 rows, with what each engine knows of them.

    python -m tests.drills.plans [--rows N]

The result, with the plan of every statement on PostgreSQL, is a line of docs/evidence/plans.jsonl
for each engine. Exits 1 if a statement reads a large table from end to end.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.drills.evidence import Evidence
from tests.postgres import cluster
from tests.storage.test_plans import explained, fill, scans, statistics

from signet.storage.database import PostgresConfig, SqliteConfig, open_database


@contextmanager
def _databases() -> Iterator[list[SqliteConfig | PostgresConfig]]:
    with tempfile.TemporaryDirectory(prefix="signet-drill-") as directory, cluster() as server:
        url = server.url(server.empty_database())
        yield [
            SqliteConfig(path=Path(directory) / "signet.db"),
            PostgresConfig(url=url, statement_s=900),
        ]


async def _play(config: SqliteConfig | PostgresConfig, rows: int, evidence: Evidence) -> bool:
    began = time.time()
    async with open_database(config) as db:
        await db.transact(fill, rows)
        await db.transact(statistics)
        plans = await explained(db)
    bad = [plan for plan in plans if scans(plan)]
    lines = [" ".join(plan.partition("->\n")[2].split()) for plan in plans]
    result = {"rows": rows, "statements": len(plans), "scans": bad, "plans": lines}
    evidence.add(f"plans-{db.kind}", times=1, holds=not bad, began=began, result=result)
    print(f"{db.kind}: {len(plans)} statements over {rows:,} rows, {len(bad)} scan a table")
    return not bad


def main() -> int:
    """Explain everything on both engines; 0 if nothing is read from end to end."""
    parser = argparse.ArgumentParser(prog="python -m tests.drills.plans")
    parser.add_argument("--rows", type=int, default=1_000_000)
    args = parser.parse_args()
    evidence = Evidence("plans")
    with _databases() as configs:
        held = [asyncio.run(_play(config, args.rows, evidence)) for config in configs]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
