"""PostgreSQL with `synchronous_commit=on`: one worker, two, and one hot trace, next to pgbench.

Run `python -m bench.workers`. 64 connections post 2 KB exchanges; in turns with them a raw ASGI
null route is asked, and `pgbench` (where it is installed) commits what one exchange reads and
writes, one transaction each, prepared, at the same concurrency, on the same server and tables, with
the very contents of an exchange's rows sent as parameters. `seven` are the statements without those
that store the payload and draw the receipt's number, `nine` are all.

Each rate is the best of its rounds. Load, gateway and PostgreSQL share the machine's processors, so
the processor time of each tells what a request costs even while the machine does something else.
And on a machine with few of them a second worker takes what the server needs. So one worker and two
are asked once more with each held to two fifths of a processor, as if the rest had its own; that
takes the `cpu` controller of control groups, version 1, and the right to write to it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
from tests.fleet import gateway, postgres_settings, workers_of
from tests.live import Live
from tests.postgres import Postgres, cluster

from bench.exchange import API_KEY, body, served
from bench.load import TOOL, drive

CALLERS: Final = 64
ROUNDS: Final = 3
SECONDS: Final = 3.0
PGBENCH: Final = shutil.which("pgbench")
GROUPS: Final = Path("/sys/fs/cgroup/cpu")
PERIOD_US: Final = 5_000
HELD: Final = 0.4

_HEAD: Final = r"""
\set r random(1, 9000000000000000)
BEGIN;
SELECT tenant, trace_id, trace, hop, receipt_hash FROM heads
    WHERE tenant = 'bench' AND trace_id = 'p' || :r::bigint FOR UPDATE;
SELECT tenant, key_hash, fingerprint, receipt FROM idempotency
    WHERE tenant = 'bench' AND key_hash = sha256(int8send(:r));
"""
_SEVEN: Final = r"""
INSERT INTO heads VALUES ('bench', 'p' || :r::bigint, :r, 1, sha256(int8send(:r)));
INSERT INTO idempotency
    VALUES ('bench', sha256(int8send(:r)), sha256(int8send(:r)), :r, 0);
INSERT INTO receipts VALUES (-(:r::bigint), -(:r::bigint), 1, 'bench', 'exchange', 'allowed', 1,
    '2026-11', 1, 0, sha256(int8send(:r)), :jws, :canonical);
INSERT INTO answers VALUES (-(:r::bigint), 'bench', sha256(int8send(:r)), 'p' || :r::bigint, 1, 200,
    'application/json', :answer);
"""
_PAYLOAD: Final = r"""
INSERT INTO payloads VALUES (-(:r::bigint), 'bench', sha256(int8send(:r)), 1, :payload, NULL);
"""
_TOTAL: Final = r"""
INSERT INTO usage_totals VALUES ('bench', '2026-11', 'vex', :client_id, 1)
    ON CONFLICT (tenant, period, meter, shard) DO UPDATE SET units = usage_totals.units + 1;
COMMIT;
"""
SCRIPTS: Final = {
    "pgbench, seven statements": _HEAD + _SEVEN + _TOTAL,
    "pgbench, nine statements": _HEAD
    + "SELECT * FROM receipt_ids(1);"
    + _SEVEN
    + _PAYLOAD
    + _TOTAL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One load: its rate, and the processor time of each request, by who spent it."""

    rate: float
    server_us: float
    postgres_us: float
    load_us: float


@contextmanager
def held(process: subprocess.Popen[str]) -> Generator[None]:
    """Hold each process that serves to a part of a processor."""
    groups: list[Path] = []
    try:
        for pid in (process.pid, *workers_of(process)):
            group = GROUPS / f"signet-bench-{pid}"
            group.mkdir()
            groups.append(group)
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(round(PERIOD_US * HELD)))
            (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        for group in groups:
            for pid in (group / "cgroup.procs").read_text().split():
                (GROUPS / "cgroup.procs").write_text(pid)
            group.rmdir()


def processor_s(pid: int) -> float:
    """The processor time that a process and all below it have used, those that ended too."""
    root = psutil.Process(pid)
    while True:
        try:
            times = [process.cpu_times() for process in root.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue  # it ended just now, and is counted with those that have
        own = root.cpu_times()
        gone = own.children_user + own.children_system
        return gone + sum(one.user + one.system for one in (own, *times))


def _ended_s() -> float:
    """The processor time of this process's children that have ended."""
    times = os.times()
    return times.children_user + times.children_system


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What the turns share: the database server, and what an exchange left in its rows."""

    postgres: Postgres
    database: str

    def timed(self, server: int | None, load: Callable[[], tuple[int, float]]) -> Turn:
        """Run a load that tells its count and its seconds."""
        postgres = self.postgres.pid
        before = (processor_s(server) if server else 0.0, processor_s(postgres), _ended_s())
        count, seconds = load()
        after = (processor_s(server) if server else 0.0, processor_s(postgres), _ended_s())
        server_s, postgres_s, load_s = (b - a for a, b in zip(before, after, strict=True))
        return Turn(
            rate=count / seconds,
            server_us=server_s / count * 1e6,
            postgres_us=postgres_s / count * 1e6,
            load_us=load_s / count * 1e6,
        )

    def posted(self, url: str, pid: int, request: bytes) -> Turn:
        """Post from 64 connections."""

        def load() -> tuple[int, float]:
            load = drive(url, concurrency=CALLERS, seconds=SECONDS, body=request, api_key=API_KEY)
            assert load.errors == 0, load
            return load.count, load.seconds

        return self.timed(pid, load)

    def contents(self) -> dict[str, str]:
        """The wide values of one exchange, in the form in which PostgreSQL reads them."""
        columns = "r.jws, r.canonical, a.body AS answer, p.body AS payload"
        found = self.postgres.sql(
            f"SELECT row_to_json(x) FROM (SELECT {columns} FROM receipts r"
            " JOIN answers a ON a.receipt = r.id JOIN payloads p ON p.receipt = r.id"
            " WHERE r.id > 0 LIMIT 1) x",
            self.database,
        )
        row = json.loads(found)
        # As bytes of ASCII text: the escape format, which is as long as what it stands for.
        wide = {name: bytes.fromhex(row[name][2:]) for name in ("canonical", "answer", "payload")}
        return {
            "jws": row["jws"],
            **{name: value.decode("ascii").replace("\\", "\\\\") for name, value in wide.items()},
        }

    def pgbench(self, script: Path) -> Turn:
        """Commit one exchange's statements in a transaction each."""
        assert PGBENCH is not None
        command = [
            *(PGBENCH, "-n", "-M", "prepared", "-c", str(CALLERS), "-j", "1"),
            *("-T", str(round(SECONDS)), "-f", str(script)),
            *(part for item in self.contents().items() for part in ("-D", "=".join(item))),
            *("-h", str(self.postgres.folder), "-p", str(self.postgres.port)),
            *("-U", "signet", self.database),
        ]

        def load() -> tuple[int, float]:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            count = re.search(r"actually processed: (\d+)", done.stdout)
            rate = re.search(r"tps = ([0-9.]+)", done.stdout)
            assert count is not None, done.stderr
            assert rate is not None, done.stderr
            return int(count[1]), int(count[1]) / float(rate[1])

        return self.timed(None, load)


def measure() -> dict[str, list[Turn]]:
    """Every turn, as often as there are rounds."""
    keys = json.dumps({API_KEY: {"tenant": "bench"}})
    hot = json.dumps({**json.loads(body()), "trace_id": "hot"}).encode()
    turns: dict[str, list[Turn]] = {}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="signet-bench-")))
        postgres = stack.enter_context(
            cluster(options={"fsync": "on", "synchronous_commit": "on", "max_connections": "200"})
        )
        bench = Bench(postgres=postgres, database=postgres.empty_database())
        settings = {"SP_API_KEYS": keys, **postgres_settings(postgres.url(bench.database))}
        null = stack.enter_context(served("null"))
        one, two = (
            stack.enter_context(gateway(directory / str(workers), workers=workers, **settings))
            for workers in (1, 2)
        )

        def asked(url: str, pid: int, request: bytes) -> Callable[[], Turn]:
            return lambda: bench.posted(url, pid, request)

        def committed(script: Path) -> Callable[[], Turn]:
            return lambda: bench.pgbench(script)

        every: dict[str, Callable[[], Turn]] = {
            "null route": asked(null.url, null.pid, body()),
            "one worker": asked(f"{one.url}/v1/exchange", one.process.pid, body()),
            "two workers": asked(f"{two.url}/v1/exchange", two.process.pid, body()),
            "one worker, one trace": asked(f"{one.url}/v1/exchange", one.process.pid, hot),
            "two workers, one trace": asked(f"{two.url}/v1/exchange", two.process.pid, hot),
        }
        if PGBENCH is not None:
            for number, (what, text) in enumerate(SCRIPTS.items()):
                script = directory / f"exchange-{number}.sql"
                script.write_text(text)
                every[what] = committed(script)
        if os.access(GROUPS / "cgroup.procs", os.W_OK):

            def restrained(live: Live) -> Callable[[], Turn]:
                def turn() -> Turn:
                    with held(live.process):
                        return bench.posted(f"{live.url}/v1/exchange", live.process.pid, body())

                return turn

            every |= {"one worker, held": restrained(one), "two workers, held": restrained(two)}
        for _ in range(ROUNDS):
            for what, turn in every.items():
                turns.setdefault(what, []).append(turn())
    return turns


def main() -> None:
    """Print rates and ratios of one run."""
    print(
        f"workers: PostgreSQL, synchronous_commit=on, fsync=on, c={CALLERS}, load from {TOOL},"
        f" {os.cpu_count()} processors for all"
    )
    turns = measure()
    best = {what: max(turn.rate for turn in found) for what, found in turns.items()}
    cost = {what: min(t.server_us + t.postgres_us for t in ts) for what, ts in turns.items()}
    print(f"  {'':26}{'rate':>10}{'of null':>10}   processor us: server, PostgreSQL, load")
    for what, found in turns.items():
        server, postgres, load = (
            min(getattr(turn, name) for turn in found)
            for name in ("server_us", "postgres_us", "load_us")
        )
        print(
            f"  {what:26}{best[what]:8.0f}/s{best[what] / best['null route']:10.1%}"
            f"{server:18.0f}{postgres:12.0f}{load:6.0f}"
        )
    print(f"  two workers / one worker {best['two workers'] / best['one worker']:.2f}")
    if "two workers, held" in best:
        ratio = best["two workers, held"] / best["one worker, held"]
        print(f"  two workers / one worker, each held to {HELD:g} of a processor {ratio:.2f}")
    for workers in ("one worker", "two workers"):
        ratio = best[f"{workers}, one trace"] / best[workers]
        print(f"  one trace / many, {workers} {ratio:.2f}")
    for what in SCRIPTS if PGBENCH is not None else ():
        print(
            f"  one worker / {what}: {best['one worker'] / best[what]:.2f};"
            f" processor of gateway and PostgreSQL / of PostgreSQL alone"
            f" {cost['one worker'] / cost[what]:.2f}"
        )


if __name__ == "__main__":
    main()
