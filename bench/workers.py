"""PostgreSQL with `synchronous_commit=on`: one worker, two, and one hot trace, next to pgbench.

Run `python -m bench.workers`. 64 connections post 2 KB exchanges; in turns with them a raw ASGI
null route is asked, and `pgbench` (where it is installed) commits the seven statements of one
exchange in one transaction each at the same concurrency. Each rate is the best of its rounds; the
processor time of the serving processes tells what a request costs even on a busy machine.
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

import psutil
from tests.fleet import gateway, postgres_settings
from tests.postgres import Postgres, cluster

from bench.exchange import API_KEY, body, served
from bench.load import TOOL, drive

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


def processor_s(pid: int) -> float:
    """The processor time that a process and all below it have used."""
    root = psutil.Process(pid)
    times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def main() -> None:
    """Print rates and ratios of one run."""
    print(f"workers: PostgreSQL, synchronous_commit=on, fsync=on, c={CALLERS}, load from {TOOL}")
    rates: dict[str, list[float]] = {}
    costs: dict[str, list[float]] = {}
    keys = json.dumps({API_KEY: {"tenant": "bench"}})
    hot = json.dumps({**json.loads(body()), "trace_id": "hot"}).encode()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="signet-bench-")))
        postgres = stack.enter_context(
            cluster(options={"fsync": "on", "synchronous_commit": "on", "max_connections": "200"})
        )
        database = postgres.empty_database()
        settings = {"SP_API_KEYS": keys, **postgres_settings(postgres.url(database))}
        before = {child.pid for child in psutil.Process().children()}
        null = stack.enter_context(served("null"))
        [null_pid] = {child.pid for child in psutil.Process().children()} - before
        live = {
            workers: stack.enter_context(
                gateway(directory / str(workers), workers=workers, **settings)
            )
            for workers in (1, 2)
        }
        script = directory / "exchange.sql"
        script.write_text(_SCRIPT)

        def asked(what: str, url: str, pid: int, request: bytes) -> float:
            used = processor_s(pid)
            load = drive(url, concurrency=CALLERS, seconds=SECONDS, body=request, api_key=API_KEY)
            assert load.errors == 0, load
            costs.setdefault(what, []).append((processor_s(pid) - used) / load.count * 1e6)
            return load.rate

        def posted(what: str, workers: int, request: bytes) -> Callable[[], float]:
            at = live[workers]
            return lambda: asked(what, f"{at.url}/v1/exchange", at.process.pid, request)

        turns: dict[str, Callable[[], float]] = {
            "null route": lambda: asked("null route", null, null_pid, body()),
            "one worker": posted("one worker", 1, body()),
            "two workers": posted("two workers", 2, body()),
            "one worker, one trace": posted("one worker, one trace", 1, hot),
            "two workers, one trace": posted("two workers, one trace", 2, hot),
        }
        if PGBENCH is not None:
            turns["pgbench"] = lambda: pgbench(postgres, database, script)
        for _ in range(ROUNDS):
            for what, turn in turns.items():
                rates.setdefault(what, []).append(turn())
    best = {what: max(found) for what, found in rates.items()}
    for what, rate in best.items():
        cost = f"{min(costs[what]):10.0f} us of processor" if what in costs else ""
        print(f"  {what:24}{rate:8.0f} /s{rate / best['null route']:8.1%} of null{cost}")
    print(f"  two workers / one worker {best['two workers'] / best['one worker']:.2f}")
    print(
        f"  one trace / many, one worker {best['one worker, one trace'] / best['one worker']:.2f}"
    )
    if PGBENCH is not None:
        print(f"  one worker / pgbench {best['one worker'] / best['pgbench']:.2f}")


if __name__ == "__main__":
    main()
