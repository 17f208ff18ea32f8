"""The composition root: settings in, a running gateway out. The one file that sees everything."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from starlette.applications import Starlette
from structlog.typing import FilteringBoundLogger

from signet import __version__
from signet.api.answers import render
from signet.api.routes import exchange, probes, receipts
from signet.api.server import build_api
from signet.core.errors import SignetError
from signet.core.registry import Registry
from signet.egress import Policy
from signet.gateway.exchange import Exchanges
from signet.gateway.exports import Exports
from signet.gateway.pipeline import Pipeline
from signet.gateway.sealing import Sealer
from signet.providers.jsonata import JSONataPool
from signet.receipts.errors import KeyFormatError
from signet.receipts.keys import SigningKey
from signet.settings import Settings
from signet.storage import keys
from signet.storage.committer import open_committer
from signet.storage.database import Database, PostgresConfig, SqliteConfig, open_database
from signet.storage.errors import StorageError
from signet.telemetry.logs import build_logger
from signet.telemetry.metrics import Metrics

REGISTRY_SUFFIXES = (".schema.json", ".map.json", ".tool.json")
SIGNING_KEY_FILE = "signing-key"


class StartRefused(SignetError):
    """The gateway cannot start as it is set up; the message says what to mend."""

    code = "start_refused"


@dataclass(slots=True, kw_only=True)
class Gateway:
    """A gateway that is up. `draining` turns it not ready, before it stops."""

    asgi: Starlette
    database: Database
    key: SigningKey
    metrics: Metrics
    log: FilteringBoundLogger
    draining: bool = field(default=False)


@asynccontextmanager
async def open_gateway(settings: Settings) -> AsyncGenerator[Gateway]:
    """Build everything, and close it in reverse at the end of the block.

    Raises `StartRefused`, `RegistryInvalid` or a `StorageError`; nothing is left open then.
    """
    log = build_logger(settings.telemetry.log_level)
    metrics = Metrics()
    metrics.build.labels(__version__).set(1)
    metrics.storage.labels(settings.storage.kind).set(1)
    registry = Registry.build(registry_documents(settings.exchange.registry_dir))
    key = load_signing_key(settings)
    sealer = Sealer(
        issuer=settings.identity.issuer,
        key=key,
        render=render,
        clock=_now_us,
        dice=secrets.token_bytes,
    )
    async with (
        open_database(storage_config(settings)) as database,
        open_committer(database, sealer) as committer,
        JSONataPool(timeout_s=settings.exchange.mapping_timeout_s) as mappings,
    ):
        await database.transact(keys.publish, _published(key))
        exchanges = Exchanges(
            pipeline=Pipeline(
                registry=registry,
                mapping_runner=mappings,
                policy=Policy(),
                max_depth=settings.exchange.max_depth,
            ),
            committer=committer,
            issuer=settings.identity.issuer,
            canon_profile=settings.exchange.canon_profile,
            max_depth=settings.exchange.max_depth,
            clock=_now_us,
            dice=secrets.token_bytes,
        )
        exports = Exports(database=database, key=key, clock=_now_us)

        async def readiness() -> Mapping[str, str]:
            return {
                "database": await _database_state(database),
                "signing_key": "ok",
                "serving": "draining" if gateway.draining else "ok",
            }

        operations = [
            *exchange.operations(exchanges, metrics, settings.server.max_body_bytes),
            *receipts.operations(exports),
            *probes.operations(
                storage=settings.storage.kind,
                version=__version__,
                now_us=_now_us,
                readiness=readiness,
                metrics=metrics,
                metrics_token=settings.telemetry.metrics_token,
            ),
        ]
        asgi = build_api(
            operations,
            keyring=settings.exchange.api_keys,
            version=__version__,
            metrics=metrics,
            log=log,
        )
        gateway = Gateway(asgi=asgi, database=database, key=key, metrics=metrics, log=log)
        yield gateway


def storage_config(settings: Settings) -> SqliteConfig | PostgresConfig:
    """Return how to open the database that the settings name."""
    storage = settings.storage
    if storage.kind == "postgres":
        assert storage.postgres_url is not None, "read_settings refuses this"
        return PostgresConfig(url=storage.postgres_url)
    return SqliteConfig(path=storage.db_path or storage.data_dir / "signet.db")


def registry_documents(directory: Path | None) -> Iterator[tuple[str, bytes]]:
    """Yield the built-in documents, then those of `directory`. Raises `StartRefused`."""
    for entry in sorted(resources.files("signet.types").iterdir(), key=lambda e: e.name):
        if entry.name.endswith(REGISTRY_SUFFIXES):
            yield entry.name, entry.read_bytes()
    if directory is None:
        return
    try:
        for path in sorted(directory.iterdir()):
            if path.name.endswith(REGISTRY_SUFFIXES):
                yield path.name, path.read_bytes()
    except OSError as error:
        detail = f"SP_REGISTRY_DIR cannot be read: {error.strerror} ({error.filename})"
        raise StartRefused(detail) from error


def load_signing_key(settings: Settings) -> SigningKey:
    """Return the key of the settings, or that of the key file, made when it is missing.

    Raises `StartRefused`.
    """
    alias = settings.identity.kid
    given = settings.identity.private_key_b64
    path = settings.storage.data_dir / SIGNING_KEY_FILE
    try:
        return SigningKey.from_b64(given or _read_or_make(path), alias=alias)
    except KeyFormatError as error:
        source = "SP_PRIVATE_KEY_B64" if given else str(path)
        raise StartRefused(f"{source}: {error}") from error
    except OSError as error:
        raise StartRefused(f"the signing key {path}: {error.strerror}") from error


def _read_or_make(path: Path) -> str:
    """Read the seed in `path`; where there is none, make it, readable by its owner only.

    The new seed is written whole to a private name and then linked, so that of several processes
    that start at once all read the same key, and none reads half of one.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        private = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(SigningKey.generate().seed_b64 + "\n")
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                path.hardlink_to(private)
        finally:
            private.unlink()
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise StartRefused(f"{path} can be read by others (mode {mode:o}); chmod 600 {path}")
    return path.read_text("ascii")


def _published(key: SigningKey) -> keys.StoredKey:
    return keys.StoredKey(
        kid=key.kid,
        public=key.public.raw,
        alias=key.alias,
        created_us=_now_us(),
        nbf_us=None,
        exp_us=None,
        retired_us=None,
        revoked_us=None,
    )


async def _database_state(database: Database) -> str:
    try:
        await database.ping()
    except StorageError as error:
        return error.code
    return "ok"


def _now_us() -> int:
    return time.time_ns() // 1000
