"""`signet egress check`: says what would happen, and sends nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.egress.stage import HOST, OK, PUBLIC_IP, Authority, Stage, answering, stage
from tests.live import run_signet

from signet.cli.egress import Step, explain
from signet.egress import Policy, Request

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


async def steps(s: Stage, url: str, entries: Sequence[str] = (HOST,)) -> list[Step]:
    return [step async for step in explain(url, Policy.parse(entries), Request(), s.client)]


async def test_every_step_of_a_good_request_is_told_and_nothing_sent(authority: Authority) -> None:
    """URL, list, names, address and connection pass; the server never saw a request."""
    sent: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent.append(await reader.read())

    async with stage(authority) as s:
        await s.serve(listen)
        told = await steps(s, f"https://{HOST}/hook")
        assert [(step.stage, step.passed) for step in told] == [
            ("URL", True),
            ("list", True),
            ("names", True),
            ("address", True),
            ("connection", True),
        ]
        assert PUBLIC_IP in told[2].finding
        assert s.dialler.dialled == [(PUBLIC_IP, 443)]
    assert sent in ([], [b""])


@pytest.mark.parametrize(
    ("url", "names", "stage_", "code"),
    [
        (f"https://user@{HOST}/", {}, "URL", "HEL_URL_INVALID"),
        ("https://other.example/", {}, "list", "HEL_HOST_NOT_ALLOWED"),
        (f"https://{HOST}/", {}, "names", "HEL_NO_RESOLUTION"),
        (f"https://{HOST}/", {HOST: ["10.0.0.1"]}, "address", "HEL_RESOLVED_PRIVATE"),
        (f"https://{HOST}/", {HOST: ["8.8.8.8"]}, "connection", "CONNECT_FAILED"),
    ],
)
async def test_the_first_step_that_fails_is_named(
    authority: Authority, url: str, names: dict[str, list[str]], stage_: str, code: str
) -> None:
    """Each kind of refusal or failure is found at its own step, with its stable code."""
    async with stage(authority, names=names) as s:
        failed = next(step for step in await steps(s, url) if not step.passed)
        assert (failed.stage, failed.code) == (stage_, code)


async def test_a_certificate_that_proves_another_host_is_told(authority: Authority) -> None:
    """The check goes through the handshake."""
    async with stage(authority) as s:
        await s.serve(answering(OK), tls=authority.issue(["other.example"]))
        assert (await steps(s, f"https://{HOST}/"))[-1].code == "TLS_CERTIFICATE_INVALID"


def test_the_command_line(tmp_path: Path) -> None:
    """The exit code says whether the request would be sent; the words and the JSON say why."""
    refused = run_signet(
        "egress", "check", "https://127.0.0.1/", "--allow", "127.0.0.1", cwd=tmp_path
    )
    assert refused.returncode == 1
    assert "HEL_RESOLVED_LOOPBACK" in refused.stdout
    passed = run_signet(
        *("egress", "check", "https://a.example/", "--offline", "--json"),
        cwd=tmp_path,
        settings={"SP_HEL_ALLOWLIST": "a.example"},
    )
    assert passed.returncode == 0
    shown = json.loads(passed.stdout)
    assert shown["would_send"] is True
    assert [step["stage"] for step in shown["steps"]] == ["URL", "list"]
    assert shown["policy_hash"].startswith("sha256:")


def test_an_entry_that_is_none_is_misuse(tmp_path: Path) -> None:
    """A misspelt entry on the command line is named, with the exit code for usage."""
    done = run_signet("egress", "check", "https://a.example/", "--allow", "*.com", cwd=tmp_path)
    assert done.returncode == 64
    assert "*.com" in done.stderr
    assert "Traceback" not in done.stderr
