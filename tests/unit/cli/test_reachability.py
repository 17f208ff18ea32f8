"""What the doctor asks of the outside, against services that are there, and that are not."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.collector import collector

from signet.cli import reachability
from signet.cli.reachability import Reached, reached
from signet.core.ids import TenantId
from signet.core.tenant import Tenant
from signet.settings import read_settings

TOKEN = "sk-the-right-key-0123456789"


@contextmanager
def service(status: int = 200) -> Iterator[tuple[str, list[str]]]:
    """A service that knows one key; its URL, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        """Answers `status` to the right key and 401 to any other."""

        def do_GET(self) -> None:
            """Answer."""
            asked.append(self.path)
            right = self.headers["Authorization"] == f"Bearer {TOKEN}"
            self.send_response(status if right else 401)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ask(*tenants: Tenant, **environ: str) -> dict[str, Reached]:
    """What is found under these settings, by name."""
    answers = asyncio.run(reached(read_settings(environ).settings, tenants))
    return {answer.name: answer for answer in answers}


def test_nothing_is_asked_that_is_not_set() -> None:
    """Without destinations and services nothing leaves."""
    assert ask() == {}


def test_services_that_answer() -> None:
    """Each is asked something that only reads, with its key, and the collector takes nothing."""
    with service() as (url, asked), collector() as kept:
        found = ask(
            SP_STRIPE_API_KEY=TOKEN,
            SP_STRIPE_BASE_URL=url,
            SP_OPENAI_API_KEY=TOKEN,
            SP_OPENAI_BASE_URL=f"{url}/v1",
            SP_OTLP_ENDPOINT=kept.url,
        )
    assert set(found) == {"stripe", "llm", "traces"}
    assert not any(answer.mend for answer in found.values())
    assert sorted(asked) == ["/v1/billing/meters?limit=1", "/v1/models"]
    assert (kept.paths, kept.spans) == (["/v1/traces"], [])


def test_a_key_that_is_not_taken() -> None:
    """It is told which setting to mend, and not the key."""
    with service() as (url, _):
        found = ask(SP_STRIPE_API_KEY="sk_test_wrong0123456", SP_STRIPE_BASE_URL=url)
    assert "does not take our key" in found["stripe"].said
    assert "SP_STRIPE_API_KEY" in found["stripe"].mend
    assert "wrong0123456" not in str(found)


def test_a_service_that_fails() -> None:
    """An answer that is none is told with its status."""
    with service(status=503) as (url, _):
        found = ask(SP_OPENAI_API_KEY=TOKEN, SP_OPENAI_BASE_URL=url)
    assert "503" in found["llm"].said
    assert "SP_OPENAI_BASE_URL" in found["llm"].mend


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed port, and one that never says anything, end within the deadline."""
    monkeypatch.setattr(reachability, "DEADLINE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        found = ask(
            SP_STRIPE_API_KEY=TOKEN,
            SP_STRIPE_BASE_URL="http://127.0.0.1:1",
            SP_OTLP_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}",
        )
        assert time.monotonic() - started < 120
    for answer in found.values():
        assert "no answer" in answer.said
        assert "may connect there" in answer.mend


def test_destinations(tmp_path: Path) -> None:
    """An address that leads inside is named with its code; a wildcard names no host to ask; a file
    of destinations counts too."""
    file = tmp_path / "destinations.json"
    file.write_text(json.dumps([{"host": "127.0.0.1"}]))
    found = ask(SP_HEL_ALLOWLIST="*.example.com", SP_DESTINATIONS=str(file))
    assert "HEL_RESOLVED_LOOPBACK" in found["dns"].said
    assert "egress check" in found["dns"].mend
    found = ask(SP_HEL_ALLOWLIST="93.184.215.14, *.example.com")
    assert found["dns"].said == "1 destinations have addresses that may be called"


def test_destinations_of_tenants() -> None:
    """Theirs are asked for too, each once; one that cannot be called is theirs to mend, where
    everybody's is the operator's. Of very many, the rest is counted."""
    own = Tenant(id=TenantId("a"), allowlist=("93.184.215.14", {"host": "93.184.215.15"}))
    found = ask(own, SP_HEL_ALLOWLIST="93.184.215.14")
    assert found["dns"].said == "2 destinations have addresses that may be called"
    inside = Tenant(id=TenantId("b"), allowlist=("127.0.0.1",))
    found = ask(own, inside)
    assert (found["dns"].grave, "127.0.0.1" in found["dns"].said) == (False, True)
    assert ask(own, inside, SP_HEL_ALLOWLIST="127.0.0.1")["dns"].grave
    many = Tenant(id=TenantId("c"), allowlist=tuple(f"93.184.215.{last}" for last in range(1, 21)))
    assert ask(many)["dns"].said.startswith("16 destinations have addresses")
    assert ask(many)["dns"].said.endswith("4 more were not asked")
