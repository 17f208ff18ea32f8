"""What the gateway reaches outside itself, as the settings describe it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from signet.app.refused import StartRefused
from signet.core.ids import TenantId
from signet.core.tenant import Tenant
from signet.egress import PolicyInvalid
from signet.egress.address import AddressRules
from signet.egress.client import EgressClient
from signet.egress.limits import Limits
from signet.gateway.limits import LimitDefaults
from signet.gateway.policies import Policies, read_list
from signet.settings import Settings
from signet.storage.database import PostgresConfig, SqliteConfig
from signet.storage.registry import Bounds

if TYPE_CHECKING:
    from signet.providers.openai import OpenAIFallback


def storage_config(settings: Settings) -> SqliteConfig | PostgresConfig:
    """Return how to open the database that the settings name."""
    storage = settings.storage
    if storage.kind == "postgres":
        assert storage.postgres_url is not None, "read_settings refuses this"
        return PostgresConfig(
            url=storage.postgres_url,
            replica_url=storage.postgres_replica_url,
            pool_size=storage.postgres_pool_size,
            statement_cache_size=storage.postgres_statement_cache,
        )
    return SqliteConfig(path=storage.db_path or storage.data_dir / "signet.db")


def written_places(settings: Settings) -> set[Path]:
    """Return the directories that this process writes to, which may be on disks of their own."""
    config = storage_config(settings)
    places = {settings.storage.data_dir}
    return places | {config.path.parent} if isinstance(config, SqliteConfig) else places


def limit_defaults(settings: Settings) -> LimitDefaults:
    """Return the limits of who does not say."""
    limits = settings.limits
    return LimitDefaults(
        rate_per_minute=limits.rate_per_minute,
        rate_burst=limits.rate_burst,
        key_rate_per_minute=limits.key_rate_per_minute,
        key_rate_burst=limits.key_rate_burst,
        concurrency=limits.concurrency,
    )


def registry_bounds(
    settings: Settings, tenants: Callable[[], Mapping[TenantId, Tenant]]
) -> Callable[[TenantId | None], Bounds]:
    """Return how much a tenant, or (None) everybody, may register now; its own goes first."""
    exchange = settings.exchange

    def bounds_of(owner: TenantId | None) -> Bounds:
        tenant = None if owner is None else tenants().get(owner)
        own = (None, None)
        if tenant is not None:
            own = (tenant.registry_max_documents, tenant.registry_max_bytes)
        documents, size_bytes = own
        return Bounds(
            documents=exchange.registry_max_documents if documents is None else documents,
            size_bytes=exchange.registry_max_bytes if size_bytes is None else size_bytes,
        )

    return bounds_of


def egress_policies(
    settings: Settings, tenants: Callable[[], Mapping[TenantId, Tenant]] | None = None
) -> Policies:
    """Return the policy of every key; `tenants` are those in force, of the settings when absent.

    Raises `StartRefused` naming the entry at fault.
    """
    configured = settings.exchange.api_keys
    egress = settings.egress
    try:
        everyone = read_list((*egress.allowlist, *egress.destinations), mode=egress.mode)
        policies = Policies(everyone, tenants or (lambda: configured.tenants))
        for principal in configured.principals.values():
            policies.of(principal)
    except PolicyInvalid as error:
        raise StartRefused(f"an allowlist cannot be used: {error}") from error
    return policies


def address_rules(settings: Settings) -> AddressRules:
    """Return which addresses may be reached. Raises `StartRefused`."""
    egress = settings.egress
    try:
        return AddressRules(
            private=tuple(map(ip_network, egress.private_networks)),
            nat64=tuple(map(IPv6Network, egress.nat64_prefixes)),
        )
    except (ValueError, PolicyInvalid) as error:
        raise StartRefused(f"an egress network cannot be used: {error}") from error


def egress_client(settings: Settings) -> EgressClient:
    """Return the client that every forward goes through. Raises `StartRefused`."""
    egress = settings.egress
    limits = Limits(deadline_s=egress.forward_s, max_body=egress.max_response_bytes)
    return EgressClient(limits=limits, rules=address_rules(settings))


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
