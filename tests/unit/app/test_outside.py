"""What the gateway reaches outside itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from signet.app.outside import (
    egress_policies,
    fallback_provider,
    limit_defaults,
    registry_bounds,
    storage_config,
    written_places,
)
from signet.app.refused import StartRefused
from signet.core.ids import TenantId
from signet.core.tenant import Tenant
from signet.gateway.limits import LimitDefaults
from signet.settings import read_settings
from signet.storage.database import PostgresConfig, SqliteConfig
from signet.storage.registry import Bounds


def test_the_database_is_where_the_settings_say() -> None:
    """A file in the data directory, the file of its own setting, or a URL."""
    settings = read_settings({"SP_DATA_DIR": "/d"}).settings
    assert storage_config(settings) == SqliteConfig(path=Path("/d/signet.db"))
    settings = read_settings({"SP_DATA_DIR": "/d", "SP_DB_PATH": "/e/x.db"}).settings
    assert storage_config(settings) == SqliteConfig(path=Path("/e/x.db"))
    seed = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    settings = read_settings(
        {
            "SP_STORAGE": "postgres",
            "SP_POSTGRES_URL": "postgresql://h/d",
            "SP_PRIVATE_KEY_B64": seed,
        }
    ).settings
    assert storage_config(settings) == PostgresConfig(url="postgresql://h/d")


def test_where_is_written() -> None:
    """In the data directory, and beside the SQLite file wherever that is."""
    assert written_places(read_settings({"SP_DATA_DIR": "/d"}).settings) == {Path("/d")}
    elsewhere = read_settings({"SP_DATA_DIR": "/d", "SP_DB_PATH": "/e/x.db"}).settings
    assert written_places(elsewhere) == {Path("/d"), Path("/e")}
    seed = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    url = {"SP_STORAGE": "postgres", "SP_POSTGRES_URL": "postgresql://h/d"}
    settings = read_settings({**url, "SP_PRIVATE_KEY_B64": seed, "SP_DATA_DIR": "/d"}).settings
    assert written_places(settings) == {Path("/d")}


def test_default_limits_are_those_of_the_settings() -> None:
    """Nothing is limited by default; each setting has its own place."""
    assert limit_defaults(read_settings({}).settings) == LimitDefaults()
    environ = {
        "SP_RATE_PER_MINUTE": "1",
        "SP_RATE_BURST": "2",
        "SP_KEY_RATE_PER_MINUTE": "3",
        "SP_KEY_RATE_BURST": "4",
        "SP_CONCURRENCY": "5",
    }
    assert limit_defaults(read_settings(environ).settings) == LimitDefaults(
        rate_per_minute=1, rate_burst=2, key_rate_per_minute=3, key_rate_burst=4, concurrency=5
    )


def test_what_a_tenant_may_register_is_its_own_or_the_settings() -> None:
    """Each of the two bounds by itself, as the tenants are now; everybody has the settings'."""
    settings = read_settings(
        {"SP_REGISTRY_MAX_DOCUMENTS": "7", "SP_REGISTRY_MAX_BYTES": "9000"}
    ).settings
    acme = TenantId("acme")
    tenants: dict[TenantId, Tenant] = {}
    bounds_of = registry_bounds(settings, lambda: tenants)
    for members, documents, size_bytes in (
        ({}, 7, 9000),
        ({"registry_max_documents": 0}, 0, 9000),
        ({"registry_max_bytes": 5}, 7, 5),
    ):
        tenants[acme] = Tenant(id=acme, **members)
        assert bounds_of(acme) == Bounds(documents=documents, size_bytes=size_bytes)
        assert bounds_of(TenantId("unknown")) == Bounds(documents=7, size_bytes=9000)
        assert bounds_of(None) == Bounds(documents=7, size_bytes=9000)


def test_lists_and_destinations_make_one_policy(tmp_path: Path) -> None:
    """A plain host is a destination's shortest form; a bad entry is named."""
    path = tmp_path / "destinations.json"
    path.write_text('[{"host": "b.example", "idempotent": true}]')
    settings = read_settings(
        {
            "SP_HEL_ALLOWLIST": "a.example",
            "SP_DESTINATIONS": str(path),
            "SP_API_KEYS": '{"k": {"tenant": "t"}}',
        }
    ).settings
    (principal,) = settings.exchange.api_keys.principals.values()
    hosts = [d.host for d in egress_policies(settings).of(principal).destinations]
    assert hosts == ["a.example", "b.example"]
    path.write_text('[{"host": "b.example", "colour": 1}]')
    settings = read_settings({"SP_DESTINATIONS": str(path)}).settings
    with pytest.raises(StartRefused, match=r"b\.example"):
        egress_policies(settings)


def test_no_model_is_asked_unless_one_is_set() -> None:
    """Without a key and an origin there is no provider."""
    assert fallback_provider(read_settings({}).settings) is None
