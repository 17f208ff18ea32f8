"""The gateway as an operator runs it: `signet serve` in a process of its own, on a free port."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.inprocess import KEYS, SEED

STOP_S = 120.0


def signet(*arguments: str) -> list[str]:
    """The command line of the `signet` under test."""
    program = "import sys; from signet.cli.main import main; sys.exit(main())"
    return [sys.executable, "-c", program, *arguments]


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This environment, without any setting but `settings`."""
    ours = ("SP_", "AB_", "SIGNET_")
    return {k: v for k, v in os.environ.items() if not k.startswith(ours)} | dict(settings)


def run_signet(
    *arguments: str, cwd: Path, settings: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        signet(*arguments),
        cwd=cwd,
        env=environment(settings or {}),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back over HTTP."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """A running gateway."""

    process: subprocess.Popen[str]
    line: str
    errors: Path

    @property
    def url(self) -> str:
        """Where it listens, as its start line says."""
        return self.line.partition(" on ")[2].partition(",")[0]

    @property
    def port(self) -> int:
        """The port it took."""
        return int(self.url.rpartition(":")[2])

    def connect(self) -> http.client.HTTPConnection:
        """A new connection, not yet made."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)

    def get(self, path: str, *, api_key: str = "acme-key") -> Reply:
        """Ask for a resource."""
        with closing(self.connect()) as connection:
            connection.request("GET", path, headers={"X-SIGNET-API-Key": api_key})
            return reply(connection)

    def exchange(self, body: object, *, key: str, api_key: str = "acme-key") -> Reply:
        """Post an exchange."""
        with closing(self.connect()) as connection:
            headers = exchange_headers(key, api_key)
            connection.request("POST", "/v1/exchange", json.dumps(body), headers)
            return reply(connection)


def exchange_headers(key: str, api_key: str = "acme-key") -> dict[str, str]:
    """The headers that an exchange needs."""
    return {
        "Content-Type": "application/json",
        "X-SIGNET-API-Key": api_key,
        "X-SIGNET-Idempotency-Key": key,
    }


def reply(connection: http.client.HTTPConnection) -> Reply:
    """Read the answer that is due on a connection."""
    response = connection.getresponse()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Reply(status=response.status, headers=headers, body=response.read())


@contextmanager
def live(directory: Path, **settings: str) -> Iterator[Live]:
    """Start a gateway with its data in `directory`; kill it at the end if it still runs."""
    everything = {
        "SP_PORT": "0",
        "SP_DATA_DIR": str(directory / "data"),
        "SP_PRIVATE_KEY_B64": SEED,
        "SP_API_KEYS": json.dumps(KEYS),
        "SP_LOG_LEVEL": "error",
        **settings,
    }
    errors = directory / "errors.log"
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            signet("serve"),
            cwd=directory,
            env=environment({name: text for name, text in everything.items() if text}),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"the gateway did not start: {errors.read_text()}"
        yield Live(process=process, line=line, errors=errors)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(STOP_S)
        assert process.stdout is not None
        process.stdout.close()


def until(holds: Callable[[], bool], *, within_s: float = 240.0) -> None:
    """Wait until `holds()` is true; fail when it is not in time."""
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
