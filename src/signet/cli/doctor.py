"""`signet doctor`: what is wrong with an installation, and how to mend it.

Every check returns findings and none stops the others, so that one run shows everything. The
database is opened just as `signet serve` opens it, which also brings its schema up to date.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import parse_qs

from signet import __version__
from signet.app import (
    SIGNING_KEY_FILE,
    HeldKeys,
    base_registry,
    load_signing_key,
    storage_config,
)
from signet.app.billing import reserved_plans, stripe_landmark
from signet.app.faults import egress_faults, reserve_faults
from signet.app.keyring import live_keyring
from signet.cli.arguments import new_command
from signet.cli.exits import Exit
from signet.cli.terminal import bytes_text
from signet.core.errors import SignetError
from signet.core.tenant import Keyring, Tenant
from signet.gateway.keyring import LiveKeyring
from signet.gateway.signing import signer_at
from signet.settings import Settings, SettingsInvalid, read_settings
from signet.storage import keys as stored_keys
from signet.storage import outbox
from signet.storage.database import PostgresConfig, SqliteConfig, open_database
from signet.storage.schema import read_schema
from signet.storage.tx import ReadTx

if TYPE_CHECKING:
    from signet.cli.arguments import Subparsers

Verdict = Literal["ok", "note", "wrong"]

_LEAST_FREE_BYTES: Final = 100_000_000
_LITTLE_FREE_BYTES: Final = 1_000_000_000
_RELEASED_S: Final = 1_767_225_600  # 2026-01-01: no clock that shows less is right
_SKEW_S: Final = 60
_PROBE_S: Final = 2.0
_APART_US: Final = 5_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `mend` says what to do where it is not `ok`."""

    name: str
    verdict: Verdict
    said: str
    mend: str = ""


def add_parser(subparsers: Subparsers) -> None:
    """Add `doctor` to the command's sub-commands."""
    parser = new_command(
        subparsers,
        "doctor",
        line="find what is wrong with an installation",
        description="Look at settings, types, lists, reserved capacity, disk, signing key, clock,"
        " database, API keys, port, the names of destinations, Stripe, the model and the trace"
        " collector, and say how to mend what is wrong. Nothing is sent to a destination. The"
        " database is opened as `signet serve` opens it, which also brings its schema up to date."
        " Exits 1 when something is wrong.",
        examples="  signet doctor\n  signet doctor --json",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the findings; exit 1 when one of them is wrong."""
    findings = list(examine(os.environ))
    if args.json:
        rows = [
            {"name": f.name, "verdict": f.verdict, "said": f.said, "mend": f.mend} for f in findings
        ]
        print(json.dumps(rows, indent=2))
    else:
        for finding in findings:
            print(f"{finding.verdict:<5}  {finding.name:<9} {finding.said}")
            if finding.mend:
                print(f"{'':<17}-> {finding.mend}")
    wrong = sum(finding.verdict == "wrong" for finding in findings)
    if wrong and not args.json:
        print(f"{wrong} thing{'s' * (wrong > 1)} to mend", file=sys.stderr)
    return Exit.FAILED if wrong else Exit.DONE


def examine(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what each check finds; without usable settings there is nothing else to check."""
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding("version", "ok", f"signet {__version__}, Python {python}")
    try:
        environment = read_settings(environ)
    except SettingsInvalid as error:
        for fault in error.faults:
            yield Finding("settings", "wrong", f"{fault.pointer}: {fault.detail}", "set it anew")
        return
    for name in environment.unknown:
        yield Finding("settings", "note", f"nothing reads {name}", "unset it, or mend its name")
    for name in environment.idle:
        said = f"{name} is not used, because SP_STORAGE is sqlite"
        yield Finding("settings", "note", said, "set SP_STORAGE=postgres, or unset it")
    settings = environment.settings
    yield _registry(settings)
    yield from _egress(settings)
    yield from _reserve(settings)
    yield _directory(settings)
    yield _signing_key(settings)
    yield _clock(settings)  # before the database, which is written to
    yield _database(settings)
    yield from _replica(settings)
    keyring = _keys_in_force(settings)
    yield from _api_keys(keyring)
    yield _port(settings)
    yield from _outside(settings, (keyring or settings.exchange.api_keys).tenants.values())


def _outside(settings: Settings, tenants: Iterable[Tenant]) -> Iterator[Finding]:
    """Names, destinations and services; a list that cannot be used was told before."""
    from signet.cli.reachability import reached

    try:
        answers = asyncio.run(reached(settings, tenants))
    except SignetError:
        return
    for answer in answers:
        bad: Verdict = "wrong" if answer.grave else "note"
        yield Finding(answer.name, bad if answer.mend else "ok", answer.said, answer.mend)


def _keys_in_force(settings: Settings) -> Keyring | LiveKeyring | None:
    """The keys of the settings, and those in the database; None where that cannot be asked."""
    config = storage_config(settings)
    if isinstance(config, SqliteConfig) and not config.path.exists():
        return settings.exchange.api_keys
    try:
        return asyncio.run(_keyring(settings, config))
    except SignetError:
        return None  # the finding about the database says why


def _api_keys(keyring: Keyring | LiveKeyring | None) -> Iterator[Finding]:
    if keyring is None:
        return
    if not keyring.count:
        said = "there are none, so every call is refused with 401"
        yield Finding("api keys", "note", said, "signet api-keys create, or set SP_API_KEYS")
    else:
        tenants = len(keyring.tenants)
        said = f"{keyring.count} for {tenants} tenant{'s' * (tenants != 1)}"
        yield Finding("api keys", "ok", said)
    for one in keyring.unusable if isinstance(keyring, LiveKeyring) else ():
        said = f"{one.subject} is not served: {one.detail}"
        mend = "make its tenant or set its pepper, or end it with signet api-keys revoke"
        if one.subject.startswith("tenant "):
            mend = "signet tenants update, or take it out of one of the two places"
        yield Finding("api keys", "note", said, mend)


async def _keyring(settings: Settings, config: SqliteConfig | PostgresConfig) -> LiveKeyring:
    async with open_database(config) as database:
        return await live_keyring(settings, database=database, clock=lambda: time.time_ns() // 1000)


def _registry(settings: Settings) -> Finding:
    try:
        registry = base_registry(settings.exchange.registry_dir)
    except SignetError as error:
        places = "; ".join(f"{fault.pointer}: {fault.detail}" for fault in error.faults)
        mend = "mend the files in SP_REGISTRY_DIR"
        return Finding("types", "wrong", places or error.detail, mend)
    return Finding("types", "ok", f"{len(registry.entries)} schemas, tools and mappings")


def _egress(settings: Settings) -> Iterator[Finding]:
    faults = list(egress_faults(settings))
    for fault in faults:
        yield Finding(
            "egress", "wrong", f"{fault.pointer}: {fault.detail}", "mend the entry it names"
        )
    if not faults:
        entries = len(settings.egress.allowlist) + len(settings.egress.destinations)
        said = f"{settings.egress.mode}, {entries} destinations for everyone"
        yield Finding("egress", "ok", said)


def _reserve(settings: Settings) -> Iterator[Finding]:
    """The file of reserved capacity, which a start is refused for; nothing where none is named."""
    if settings.billing.reserved_config is None:
        return
    faults = list(reserve_faults(settings))
    for fault in faults:
        yield Finding(
            "reserve", "wrong", f"{fault.pointer}: {fault.detail}", "mend the file it names"
        )
    if not faults:
        tenants = len(reserved_plans(settings))
        yield Finding("reserve", "ok", f"plans of {tenants} tenant{'s' * (tenants != 1)}")


def _directory(settings: Settings) -> Finding:
    """The disk under the data; a gateway on a full disk acknowledges nothing."""
    storage = storage_config(settings)
    wanted = storage.path.parent if isinstance(storage, SqliteConfig) else settings.storage.data_dir
    there = next(path for path in (wanted.absolute(), *wanted.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        mend = f"give this user (uid {os.getuid()}) a place to write, or move SP_DATA_DIR"
        return Finding("disk", "wrong", f"{there} cannot be written: {error.strerror}", mend)
    free = shutil.disk_usage(there).free
    said = f"{bytes_text(free)} free under {there}"
    if free < _LITTLE_FREE_BYTES:
        verdict: Verdict = "wrong" if free < _LEAST_FREE_BYTES else "note"
        return Finding("disk", verdict, said, "make room, or move SP_DATA_DIR")
    return Finding("disk", "ok", said)


def _signing_key(settings: Settings) -> Finding:
    file = settings.storage.data_dir / SIGNING_KEY_FILE
    if settings.identity.private_key_b64 is None and not file.exists():
        return Finding("key", "ok", f"none yet; the first start makes {file}")
    try:
        key = load_signing_key(settings)
    except SignetError as error:
        mend = "put the old key back: what it signed cannot be signed by another"
        return Finding("key", "wrong", error.detail, mend)
    source = str(file) if settings.identity.private_key_b64 is None else "SP_PRIVATE_KEY_B64"
    held = Finding("key", "ok", f"kid {key.kid} from {source}")
    config = storage_config(settings)
    if isinstance(config, SqliteConfig) and not config.path.exists():
        return held
    try:
        found = asyncio.run(_signing(settings, config))
    except SignetError:
        return held  # the finding about the database says why
    return found or held


async def _signing(settings: Settings, config: SqliteConfig | PostgresConfig) -> Finding | None:
    """Which key the database says signs, or will, where that is not the first one, or not here."""
    async with open_database(config) as database:
        keys = await database.read_current(stored_keys.published)
    held, now_us = HeldKeys(settings), time.time_ns() // 1000
    signer = signer_at(keys, now_us)
    coming = [key for key in keys if key.signs_from_us is not None and key.signs_from_us > now_us]
    for key in (*([signer] if signer is not None else ()), *coming):
        if held.find(key.kid) is None:
            when = "signs" if key is signer else "is to sign soon"
            said = f"the key that {when}, {key.kid}, is not here"
            mend = "put it into the settings or SP_DATA_DIR; docs/operations/keys.md has the steps"
            return Finding("key", "wrong", said, mend)
    if signer is None or (signer.kid == held.first.signing.kid and not coming):
        return None
    following = f"; {coming[0].kid} takes over soon" if coming else ""
    return Finding("key", "ok", f"kid {signer.kid} signs{following}")


def _database(settings: Settings) -> Finding:
    config = storage_config(settings)
    if isinstance(config, SqliteConfig) and not config.path.exists():
        return Finding("database", "ok", f"none yet; the first start makes {config.path}")
    shown = _place(config)
    try:
        version, sends, ahead_us = asyncio.run(_opened(config))
    except SignetError as error:
        mend = "see what the sentence names; the data was left as it is"
        if isinstance(config, PostgresConfig):
            mend = (
                "see that the server runs and may be reached from here; SP_POSTGRES_URL has its"
                " host, a database that is there, and a user with its password who owns the schema"
            )
        return Finding("database", "wrong", f"{shown}: {error.detail}", mend)
    if abs(ahead_us) > _APART_US:
        said = f"{shown}: this clock is {ahead_us / 1_000_000:+.1f} s from the database's"
        mend = "set both clocks by NTP: a switch of signing keys is announced by the database's"
        return Finding("database", "wrong", said, mend)
    landmark = stripe_landmark(settings)
    if sends < landmark.read():
        said = f"{shown} is older than {landmark.path}, so it comes from a backup"
        mend = "run `signet storage restored`; Stripe is asked before anything is sent in any case"
        return Finding("database", "note", said, mend)
    return Finding("database", "ok", f"{shown} takes writes, schema {version}")


def _replica(settings: Settings) -> Iterator[Finding]:
    """The standbys for reports, where some are named; without them the primary has to answer."""
    config = storage_config(settings)
    if isinstance(config, SqliteConfig) or config.replica_url is None:
        return
    standby = replace(config, url=config.replica_url, replica_url=None)
    try:
        schema = asyncio.run(read_schema(standby))
    except SignetError as error:
        said = f"{_place(standby)}: {error.detail}; reports are read from the primary"
        mend = "see that a standby runs there, and that SP_POSTGRES_REPLICA_URL is right"
        yield Finding("replica", "note", said, mend)
        return
    yield Finding("replica", "ok", f"{_place(standby)} answers, schema {schema.version}")


def _place(config: SqliteConfig | PostgresConfig) -> str:
    """Where the database is, without what a connection URL has of a password."""
    if isinstance(config, SqliteConfig):
        return str(config.path)
    place, _, options = config.url.partition("://")[2].partition("?")
    hosts = place.partition("/")[0].rpartition("@")[2]
    return f"postgres at {hosts or ', '.join(parse_qs(options).get('host', ['its socket']))}"


async def _opened(config: SqliteConfig | PostgresConfig) -> tuple[int, int, int]:
    """The version of the schema, how often something was sent to Stripe from there, and by how much
    this clock is ahead of the database's, in microseconds."""
    async with open_database(config) as database:
        await database.ping()
        before_us = time.time_ns() // 1000
        theirs_us = await database.read_current(_now_there)
        # How long the question took is no difference between the clocks.
        within_us = min(max(theirs_us, before_us), time.time_ns() // 1000)
        ahead_us = within_us - theirs_us
        return database.schema_version, await database.read_current(outbox.sends), ahead_us


async def _now_there(tx: ReadTx) -> int:
    return await tx.now_us()


def _clock(settings: Settings) -> Finding:
    """The clock stamps receipts: it may not be before the release, nor before the last write."""
    now_s = time.time()
    said = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now_s))
    mend = "set the clock (timedatectl set-ntp true): receipts carry its time"
    if now_s < _RELEASED_S:
        return Finding("clock", "wrong", f"{said} is before this release", mend)
    config = storage_config(settings)
    written_s = _last_write_s(config.path) if isinstance(config, SqliteConfig) else 0.0
    if now_s < written_s - _SKEW_S:
        return Finding("clock", "wrong", f"{said} is before the last write to the database", mend)
    return Finding("clock", "ok", said)


def _last_write_s(database: Path) -> float:
    return database.stat().st_mtime if database.exists() else 0.0


def _port(settings: Settings) -> Finding:
    host, port = settings.server.host, settings.server.port
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        running = _running_version(host, port)
        if running is not None:
            return Finding("port", "ok", f"signet {running} is running on {host} port {port}")
        said = f"cannot listen on {host} port {port}: {error.strerror}"
        return Finding("port", "wrong", said, "set SP_PORT to a free port, or SP_HOST")
    return Finding("port", "ok", f"{host} port {port} is free" if port else "any free one")


def _running_version(host: str, port: int) -> str | None:
    """The version of the gateway that has the port, None where it is something else."""
    connection = http.client.HTTPConnection(host, port, timeout=_PROBE_S)
    try:
        with closing(connection):
            connection.request("GET", "/healthz")
            state = json.loads(connection.getresponse().read(4096))
            return str(state["version"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None
