"""The composition root: settings in, a running gateway out. The one file that sees everything."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib import resources
from ipaddress import IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from starlette.applications import Starlette
from structlog.typing import FilteringBoundLogger

from signet import __version__
from signet.api.answers import render
from signet.api.routes import exchange, probes, receipts, usage
from signet.api.server import build_api
from signet.core.errors import SignetError
from signet.core.registry import Registry
from signet.egress import Policy, PolicyInvalid
from signet.egress.address import AddressRules
from signet.egress.client import EgressClient
from signet.egress.limits import Limits
from signet.gateway.claims import Claims
from signet.gateway.exchange import Exchanges
from signet.gateway.exports import Exports
from signet.gateway.fallback import Fallback
from signet.gateway.forwarding import Forwarder
from signet.gateway.pipeline import Pipeline
from signet.gateway.policies import Policies
from signet.gateway.recovery import Recovery
from signet.gateway.sealing import Sealer
from signet.providers.jsonata import JSONataPool
from signet.providers.mapping import JSONataRunner
from signet.receipts.errors import KeyFormatError
from signet.receipts.keys import PublicKey, SigningKey, from_b64url
from signet.settings import Settings
from signet.storage import keys
from signet.storage.committer import open_committer
from signet.storage.database import Database, PostgresConfig, SqliteConfig, open_database
from signet.storage.errors import StorageError
from signet.telemetry.logs import build_logger
from signet.telemetry.metrics import Metrics
from signet.workers.ownership import is_dead, this_process
from signet.workers.runner import Worker, running

if TYPE_CHECKING:
    from signet.providers.openai import OpenAIFallback

REGISTRY_SUFFIXES = (".schema.json", ".map.json", ".tool.json", ".tools.json")
_LEASE_MORE_S = 30.0  # how much longer a claim lasts than the network work under it
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
async def open_gateway(
    settings: Settings, *, sender: EgressClient | None = None
) -> AsyncGenerator[Gateway]:
    """Build everything, and close it in reverse at the end of the block.

    `sender` stands in for the egress client that the settings describe: its constructor has the
    seams (resolver, dialler, trust store) that tests and the demo need, all below the validation.
    Raises `StartRefused`, `RegistryInvalid` or a `StorageError`; nothing is left open then.
    """
    log = build_logger(settings.telemetry.log_level)
    metrics = Metrics()
    metrics.build.labels(__version__).set(1)
    metrics.storage.labels(settings.storage.kind).set(1)
    registry = Registry.build(registry_documents(settings.exchange.registry_dir))
    key = load_signing_key(settings)
    signing_webhooks = webhook_key(key)
    policies = egress_policies(settings)
    sealer = Sealer(
        issuer=settings.identity.issuer,
        key=key,
        render=render,
        clock=_now_us,
        dice=secrets.token_bytes,
    )
    provider = fallback_provider(settings)
    work_s = settings.egress.forward_s + settings.fallback.fallback_s
    claims = Claims(owner=this_process(), lease_us=int((work_s + _LEASE_MORE_S) * 1_000_000))
    async with (
        open_database(storage_config(settings)) as database,
        open_committer(database, sealer) as committer,
        JSONataPool() as mappings,
        sender or egress_client(settings) as sending,
        _closing(provider),
    ):
        await database.transact(keys.publish, _published(key))
        exchanges = Exchanges(
            pipeline=Pipeline(
                registry=registry,
                mapping_runner=JSONataRunner(
                    pool=mappings, timeout_s=settings.exchange.mapping_timeout_s
                ),
                policies=policies,
                fallback=Fallback(
                    provider=provider,
                    database=database,
                    claims=claims,
                    metrics=metrics,
                    clock=_now_us,
                    max_depth=settings.exchange.max_depth,
                ),
                forwarder=Forwarder(
                    database=database,
                    sender=sending,
                    claims=claims,
                    deadline_s=settings.egress.forward_s,
                    metrics=metrics,
                    clock=_now_us,
                    monotonic=time.monotonic,
                    webhook_key=signing_webhooks,
                ),
                max_depth=settings.exchange.max_depth,
            ),
            database=database,
            committer=committer,
            issuer=settings.identity.issuer,
            canon_profile=settings.exchange.canon_profile,
            max_depth=settings.exchange.max_depth,
            metrics=metrics,
            clock=_now_us,
            dice=secrets.token_bytes,
        )
        recovery = Recovery(
            database=database,
            committer=committer,
            sender=sending,
            owner=claims.owner,
            lease_us=claims.lease_us,
            metrics=metrics,
            is_dead=is_dead,
            deadline_s=settings.egress.forward_s,
        )
        exports = Exports(
            database=database,
            key=key,
            webhook_key=PublicKey(raw=signing_webhooks.public_key().public_bytes_raw()),
            clock=_now_us,
        )

        async def readiness() -> Mapping[str, str]:
            return {
                "database": await _database_state(database),
                "signing_key": "ok",
                "serving": "draining" if gateway.draining else "ok",
            }

        operations = [
            *exchange.operations(
                exchanges,
                metrics,
                settings.server.max_body_bytes,
                draining=lambda: gateway.draining,
            ),
            *receipts.operations(exports),
            *usage.operations(database, _now_us),
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
        workers = (
            Worker(name="recovery", work=recovery.run_once, every_s=5.0),
            Worker(name="holds", work=recovery.settle_holds, every_s=10.0),
        )
        async with running(workers, log):
            yield gateway


def storage_config(settings: Settings) -> SqliteConfig | PostgresConfig:
    """Return how to open the database that the settings name."""
    storage = settings.storage
    if storage.kind == "postgres":
        assert storage.postgres_url is not None, "read_settings refuses this"
        return PostgresConfig(url=storage.postgres_url)
    return SqliteConfig(path=storage.db_path or storage.data_dir / "signet.db")


def egress_policies(settings: Settings) -> Policies:
    """Return the policy of every key. Raises `StartRefused` naming the entry at fault."""
    egress = settings.egress
    entries = cast(Sequence[str | Mapping[str, object]], (*egress.allowlist, *egress.destinations))
    try:
        everyone = Policy.parse(entries, mode=egress.mode)
        return Policies(everyone, settings.exchange.api_keys.principals.values())
    except PolicyInvalid as error:
        raise StartRefused(f"an allowlist cannot be used: {error}") from error


def egress_client(settings: Settings) -> EgressClient:
    """Return the client that every forward goes through. Raises `StartRefused`."""
    egress = settings.egress
    try:
        rules = AddressRules(
            private=tuple(map(ip_network, egress.private_networks)),
            nat64=tuple(map(IPv6Network, egress.nat64_prefixes)),
        )
    except (ValueError, PolicyInvalid) as error:
        raise StartRefused(f"an egress network cannot be used: {error}") from error
    limits = Limits(deadline_s=egress.forward_s, max_body=egress.max_response_bytes)
    return EgressClient(limits=limits, rules=rules)


def fallback_provider(settings: Settings) -> OpenAIFallback | None:
    """Return the model that is asked, None where none is set. Raises `StartRefused`."""
    fallback = settings.fallback
    if fallback.api_key is None and fallback.base_url is None:
        return None
    try:
        from signet.providers.openai import OpenAIConfig, OpenAIFallback, OperatorLimits
    except ModuleNotFoundError as error:
        detail = "the LLM fallback needs the extra `openai`: pip install 'signet-protocol[openai]'"
        raise StartRefused(detail) from error
    config = OpenAIConfig(
        # A service on one's own machine asks for none, and the SDK insists on one.
        api_key=fallback.api_key or "none",
        base_url=fallback.base_url or "https://api.openai.com/v1",
        model=fallback.model,
        api=fallback.api,
        limits=OperatorLimits(deadline_s=fallback.fallback_s),
    )
    return OpenAIFallback(config)


def webhook_key(key: SigningKey) -> Ed25519PrivateKey:
    """Derive the key that signs forwards, so that it is never the one that signs receipts."""
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"signet webhook signing v1")
    return Ed25519PrivateKey.from_private_bytes(derived.derive(from_b64url(key.seed_b64)))


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
    return path.read_text("latin-1")  # what is no seed is refused as one


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


@asynccontextmanager
async def _closing(provider: OpenAIFallback | None) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        if provider is not None:
            await provider.aclose()


async def _database_state(database: Database) -> str:
    try:
        await database.ping()
    except StorageError as error:
        return error.code
    return "ok"


def _now_us() -> int:
    return time.time_ns() // 1000
