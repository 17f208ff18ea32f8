"""The keyring of the settings and the database together."""

from __future__ import annotations

from pathlib import Path

import pytest

from signet.app.keyring import live_keyring, tenant_administration
from signet.gateway.tenants import Actor
from signet.settings import read_settings
from signet.storage.database import SqliteConfig, open_database

pytestmark = pytest.mark.anyio

TESTER = Actor(key_id="test")
PEPPER = "A" * 43 + "="


async def test_what_is_made_is_hashed_with_the_pepper_in_force(tmp_path: Path) -> None:
    """The peppers of the settings are those of the keyring; the newer one hashes."""
    settings = read_settings(
        {
            "SP_API_KEYS": '{"env-key": {"tenant": "acme"}}',
            "SP_KEY_PEPPER": "B" * 42 + "A=",
            "SP_KEY_PEPPER_PREVIOUS": PEPPER,
        }
    ).settings
    async with open_database(SqliteConfig(path=tmp_path / "signet.db")) as database:
        keyring = await live_keyring(settings, database=database, clock=lambda: 1)
        assert keyring.find(b"env-key") is not None
        tenants, keys = tenant_administration(
            settings, database=database, keyring=keyring, clock=lambda: 1
        )
        await tenants.create("initech", {}, actor=TESTER)
        issued = await keys.create("initech", {}, actor=TESTER)
        assert settings.exchange.key_pepper is not None
        assert issued.key.pepper == settings.exchange.key_pepper.id
        again = await live_keyring(settings, database=database, clock=lambda: 1)
        found = again.find(issued.text.encode())
        assert found is not None
        assert found.tenant.id == "initech"
