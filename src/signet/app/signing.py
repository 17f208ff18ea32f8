"""The keys that the gateway signs with: receipts with one, forwards with another."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from signet.app.refused import StartRefused
from signet.receipts.errors import KeyFormatError
from signet.receipts.keys import SigningKey, from_b64url
from signet.settings import Settings
from signet.storage.keys import StoredKey

SIGNING_KEY_FILE = "signing-key"


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


def webhook_key(key: SigningKey) -> Ed25519PrivateKey:
    """Derive the key that signs forwards, so that it is never the one that signs receipts."""
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"signet webhook signing v1")
    return Ed25519PrivateKey.from_private_bytes(derived.derive(from_b64url(key.seed_b64)))


def published(key: SigningKey, now_us: int) -> StoredKey:
    """Return what the table of public keys says of a key that begins to sign."""
    return StoredKey(
        kid=key.kid,
        public=key.public.raw,
        alias=key.alias,
        created_us=now_us,
        nbf_us=None,
        exp_us=None,
        retired_us=None,
        revoked_us=None,
    )


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
