"""`signet serve`: what it says at the start, what it refuses, and how it ends."""

from __future__ import annotations

import http.client
import json
import resource
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.inprocess import invoice, signing_key
from tests.live import STOP_S, Live, exchange_headers, live, reply, run_signet, until


def test_start_line(tmp_path: Path) -> None:
    """One line says where it listens, on which storage, with which key; the port is real."""
    with live(tmp_path) as gateway:
        database = tmp_path / "data" / "signet.db"
        assert gateway.line.startswith("signet 0.")
        assert gateway.line.endswith(f"storage sqlite {database}, key {signing_key().kid}\n")
        assert gateway.port != 0
        assert gateway.get("/healthz").json["ok"] is True
        assert gateway.exchange(invoice(), key="one").status == 200


def test_answers_tell_nothing_of_the_server(tmp_path: Path) -> None:
    """No answer names the server's software, not even one to a request that is no HTTP."""
    with live(tmp_path) as gateway:
        assert "server" not in gateway.get("/healthz").headers
        with closing(socket.create_connection(("127.0.0.1", gateway.port), timeout=300)) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n")
            said = raw.makefile("rb").read()
        assert said.startswith(b"HTTP/1.1 400")
        assert b"uvicorn" not in said.lower()


def test_forwarded_headers_are_not_believed(tmp_path: Path) -> None:
    """Who asks is who connects, and for whom a proxy asks is not told by loopback's right."""
    with live(tmp_path) as gateway, closing(gateway.connect()) as connection:
        connection.request("GET", "/metrics")
        assert reply(connection).status == 200
        for said in ("203.0.113.9", "127.0.0.1"):
            connection.request("GET", "/metrics", headers={"X-Forwarded-For": said})
            assert reply(connection).status == 401


def test_own_key_and_warnings(tmp_path: Path) -> None:
    """Without a key it makes one and says where; unknown names and missing API keys are told."""
    with live(tmp_path, SP_PRIVATE_KEY_B64="", SP_API_KEYS="", SP_PROT="1") as gateway:
        assert gateway.line.rstrip().endswith(f"from {tmp_path / 'data' / 'signing-key'}")
        warned = gateway.errors.read_text()
        assert "warning: nothing reads SP_PROT (did you mean SP_PORT?)" in warned
        assert "there is no API key" in warned
        assert gateway.get("/v1/receipts/chain/x").status == 401


def test_files_for_every_connection(tmp_path: Path) -> None:
    """It may open as many files as connections need, or warns that it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        with live(tmp_path, SP_MAX_CONNECTIONS="1500") as gateway:
            limits = Path(f"/proc/{gateway.process.pid}/limits").read_text("ascii")
            assert "files" not in gateway.errors.read_text()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert int(limits.partition("Max open files")[2].split()[0]) == 1756
    if hard < 1_000_000:
        with live(tmp_path, SP_MAX_CONNECTIONS="1000000") as gateway:
            assert f"may open {hard} files" in gateway.errors.read_text()


def test_all_faults_at_once(tmp_path: Path) -> None:
    """Settings that cannot be used end with 78 and a line for each, before anything is made."""
    settings = {"SP_PORT": "x", "SP_STORAGE": "mysql", "SP_MAX_DEPTH": "1"}
    done = run_signet("serve", cwd=tmp_path, settings=settings)
    assert done.returncode == 78
    assert [line.split(":")[0].strip() for line in done.stderr.splitlines()[1:]] == [
        "SP_PORT",
        "SP_STORAGE",
        "SP_MAX_DEPTH",
    ]
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_port_taken(tmp_path: Path) -> None:
    """A port that is taken ends with 69 and a sentence, and no database is made."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        settings = {"SP_PORT": str(taken.getsockname()[1]), "SP_DATA_DIR": str(tmp_path / "data")}
        done = run_signet("serve", cwd=tmp_path, settings=settings)
    assert done.returncode == 69
    assert "Address already in use" in done.stderr
    assert not (tmp_path / "data").exists()


def test_address_that_is_none(tmp_path: Path) -> None:
    """A host that does not resolve ends with 78."""
    done = run_signet("serve", cwd=tmp_path, settings={"SP_HOST": "no such host"})
    assert done.returncode == 78
    assert "signet serve: SP_HOST no such host:" in done.stderr


def test_database_that_cannot_be_opened(tmp_path: Path) -> None:
    """A database that is none ends with a sentence, never a traceback, and stays as it is."""
    database = tmp_path / "signet.db"
    database.write_bytes(b"not a database, and long enough to be looked at" * 100)
    before = database.read_bytes()
    settings = {"SP_DB_PATH": str(database), "SP_DATA_DIR": str(tmp_path), "SP_PORT": "0"}
    done = run_signet("serve", cwd=tmp_path, settings=settings)
    assert done.returncode == 69
    assert "Traceback" not in done.stderr
    assert database.read_bytes() == before


def test_stops_at_once_when_idle(tmp_path: Path) -> None:
    """SIGTERM and SIGINT end an idle gateway with 0, whatever the drain time."""
    for number in (signal.SIGTERM, signal.SIGINT):
        with live(tmp_path, SP_DRAIN_SECONDS="600") as gateway, closing(gateway.connect()) as idle:
            idle.connect()
            gateway.process.send_signal(number)
            assert gateway.process.wait(STOP_S) == 0


def test_drain(tmp_path: Path) -> None:
    """Told to stop, it is not ready, begins nothing new, finishes what it began, and exits 0."""
    with live(tmp_path, SP_DRAIN_SECONDS="60") as gateway, half_sent(gateway) as (slow, rest):
        gateway.process.send_signal(signal.SIGTERM)
        until(lambda: gateway.get("/readyz").status == 503)
        assert gateway.get("/readyz").json["components"]["serving"] == "draining"
        refused = gateway.exchange(invoice(), key="late")
        assert refused.status == 503
        assert refused.json["code"] == "draining"
        assert refused.headers["retry-after"] == "1"
        time.sleep(3)  # longer than uvicorn's own grace
        assert gateway.get("/readyz").status == 503
        slow.send(rest)
        assert reply(slow).status == 200
        assert gateway.process.wait(STOP_S) == 0
    with live(tmp_path) as again:
        assert again.get("/v1/receipts/chain/slow").json["length"] == 1


def test_drain_is_bounded(tmp_path: Path) -> None:
    """A request that never ends holds the stop up for SP_DRAIN_SECONDS, and no longer."""
    with live(tmp_path, SP_DRAIN_SECONDS="3") as gateway, half_sent(gateway):
        started = time.monotonic()
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(STOP_S) == 0
        assert time.monotonic() - started >= 3.0


def test_second_signal_does_not_wait(tmp_path: Path) -> None:
    """A second signal ends the drain, still in order and with 0."""
    with live(tmp_path, SP_DRAIN_SECONDS="600") as gateway, half_sent(gateway):
        gateway.process.send_signal(signal.SIGTERM)
        until(lambda: gateway.get("/readyz").status == 503)
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(STOP_S) == 0


@contextmanager
def half_sent(gateway: Live) -> Iterator[tuple[http.client.HTTPConnection, bytes]]:
    """Yield a connection with an exchange in progress, and what is missing of its body."""
    body = json.dumps(invoice(trace_id="slow")).encode()
    with closing(gateway.connect()) as connection:
        connection.putrequest("POST", "/v1/exchange")
        for name, value in exchange_headers("slow").items():
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body[:10])
        until(lambda: in_flight(gateway) == 2)  # the slow one, and the one that asks
        yield connection, body[10:]


def in_flight(gateway: Live) -> int:
    """How many requests the gateway is at work on."""
    lines = gateway.get("/metrics").body.decode().splitlines()
    found = next(line for line in lines if line.startswith("signet_http_requests_in_flight "))
    return int(float(found.split()[1]))
