"""PostgreSQL with `synchronous_commit=on`: one worker, two, and one hot trace, next to pgbench.

Run `python -m bench.workers`. 64 connections post 2 KB exchanges; in turns with them a raw ASGI
null route is asked, and `pgbench` (where it is installed) commits the seven statements of one
exchange in one transaction each at the same concurrency. Each figure is the best of its rounds.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.fleet import gateway, postgres_settings
from tests.postgres import Postgres, cluster

from bench.exchange import API_KEY, body, served
from bench.load import TOOL, Load, drive

CALLERS: Final = 64
ROUNDS: Final = 3
SECONDS: Final = 3.0
PGBENCH: Final = shutil.which("pgbench")

# What one exchange without network work reads and writes, in rows of its size.
_SCRIPT: Final = r"""
\set r random(1, 9000000000000000)
BEGIN;
SELECT hop, receipt_hash FROM heads WHERE tenant = 'bench' AND trace_id = 'p' || :r::bigint
    FOR UPDATE;
SELECT receipt FROM idempotency WHERE tenant = 'bench' AND key_hash = sha256(int8send(:r));
INSERT INTO heads VALUES ('bench', 'p' || :r::bigint, :r, 1, sha256(int8send(:r)));
INSERT INTO idempotency VALUES ('bench', sha256(int8send(:r)), '\x00', :r, 0);
INSERT INTO receipts VALUES (-(:r::bigint), -(:r::bigint), 1, 'bench', 'exchange', 'allowed', 1,
    '2026-11', 1, 0, sha256(int8send(:r)), repeat('j', 1700), repeat('c', 1200)::bytea);
INSERT INTO answers VALUES (-(:r::bigint), 'bench', sha256(int8send(:r)), 't', 1, 200,
    'application/json', repeat('a', 5500)::bytea);
INSERT INTO usage_totals VALUES ('bench', '2026-11', 'vex', :client_id, 1)
    ON CONFLICT (tenant, period, meter, shard) DO UPDATE SET units = usage_totals.units + 1;
COMMIT;
"""


def pgbench(postgres: Postgres, database: str, script: Path) -> float:
    """Exchanges per second of the seven statements, one transaction each."""
    assert PGBENCH is not None
    command = [
        *(
            PGBENCH,
            "-n",
            "-M",
            "prepared",
            "-c",
            str(CALLERS),
            "-j",
            "1",
            "-T",
            str(round(SECONDS)),
        ),
        *("-f", str(script), "-h", "127.0.0.1", "-p", str(postgres.port), "-U", "signet", database),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"tps = ([0-9.]+)", done.stdout)
    assert found is not None, done.stderr
    return float(found[1])


def main() -> None:
    """Print rates and ratios of one run."""
    print(f"workers: PostgreSQL, synchronous_commit=on, fsync=on, c={CALLERS}, load from {TOOL}")
    rates: dict[str, list[float]] = {}
    keys = json.dumps({API_KEY: {"tenant": "bench"}})
    hot = json.dumps({**json.loads(body()), "trace_id": "hot"}).encode()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="signet-bench-")))
        postgres = stack.enter_context(
            cluster(options={"fsync": "on", "synchronous_commit": "on", "max_connections": "200"})
        )
        database = postgres.empty_database()
        settings = {"SP_API_KEYS": keys, **postgres_settings(postgres.url(database))}
        null = stack.enter_context(served("null"))
        ports = {
            workers: stack.enter_context(
                gateway(directory / str(workers), workers=workers, **settings)
            ).port
            for workers in (1, 2)
        }
        script = directory / "exchange.sql"
        script.write_text(_SCRIPT)

        def asked(url: str, what: bytes) -> Load:
            load = drive(url, concurrency=CALLERS, seconds=SECONDS, body=what, api_key=API_KEY)
            assert load.errors == 0, load
            return load

        def posted(workers: int, what: bytes) -> Callable[[], float]:
            return lambda: asked(f"http://127.0.0.1:{ports[workers]}/v1/exchange", what).rate

        turns: dict[str, Callable[[], float]] = {
            "null route": lambda: asked(null, body()).rate,
            "one worker": posted(1, body()),
            "two workers": posted(2, body()),
            "one worker, one trace": posted(1, hot),
            "two workers, one trace": posted(2, hot),
        }
        if PGBENCH is not None:
            turns["pgbench"] = lambda: pgbench(postgres, database, script)
        for _ in range(ROUNDS):
            for what, turn in turns.items():
                rates.setdefault(what, []).append(turn())
    best = {what: max(found) for what, found in rates.items()}
    for what, rate in best.items():
        print(f"  {what:24}{rate:10.0f} /s{rate / best['null route']:9.1%} of null")
    print(f"  two workers / one worker {best['two workers'] / best['one worker']:.2f}")
    print(
        f"  one trace / many, one worker {best['one worker, one trace'] / best['one worker']:.2f}"
    )
    if PGBENCH is not None:
        print(f"  one worker / pgbench {best['one worker'] / best['pgbench']:.2f}")


if __name__ == "__main__":
    main()
