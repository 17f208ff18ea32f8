"""What no fault may do: lose an acknowledged exchange, break a chain, or make one twice.

Each scene lets a fault happen under load, `times` over, and then holds the database against what
the callers heard. The suite runs them a few times, `make drills` as often as is promised.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.fleet import (
    Heard,
    gateway,
    kill_all,
    load,
    post,
    postgres_settings,
    under_load,
    workers_of,
)
from tests.inprocess import invoice
from tests.live import Live
from tests.postgres import Postgres, cluster

from signet.gateway.chains import Flaw, audit
from signet.storage.database import PostgresConfig, SqliteConfig, open_database
from signet.storage.receipts import by_hash, head
from signet.storage.tx import ReadTx

EngineName = Literal["sqlite", "postgres"]
TENANT = "acme"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A database: how a gateway is told of it, and how to look into it."""

    settings: dict[str, str]
    config: SqliteConfig | PostgresConfig
    postgres: Postgres | None = None


@contextmanager
def place(engine: EngineName, directory: Path) -> Iterator[Place]:
    """An empty database that syncs to disk as it does in production."""
    directory.mkdir(parents=True, exist_ok=True)
    if engine == "sqlite":
        path = directory / "signet.db"
        yield Place(settings={"SP_DB_PATH": str(path)}, config=SqliteConfig(path=path))
        return
    with cluster(options={"fsync": "on", "synchronous_commit": "on"}) as postgres:
        url = postgres.url(postgres.empty_database())
        yield Place(
            settings=dict(postgres_settings(url)),
            config=PostgresConfig(url=url),
            postgres=postgres,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a scene has shown. Every number from `lost` to `units_off` must be 0."""

    faults: int
    acknowledged: int
    not_acknowledged: int
    lost: int = 0
    doubled: int = 0
    refused: int = 0
    flaws: int = 0
    units_off: int = 0
    slowest_s: float = 0.0
    conflicts: int = 0

    @property
    def holds(self) -> bool:
        """Whether nothing was lost, doubled, broken or miscounted."""
        wrong = (self.lost, self.doubled, self.refused, self.flaws, self.units_off)
        return self.acknowledged > 0 and not any(wrong)


async def settle(live: Live, heard: Heard) -> None:
    """Ask for everything that is still open until each key has its answer."""
    deadline = time.monotonic() + 240
    while heard.open:
        assert time.monotonic() < deadline, f"{len(heard.open)} calls are never answered"
        for key in list(heard.open):
            await heard.ask(live.port, key)


async def judged(
    config: SqliteConfig | PostgresConfig, heard: Heard, faults: int, slowest_s: float = 0.0
) -> Result:
    """Hold the database against what was heard, once every key has its answer."""
    async with open_database(config) as db:
        flaws: list[Flaw] = []
        async for _, found in audit(db):
            flaws += found
        lost = 0
        for receipt_hash in heard.acknowledged.values():
            lost += await db.read_current(by_hash, TENANT, receipt_hash) is None
        receipts = await db.read_current(_receipts)
        units = await db.read_current(_units)
    return Result(
        faults=faults,
        acknowledged=len(heard.acknowledged),
        not_acknowledged=heard.not_acknowledged,
        lost=lost,
        doubled=len(heard.doubled) + receipts - len(set(heard.acknowledged.values())),
        refused=len(heard.refused),
        flaws=len(flaws),
        units_off=units - len(heard.acknowledged),
        slowest_s=slowest_s,
        conflicts=heard.conflicts,
    )


async def _receipts(tx: ReadTx) -> int:
    return await tx.one(int, "SELECT count(*) FROM receipts") or 0


async def _units(tx: ReadTx) -> int:
    return (
        await tx.one(
            int,
            "SELECT CAST(coalesce(sum(units), 0) AS BIGINT) FROM usage_totals WHERE meter = 'vex'",
        )
        or 0
    )


async def killed_gateways(at: Place, directory: Path, *, workers: int, times: int) -> Result:
    """kill -9 the gateway with all its workers at any moment under load, and start it again.

    With several workers, every other time only one of them dies, and the rest carry on.
    """
    heard = Heard()
    for number in range(times):
        with gateway(directory / "gateway", workers=workers, **at.settings) as live:
            async with under_load([live.port], heard):
                await _some_answers(heard)
                if workers > 1 and number % 2:
                    os.kill(secrets.choice(workers_of(live.process)), signal.SIGKILL)
                    await _some_answers(heard)
                kill_all(live.process)
    with gateway(directory / "gateway", workers=workers, **at.settings) as live:
        await settle(live, heard)
    return await judged(at.config, heard, times)


async def _some_answers(heard: Heard) -> None:
    """Wait until a random number of calls more have been answered."""
    wanted = len(heard.acknowledged) + 1 + secrets.randbelow(60)
    async with asyncio.timeout(240):
        while len(heard.acknowledged) < wanted:  # noqa: ASYNC110 - callers tell it by a dict
            await asyncio.sleep(0.001)


async def killed_databases(at: Place, directory: Path, *, times: int) -> Result:
    """kill -9 PostgreSQL with all its backends under load, and start it again; the gateway stays.

    The slowest time from "the database is up" to the next acknowledged write is measured.
    """
    assert at.postgres is not None
    heard, slowest_s = Heard(), 0.0
    with gateway(directory / "gateway", **at.settings) as live:
        async with under_load([live.port], heard):
            for _ in range(times):
                await _some_answers(heard)
                await asyncio.to_thread(at.postgres.kill)
                await asyncio.sleep(secrets.randbelow(400) / 1000)
                await asyncio.to_thread(at.postgres.start)
                up, before = time.monotonic(), len(heard.acknowledged)
                async with asyncio.timeout(240):
                    while len(heard.acknowledged) == before:  # noqa: ASYNC110
                        await asyncio.sleep(0.005)
                slowest_s = max(slowest_s, time.monotonic() - up)
        await settle(live, heard)
    return await judged(at.config, heard, times, slowest_s)


@asynccontextmanager
async def two_instances(at: Place, directory: Path) -> AsyncIterator[Sequence[int]]:
    """Two gateways on one database; their ports."""
    with (
        gateway(directory / "one", **at.settings) as one,
        gateway(directory / "two", **at.settings) as two,
    ):
        yield [one.port, two.port]


async def one_key(at: Place, directory: Path, *, requests: int) -> tuple[int, int, set[str]]:
    """Send one call under one key over two instances; receipts, units, and what was answered."""
    answers: set[str] = set()
    async with two_instances(at, directory) as ports:
        body, left = invoice(), iter(range(requests))

        async def caller() -> None:
            for number in left:
                status, answer = await post(ports[number % 2], body, "the-one-key")
                while status == 409:  # in flight elsewhere: an agent waits and asks again
                    await asyncio.sleep(0.01)
                    status, answer = await post(ports[number % 2], body, "the-one-key")
                answers.add(f"{status} {answer.decode()}")

        async with asyncio.TaskGroup() as tasks:
            for _ in range(64):
                tasks.create_task(caller())
    async with open_database(at.config) as db:
        return await db.read_current(_receipts), await db.read_current(_units), answers


async def one_trace(at: Place, directory: Path, *, each: int) -> tuple[Result, int]:
    """Write to one trace from 64 callers over two instances; the result and the chain's length."""
    heard = Heard()
    async with two_instances(at, directory) as ports:
        await load(ports, heard, callers=64, trace="the-one-trace", each=each)
    result = await judged(at.config, heard, 0)
    async with open_database(at.config) as db:
        end = await db.read_current(head, TENANT, "the-one-trace")
    return result, end.hop if end else 0


_CANCEL_WAITS = (
    "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
)


async def wait_for_standbys(primary: Postgres) -> None:
    """Let every commit wait for a standby, while there is none; return when commits do."""
    primary.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
    primary.sql("SELECT pg_reload_conf()")
    write, waited = "SELECT pg_logical_emit_message(true, 'drill', '')", False
    while not waited:
        async with asyncio.TaskGroup() as tasks:
            written = tasks.create_task(asyncio.to_thread(primary.sql, write))
            while not written.done():
                waited |= await asyncio.to_thread(primary.sql, _CANCEL_WAITS) != "0"
                await asyncio.sleep(0.02)


async def failed_over(directory: Path) -> Result:
    """kill -9 a primary with a synchronous standby under load and promote the standby.

    The gateway knows both by one URL and is not restarted. The slowest time is that from the end
    of the promotion to the next acknowledged write.
    """
    replication = {"wal_level": "replica", "max_wal_senders": "4", "fsync": "on"}
    heard = Heard()
    with cluster(options=replication) as primary, cluster(start=False) as standby:
        name = primary.empty_database()
        standby.run(
            "pg_basebackup", "-D", str(standby.data), "-R", "-X", "stream", "-c", "fast",
            "-h", str(primary.folder), "-p", str(primary.port), "-U", "signet",
        )  # fmt: skip
        await wait_for_standbys(primary)
        standby.start()
        hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
        url = f"postgresql://signet@{hosts}/{name}"
        with gateway(directory / "gateway", **postgres_settings(url)) as live:
            async with under_load([live.port], heard):
                await _some_answers(heard)
                await asyncio.to_thread(primary.kill)
                await asyncio.to_thread(
                    standby.run, "pg_ctl", "promote", "-D", str(standby.data), "-w"
                )
                up, before = time.monotonic(), len(heard.acknowledged)
                async with asyncio.timeout(240):
                    while len(heard.acknowledged) < before + 5:  # noqa: ASYNC110
                        await asyncio.sleep(0.005)
                back_s = time.monotonic() - up
            await settle(live, heard)
        return await judged(PostgresConfig(url=url), heard, 1, back_s)


async def standby_lost(directory: Path) -> tuple[int, Result]:
    """Cancel the wait for a synchronous standby that is gone: what callers are told meanwhile.

    PostgreSQL then reports the commit as a success with SQLSTATE 01000. Returns the status of that
    answer, and the state after the standby is no longer waited for and the call was repeated.
    """
    options = {"wal_level": "replica", "fsync": "on"}
    with cluster(options=options) as primary:
        name = primary.empty_database()
        heard = Heard()
        with gateway(directory / "gateway", **postgres_settings(primary.url(name))) as live:
            await load([live.port], heard, callers=2, each=2)
            primary.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            primary.sql("SELECT pg_reload_conf()")
            status = 200
            while status == 200:  # until the server has taken note of its new settings
                key = f"waits-{secrets.token_hex(4)}"
                heard.sent[key] = invoice()
                async with asyncio.TaskGroup() as tasks:
                    asked = tasks.create_task(post(live.port, heard.sent[key], key))
                    while not asked.done():
                        await asyncio.sleep(0.1)
                        await asyncio.to_thread(primary.sql, _CANCEL_WAITS)
                status, answer = asked.result()
                if status == 200:
                    heard.acknowledged[key] = json.loads(answer)["receipt"]["receipt_hash"]
            primary.sql("ALTER SYSTEM RESET synchronous_standby_names")
            primary.sql("SELECT pg_reload_conf()")
            await settle(live, heard)
        return status, await judged(PostgresConfig(url=primary.url(name)), heard, 1)


@contextmanager
def small_disk(directory: Path, size: str) -> Iterator[Path]:
    """A filesystem of its own with little room. Needs the right to mount."""
    mount = directory / "disk"
    mount.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={size}", "none", mount)
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", mount], check=True)


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


async def disk_full(directory: Path) -> Result:
    """Fill the disk under a SQLite gateway, then make room again; the gateway is not restarted."""
    with small_disk(directory, "3m") as disk:
        database = disk / "signet.db"
        heard = Heard()
        settings = {"SP_DB_PATH": str(database)}
        with gateway(directory / "gateway", **settings) as live:
            async with under_load([live.port], heard):
                await _nothing_is_acknowledged(heard)
                full = len(heard.acknowledged)
                await asyncio.to_thread(_mount, "-o", "remount,size=256m", disk)
                async with asyncio.timeout(240):
                    while len(heard.acknowledged) < full + 20:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
            await settle(live, heard)
        return await judged(SqliteConfig(path=database), heard, 1)


@contextmanager
def small_place(directory: Path) -> Iterator[tuple[Postgres, Path]]:
    """A PostgreSQL that syncs, and the small filesystem that it has to itself."""
    with tempfile.TemporaryDirectory(prefix="signet-disk-", dir="/tmp") as short:
        Path(short).chmod(0o755)  # the server runs as somebody else
        options = {"fsync": "on", "min_wal_size": "32MB", "max_wal_size": "64MB"}
        with (
            small_disk(Path(short), "768m") as disk,
            cluster(options=options, where=disk) as server,
        ):
            yield server, disk


async def postgres_disk_full(directory: Path) -> tuple[int, Result]:
    """Fill the disk under PostgreSQL, then make room again; the gateway is not restarted.

    Where the server gave up meanwhile, it is started again, as an operator would. Returns how many
    calls were acknowledged on the full disk within a second, which must be none.
    """
    heard = Heard()
    with small_place(directory) as (postgres, disk):
        url = postgres.url(postgres.empty_database())
        with gateway(directory / "gateway", **postgres_settings(url)) as live:
            async with under_load([live.port], heard):
                await _some_answers(heard)
                ballast = disk / "ballast"
                with ballast.open("wb") as file:
                    space = os.statvfs(disk)
                    os.posix_fallocate(file.fileno(), 0, (space.f_bavail - 256) * space.f_frsize)
                await _nothing_is_acknowledged(heard)
                full = len(heard.acknowledged)
                await asyncio.sleep(1.0)
                meanwhile = len(heard.acknowledged) - full
                ballast.unlink()
                await _back(postgres, heard, full + meanwhile)
            await settle(live, heard)
        return meanwhile, await judged(PostgresConfig(url=url), heard, 1)


async def postgres_syncs_fail(directory: Path) -> tuple[int, Result]:
    """Let PostgreSQL's disk refuse to sync for a while; it panics rather than try again.

    Returns how many calls were acknowledged meanwhile, which must be none.
    """
    heard = Heard()
    with place("postgres", directory) as at:
        assert at.postgres is not None
        with gateway(directory / "gateway", **at.settings) as live:
            async with under_load([live.port], heard, callers=8):
                await _some_answers(heard)
                async with failing_syncs([at.postgres.pid, *at.postgres.children()]):
                    await _nothing_is_acknowledged(heard)
                    before = len(heard.acknowledged)
                    await asyncio.sleep(1.0)
                    meanwhile = len(heard.acknowledged) - before
                await _back(at.postgres, heard, before + meanwhile)
            await settle(live, heard)
        return meanwhile, await judged(at.config, heard, 1)


async def _back(postgres: Postgres, heard: Heard, before: int) -> None:
    """Wait until writes are acknowledged again; start the server if it has given up."""
    async with asyncio.timeout(240):
        while len(heard.acknowledged) < before + 20:
            if postgres.has_ended:
                await asyncio.to_thread(postgres.start)
            await asyncio.sleep(0.05)


async def _nothing_is_acknowledged(heard: Heard) -> None:
    """Wait until every caller must have been refused since anybody was acknowledged."""
    async with asyncio.timeout(240):
        acknowledged = -1
        while True:
            if len(heard.acknowledged) > acknowledged:
                acknowledged, refused = len(heard.acknowledged), heard.not_acknowledged
            elif heard.not_acknowledged > refused + 100:
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def failing_syncs(pids: Sequence[int]) -> AsyncIterator[None]:
    """Let every fsync and fdatasync of these processes fail with EIO, by strace's injection."""
    chosen = [part for pid in pids for part in ("-p", str(pid))]
    process = await asyncio.create_subprocess_exec(
        "strace", "-f", "-q", "-e", "trace=fsync,fdatasync",
        "-e", "inject=fsync,fdatasync:error=EIO", "-o", "/dev/null", *chosen,
        stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(240):
            while not all(_is_traced(pid) for pid in pids):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        await process.wait()


def _is_traced(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/status").read_text("ascii")
    except FileNotFoundError:
        return True  # its first sync has failed already, and that was its end
    return "TracerPid:\t0\n" not in text


async def syncs_fail(directory: Path) -> tuple[int, Result]:
    """Let the disk refuse to sync for a while under a SQLite gateway.

    Returns how many calls were acknowledged meanwhile, which must be none.
    """
    heard = Heard()
    path = directory / "signet.db"
    with gateway(directory / "gateway", SP_DB_PATH=str(path)) as live:
        async with under_load([live.port], heard, callers=8):
            await _some_answers(heard)
            async with failing_syncs([live.process.pid]):
                await _nothing_is_acknowledged(heard)
                before = len(heard.acknowledged)
                await asyncio.sleep(1.0)
                meanwhile = len(heard.acknowledged) - before
            async with asyncio.timeout(240):
                while len(heard.acknowledged) < before + meanwhile + 20:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        await settle(live, heard)
    return meanwhile, await judged(SqliteConfig(path=path), heard, 1)
