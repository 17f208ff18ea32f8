"""The composition root: settings in, a running gateway out."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.types import ASGIApp
from structlog.typing import FilteringBoundLogger

from signet import __version__
from signet.api.answers import render
from signet.api.proxies import Proxies
from signet.api.routes import api_keys as api_key_routes
from signet.api.routes import audit, dry_run, exchange, payloads, probes, receipts, tenants, usage
from signet.api.routes import billing as billing_routes
from signet.api.routes import limits as limit_routes
from signet.api.routes import registry as registry_routes
from signet.api.server import build_api
from signet.app.billing import open_billing
from signet.app.documents import base_registry
from signet.app.faults import refuse_faults
from signet.app.keyring import tenant_administration, unread_keyring
from signet.app.measuring import (
    BatchWatch,
    begin_at_zero,
    configured_traces,
    exposition,
    measured,
    self_watch,
    timed_seal,
)
from signet.app.outside import (
    address_rules,
    egress_client,
    egress_policies,
    fallback_provider,
    limit_defaults,
    registry_bounds,
    storage_config,
    written_places,
)
from signet.app.signing import HeldKeys, open_keys
from signet.core.ids import TenantId
from signet.egress.client import EgressClient
from signet.gateway.audit import Trail
from signet.gateway.audit_exports import AuditExports
from signet.gateway.claims import Claims
from signet.gateway.dry_run import DryRuns
from signet.gateway.exchange import Exchanges
from signet.gateway.exports import Exports
from signet.gateway.fallback import Fallback
from signet.gateway.forwarding import Forwarder
from signet.gateway.keyring import LiveKeyring
from signet.gateway.limits import Limits
from signet.gateway.pipeline import Pipeline
from signet.gateway.privacy import Erasure, Retention
from signet.gateway.recovery import Recovery
from signet.gateway.registering import Registrations
from signet.gateway.registry import Registries
from signet.gateway.sealing import Sealer
from signet.gateway.signing import SigningKeys
from signet.providers.jsonata import JSONataPool
from signet.providers.mapping import JSONataRunner
from signet.providers.registry_check import RegistryCheck
from signet.receipts.keys import SigningKey
from signet.settings import Settings, secret_values
from signet.storage import migrate
from signet.storage.committer import open_committer
from signet.storage.database import Database, open_database
from signet.storage.errors import StorageError
from signet.telemetry.logs import build_logger
from signet.telemetry.metrics import Metrics
from signet.workers.chains import ChainCheck
from signet.workers.keyring import EVERY_S, KeyringWatch
from signet.workers.keys import KeyWatch
from signet.workers.ownership import is_dead, this_process
from signet.workers.runner import Worker, running

if TYPE_CHECKING:
    from signet.providers.openai import OpenAIFallback

LEASE_MORE_S = 30.0


@dataclass(slots=True, kw_only=True)
class Gateway:
    """A gateway that is up. `draining` turns it not ready, before it stops."""

    asgi: ASGIApp
    database: Database
    keys: SigningKeys
    keyring: LiveKeyring
    metrics: Metrics
    log: FilteringBoundLogger
    trail: Trail
    draining: bool = field(default=False)

    @property
    def key(self) -> SigningKey:
        """The key that signs now."""
        return self.keys.at(_now_us())


@asynccontextmanager
async def open_gateway(
    settings: Settings, *, sender: EgressClient | None = None, lease_more_s: float = LEASE_MORE_S
) -> AsyncGenerator[Gateway]:
    """Build everything, and close it in reverse at the end of the block.

    `sender` stands in for the egress client that the settings describe: its constructor has the
    seams (resolver, dialler, trust store) that tests and the demo need, all below the validation.
    A claim lasts `lease_more_s` longer than the network work under it.
    Raises `StartRefused`, `RegistryInvalid` or a `StorageError`; nothing is left open then.
    """
    refuse_faults(settings)
    log = build_logger(settings.telemetry.log_level, secrets=secret_values(settings))
    metrics = Metrics()
    begin_at_zero(metrics)
    metrics.build.labels(__version__).set(1)
    metrics.storage.labels(settings.storage.kind).set(1)
    registry = base_registry(settings.exchange.registry_dir)
    held = HeldKeys(settings)

    def zone_of(tenant: TenantId) -> str:
        return billing.plans.zone_of(tenant)

    def key_at(time_us: int) -> SigningKey:
        return keys.at(time_us)

    sealer = Sealer(
        issuer=settings.identity.issuer,
        key_at=key_at,
        render=render,
        clock=_now_us,
        dice=os.urandom,
        zone_of=zone_of,
    )
    provider = fallback_provider(settings)
    work_s = settings.egress.forward_s + settings.fallback.fallback_s
    claims = Claims(owner=this_process(), lease_us=int((work_s + lease_more_s) * 1_000_000))
    async with (
        open_database(storage_config(settings)) as database,
        open_committer(
            database, timed_seal(sealer, metrics), watch=BatchWatch(metrics)
        ) as committer,
        JSONataPool() as mappings,
        sender or egress_client(settings) as sending,
        _closing(provider),
        AsyncExitStack() as resources,
    ):
        keyring = unread_keyring(settings, database=database, clock=_now_us)
        policies = egress_policies(settings, lambda: keyring.tenants)
        administered, api_keys = tenant_administration(
            settings, database=database, keyring=keyring, clock=_now_us
        )
        limits = Limits(
            database=database,
            defaults=limit_defaults(settings),
            metrics=metrics,
            log=log,
            monotonic=time.monotonic,
        )
        keys = await open_keys(database, held, clock=_now_us)
        traces = await resources.enter_async_context(configured_traces(settings, log))
        registries = Registries(registry, database, metrics=metrics, log=log)
        await registries.refresh()
        exchanges = Exchanges(
            pipeline=Pipeline(
                registries=registries,
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
                    zone_of=zone_of,
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
                    webhook_keys_at=keys.webhooks_at,
                ),
                metrics=metrics,
                max_depth=settings.exchange.max_depth,
            ),
            database=database,
            committer=committer,
            issuer=settings.identity.issuer,
            canon_profile=settings.exchange.canon_profile,
            max_depth=settings.exchange.max_depth,
            metrics=metrics,
            clock=_now_us,
            dice=os.urandom,
        )
        billing = await resources.enter_async_context(
            open_billing(
                settings,
                database=database,
                key_for=keys.key_for,
                tenants=lambda: keyring.tenants,
                owner=claims.owner,
                metrics=metrics,
                clock=_now_us,
            )
        )
        # After billing: a start is refused for what the settings say, not for what somebody made at
        # run time, whose items get their routes, or are refused them, one tenant at a time.
        await keyring.refresh()
        recovery = Recovery(
            database=database,
            committer=committer,
            sender=sending,
            policies=policies,
            owner=claims.owner,
            lease_us=claims.lease_us,
            metrics=metrics,
            clock=_now_us,
            is_dead=is_dead,
            deadline_s=settings.egress.forward_s,
            webhook_keys_at=keys.webhooks_at,
        )
        chain_check = ChainCheck(
            database=database, metrics=metrics, log=log, monotonic=time.monotonic
        )
        key_watch = KeyWatch(keys=keys, metrics=metrics, log=log, clock=_now_us)
        exports = Exports(database=database, key_for=keys.key_for, clock=_now_us)

        registrations = Registrations(
            registries=registries,
            database=database,
            check=RegistryCheck(),
            bounds_of=registry_bounds(settings, lambda: keyring.tenants),
            max_depth=settings.exchange.max_depth,
            clock=_now_us,
        )
        dry_runs = DryRuns(
            pipeline=exchanges.pipeline,
            has_fallback=provider is not None,
            addresses=address_rules(settings),
            canon_profile=settings.exchange.canon_profile,
            max_depth=settings.exchange.max_depth,
        )

        async def readiness() -> Mapping[str, str]:
            return {
                "database": await _database_state(database),
                "signing_key": _key_state(keys),
                "serving": "draining" if gateway.draining else "ok",
            }

        operations = [
            *exchange.operations(
                exchanges,
                metrics,
                settings.server.max_body_bytes,
                draining=lambda: gateway.draining,
            ),
            *dry_run.operations(dry_runs, settings.server.max_body_bytes),
            *registry_routes.operations(
                registrations, max(1024, settings.exchange.registry_max_bytes // 16)
            ),
            *receipts.operations(exports),
            *payloads.operations(Erasure(database=database, metrics=metrics)),
            *audit.operations(AuditExports(database=database, clock=_now_us)),
            *usage.operations(database, zone_of, _now_us),
            *limit_routes.operations(limits, database, registrations, zone_of, _now_us),
            *billing_routes.operations(
                database, billing.plans, billing.statements, billing.reload, _now_us
            ),
            *tenants.operations(administered, settings.server.max_body_bytes),
            *api_key_routes.operations(api_keys, settings.server.max_body_bytes),
            *probes.operations(
                storage=settings.storage.kind,
                version=__version__,
                now_us=_now_us,
                readiness=readiness,
                exposition=lambda: exposition(metrics, database),
                metrics_token=settings.telemetry.metrics_token,
            ),
        ]
        trail = Trail(database=database, metrics=metrics, clock=_now_us)
        resources.push_async_callback(trail.close)
        asgi = build_api(
            operations,
            keyring=keyring,
            limits=limits,
            version=__version__,
            metrics=metrics,
            log=log,
            trail=trail,
            addresses=settings.audit.addresses == "on",
            proxies=Proxies(networks=settings.server.trusted_proxies),
            clock=_now_us,
            traces=traces,
        )
        gateway = Gateway(
            asgi=asgi,
            database=database,
            keys=keys,
            keyring=keyring,
            metrics=metrics,
            log=log,
            trail=trail,
        )
        retention = Retention(
            database=database,
            tenants=lambda: keyring.tenants,
            payload_days=settings.storage.payload_retention_days,
            audit_days=settings.audit.retention_days,
            answer_s=settings.storage.answer_retention_s,
            metrics=metrics,
            clock=_now_us,
        )
        workers = (
            Worker(name="recovery", work=recovery.run_once, every_s=5.0),
            Worker(name="holds", work=recovery.settle_holds, every_s=10.0),
            Worker(name="keyring", work=KeyringWatch(keyring, log).run_once, every_s=EVERY_S),
            Worker(name="audit", work=trail.flush, every_s=1.0),
            Worker(name="registry", work=registries.refresh, every_s=1.0),
            Worker(name="chains", work=chain_check.run_once, every_s=1.0),
            Worker(name="retention", work=retention.run_once, every_s=60.0),
            Worker(name="limits", work=limits.forget, every_s=3600.0),
            Worker(name="keys", work=key_watch.run_once, every_s=1.0),
        )
        limiting = Worker(name="limiting", work=limits.take_waiting, every_s=0.0)
        watching = self_watch(metrics, committer, written_places(settings))
        busy = (*measured((*workers, *billing.workers), metrics), *watching, limiting)
        resources.callback(metrics.pour)  # what was counted since the timer's last look
        async with running(busy, log):
            yield gateway


@asynccontextmanager
async def _closing(provider: OpenAIFallback | None) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        if provider is not None:
            await provider.aclose()


async def _database_state(database: Database) -> str:
    """Whether it takes writes, and has the schema that this release writes by. A newer one it may
    have: while nodes are brought to a new release one by one, the others go on."""
    try:
        await database.ping()
        if await database.read_current(migrate.newest) < database.schema_version:
            return "schema_older"
    except StorageError as error:
        return error.code
    return "ok"


def _key_state(keys: SigningKeys) -> str:
    try:
        keys.at(_now_us())
    except StorageError as error:
        return error.detail
    return "ok"


def _now_us() -> int:
    return time.time_ns() // 1000
