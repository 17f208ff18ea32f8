"""The keys in force, as the settings and the database together have them."""

from __future__ import annotations

import secrets
import time

from signet.gateway.api_keys import APIKeys
from signet.gateway.keyring import LiveKeyring
from signet.gateway.ports import Clock
from signet.gateway.tenants import Tenants
from signet.settings import Settings
from signet.storage.database import Database


async def live_keyring(settings: Settings, *, database: Database, clock: Clock) -> LiveKeyring:
    """Return the keyring, read once. Raises a `StorageError`."""
    keyring = unread_keyring(settings, database=database, clock=clock)
    await keyring.refresh()
    return keyring


def unread_keyring(settings: Settings, *, database: Database, clock: Clock) -> LiveKeyring:
    """Return the keyring as the settings have it; what is in the database comes with `refresh`."""
    exchange = settings.exchange
    peppers = (exchange.key_pepper, exchange.key_pepper_previous)
    return LiveKeyring(
        database=database,
        configured=exchange.api_keys,
        peppers=[pepper for pepper in peppers if pepper is not None],
        clock=clock,
        monotonic=time.monotonic,
    )


def tenant_administration(
    settings: Settings, *, database: Database, keyring: LiveKeyring, clock: Clock
) -> tuple[Tenants, APIKeys]:
    """Return what makes and changes tenants and keys."""
    keys = APIKeys(
        database=database,
        keyring=keyring,
        pepper=settings.exchange.key_pepper,
        clock=clock,
        dice=secrets.token_bytes,
    )
    return Tenants(database=database, keyring=keyring, clock=clock), keys
