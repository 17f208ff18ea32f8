"""The composition root: the one room that sees everything, and builds it once.

`open_gateway` is the whole of it; the other names are its parts, for commands that need only one.
"""

from signet.app.documents import base_registry
from signet.app.gateway import Gateway, open_gateway
from signet.app.memory import settle_memory
from signet.app.outside import egress_client, egress_policies, fallback_provider, storage_config
from signet.app.refused import StartRefused
from signet.app.signing import (
    SIGNING_KEY_FILE,
    HeldKeys,
    key_file,
    load_signing_key,
    new_held_key,
    open_keys,
    webhook_key,
    write_key_file,
)

__all__ = [
    "SIGNING_KEY_FILE",
    "Gateway",
    "HeldKeys",
    "StartRefused",
    "base_registry",
    "egress_client",
    "egress_policies",
    "fallback_provider",
    "key_file",
    "load_signing_key",
    "new_held_key",
    "open_gateway",
    "open_keys",
    "settle_memory",
    "storage_config",
    "webhook_key",
    "write_key_file",
]
