"""`signet serve --workers`: one gateway in several processes, on both engines."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import psutil
import pytest
from tests.fleet import Heard, gateway, half_sent, load, metric, postgres_settings, workers_of
from tests.inprocess import invoice
from tests.live import STOP_S, run_signet, until
from tests.postgres import cluster

from signet.telemetry.metrics import Metrics

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", "postgres"])
def storage(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Settings for an empty database of each engine."""
    if request.param == "sqlite":
        yield {}
        return
    with cluster() as running:
        yield dict(postgres_settings(running.url(running.empty_database())))


async def test_totals_and_one_death(tmp_path: Path, storage: dict[str, str]) -> None:
    """Any worker tells the totals of all; kill -9 of one loses no count that was told once and no
    acknowledged call, and its slot is filled again."""
    with gateway(tmp_path, workers=2, **storage) as live:
        assert live.line.endswith(", 2 workers\n")
        heard = Heard()
        await load([live.port], heard, callers=8, each=4)
        assert len(heard.acknowledged) == 32
        assert not heard.refused
        # Each worker notes at once, and tells the others ten times a second.
        until(lambda: metric(live, "signet_exchanges_total") == 32)
        until(lambda: metric(live, "signet_vex_units_total") == 32)
        for _ in range(4):  # whoever answers
            assert metric(live, "signet_exchanges_total") == 32
            assert metric(live, "signet_vex_units_total") == 32
            assert metric(live, "signet_build_info") == 1
        before = workers_of(live.process)
        os.kill(before[0], signal.SIGKILL)
        until(lambda: len(set(workers_of(live.process)) - set(before)) == 1)
        assert metric(live, "signet_exchanges_total") == 32
        await load([live.port], heard, callers=8, each=2)
        assert len(heard.acknowledged) == 48
        until(lambda: metric(live, "signet_exchanges_total") == 48)
        assert "worker_died" in live.errors.read_text()


async def test_every_family_is_told_from_the_start(tmp_path: Path) -> None:
    """Workers that share their counts tell the families of which there is none yet as well: the
    promised names among them are what dashboards and alerts ask for."""
    with gateway(tmp_path, workers=2) as live:
        page = live.get("/metrics").body.decode()
        told = {line.split(" ")[2] for line in page.splitlines() if line.startswith("# TYPE ")}
        alone = {
            line.split(" ")[2]
            for line in Metrics().exposition().decode().splitlines()
            if line.startswith("# TYPE ")
        }
        assert alone <= told
        assert metric(live, "signet_denied_total") == 0
        assert 'signet_billing_enqueued_total{type="vex"} 0.0' in page


async def test_connections_are_shared(tmp_path: Path) -> None:
    """Callers that stay connected are spread over all, and a new worker has most of the next: not
    all, for nobody waits for one that has no time."""
    with gateway(tmp_path, workers=2) as live, ExitStack() as callers:

        def connected(count: int) -> None:
            for _ in range(count):
                caller = callers.enter_context(socket.create_connection(("127.0.0.1", live.port)))
                caller.sendall(b"GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n")
                assert caller.recv(1000).startswith(b"HTTP/1.1 200 ")

        def counts() -> dict[int, int]:
            return {pid: _connections(pid, live.port) for pid in workers_of(live.process)}

        connected(40)
        one, other = counts().values()
        assert one + other == 40
        assert min(one, other) >= 10
        died, stays = workers_of(live.process)
        os.kill(died, signal.SIGKILL)

        def is_back() -> bool:
            connected(1)
            return any(count for pid, count in counts().items() if pid not in (died, stays))

        until(is_back)
        before = counts()[stays]
        connected(before)
        assert counts()[stays] - before < before / 2


async def test_gauges_of_the_dead_go(tmp_path: Path) -> None:
    """What a dead worker had in progress is not in progress any more."""
    with gateway(tmp_path, workers=2) as live:
        half = [half_sent(live.port) for _ in range(6)]
        until(lambda: metric(live, "signet_http_requests_in_flight") >= 7)
        before = workers_of(live.process)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        until(lambda: len(set(workers_of(live.process)) - set(before)) == 2)
        until(lambda: metric(live, "signet_http_requests_in_flight") == 1)
        for one in half:
            one.close()


async def test_stops_in_order(tmp_path: Path) -> None:
    """SIGTERM drains every worker and ends with 0; nothing of it is left behind."""
    with gateway(tmp_path, workers=2, SP_DRAIN_SECONDS="5") as live:
        pids = workers_of(live.process)
        assert live.exchange(invoice(), key="one").status == 200
        live.process.send_signal(signal.SIGTERM)
        assert live.process.wait(STOP_S) == 0
        assert not any(map(_runs, pids))


async def test_stop_is_bounded_and_forwarded_twice(tmp_path: Path) -> None:
    """A request that never ends holds a stop up; a second signal does not wait for it."""
    with (
        gateway(tmp_path, workers=2, SP_DRAIN_SECONDS="600") as live,
        closing(half_sent(live.port)),
    ):
        until(lambda: metric(live, "signet_http_requests_in_flight") >= 2)
        live.process.send_signal(signal.SIGINT)
        until(lambda: len(workers_of(live.process)) == 1)  # the idle one has gone
        live.process.send_signal(signal.SIGTERM)
        assert live.process.wait(STOP_S) == 0


async def test_workers_never_outlive_their_supervisor(tmp_path: Path) -> None:
    """kill -9 of the supervisor stops the workers too, in order, so that the port is free."""
    with gateway(tmp_path, workers=2) as live:
        pids = workers_of(live.process)
        os.kill(live.process.pid, signal.SIGKILL)
        live.process.wait(STOP_S)
        until(lambda: not any(_runs(pid) for pid in pids))
        with closing(socket.create_server(("127.0.0.1", live.port))):
            pass


async def test_what_the_killed_left_goes_at_the_next_start(tmp_path: Path) -> None:
    """kill -9 leaves a directory of counters behind, which the next start removes; never that of
    another deployment that lives."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with gateway(tmp_path / "other", workers=2, TMPDIR=str(scratch)) as other:
        [others] = scratch.iterdir()
        with gateway(tmp_path / "killed", workers=2, TMPDIR=str(scratch)) as live:
            [left] = set(scratch.iterdir()) - {others}
            pids = workers_of(live.process)
            for pid in (live.process.pid, *pids):
                os.kill(pid, signal.SIGKILL)
            live.process.wait(STOP_S)
            until(lambda: not any(map(_runs, pids)))
            assert set(scratch.iterdir()) == {others, left}
        with gateway(tmp_path / "killed", workers=2, TMPDIR=str(scratch)):
            [fresh] = set(scratch.iterdir()) - {others}
            assert fresh != left
        assert other.exchange(invoice(), key="one").status == 200
        # Whoever answers: the other worker is told of it by a file that is still there.
        until(lambda: all(metric(other, "signet_exchanges_total") == 1 for _ in range(4)))


async def test_workers_hold_what_they_write_to(tmp_path: Path) -> None:
    """A start beside workers that still drain, their supervisor killed, leaves them theirs."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    patient = {"SP_DRAIN_SECONDS": "600", "SP_BODY_SECONDS": "600"}
    with gateway(tmp_path / "old", workers=2, TMPDIR=str(scratch), **patient) as old:
        [theirs] = scratch.iterdir()
        pids = workers_of(old.process)
        with closing(half_sent(old.port)):
            until(lambda: metric(old, "signet_http_requests_in_flight") >= 2)
            os.kill(old.process.pid, signal.SIGKILL)
            old.process.wait(STOP_S)
            with gateway(tmp_path / "new", workers=2, TMPDIR=str(scratch)):
                assert any(map(_runs, pids))
                assert theirs in scratch.iterdir()
            for pid in filter(_runs, pids):
                os.kill(pid, signal.SIGKILL)
            until(lambda: not any(map(_runs, pids)))
    with gateway(tmp_path / "new", workers=2, TMPDIR=str(scratch)):
        assert theirs not in scratch.iterdir()


def test_start_that_fails_is_told_once(tmp_path: Path) -> None:
    """What keeps a worker from starting ends all of them at once, with its message and code."""
    database = tmp_path / "signet.db"
    database.write_bytes(b"not a database, and long enough to be looked at" * 100)
    settings = {"SP_DB_PATH": str(database), "SP_DATA_DIR": str(tmp_path), "SP_PORT": "0"}
    started = time.monotonic()
    done = run_signet("serve", "--workers", "4", cwd=tmp_path, settings=settings)
    assert done.returncode == 69
    assert done.stderr.count("signet serve: ") == 1
    assert done.stdout == ""
    assert time.monotonic() - started < 120


@pytest.mark.parametrize("count", ["0", "-1", "65", "two", "", "1.5", "٣"])
def test_bad_counts(tmp_path: Path, count: str) -> None:
    """A count that is none is misuse, told before anything is bound."""
    done = run_signet("serve", f"--workers={count}", cwd=tmp_path)
    assert done.returncode == 64
    assert "expected a whole number from 1 to 64" in done.stderr


def test_no_key_no_postgres(tmp_path: Path) -> None:
    """A node refuses PostgreSQL without the signing key that all nodes share."""
    settings = dict(postgres_settings("postgresql://nobody@127.0.0.1:1/none"))
    done = run_signet("serve", "--workers", "2", cwd=tmp_path, settings=settings)
    assert done.returncode == 78
    assert "SP_PRIVATE_KEY_B64: expected the signing seed that all nodes share" in done.stderr


async def test_eight_start_at_once(tmp_path: Path) -> None:
    """Eight processes on an empty PostgreSQL database all come up."""
    with cluster() as running:
        url = running.url(running.empty_database())
        with gateway(tmp_path, workers=8, **postgres_settings(url)) as live:
            assert live.line.endswith(", 8 workers\n")
            assert len(workers_of(live.process)) == 8
            assert live.exchange(invoice(), key="one").status == 200


def _connections(pid: int, port: int) -> int:
    try:
        found = psutil.Process(pid).net_connections("tcp")
    except psutil.NoSuchProcess:  # it died just now
        return 0
    return sum(each.status == "ESTABLISHED" and each.laddr[1] == port for each in found)


def _runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("latin-1")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"
