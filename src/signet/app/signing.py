"""The keys that the gateway signs with: receipts with one, forwards with one derived from it."""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from signet.app.refused import StartRefused
from signet.gateway.ports import Clock
from signet.gateway.signing import HeldKey, SigningKeys, announced, signer_at
from signet.receipts.errors import KeyFormatError
from signet.receipts.keys import SigningKey, from_b64url
from signet.settings import Settings
from signet.storage import keys as stored
from signet.storage.database import Database

SIGNING_KEY_FILE = "signing-key"
"""The file of the first key in SP_DATA_DIR; that of a later one is `signing-key-<kid>`."""


class HeldKeys:
    """The private keys of this process: those of the settings, or those of files.

    `first` is the one that signs where no key ever has; `following` is there where the settings
    name it. Raises `StartRefused` for one that cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        identity = settings.identity
        self._directory = None if identity.private_key_b64 else settings.storage.data_dir
        self.first = _held(load_signing_key(settings))
        self.following: HeldKey | None = None
        if identity.next_private_key_b64 is not None:
            key = _from_text(identity.next_private_key_b64, "SP_NEXT_PRIVATE_KEY_B64")
            self.following = _held(key)
        ours = (self.first, self.following)
        self._found = {held.signing.kid: held for held in ours if held is not None}

    @property
    def directory(self) -> Path | None:
        """Where key files are; None where the settings hold the key."""
        return self._directory

    def find(self, kid: str) -> HeldKey | None:
        """Return the key of this kid; None where there is none here that can be used."""
        if kid not in self._found and self._directory is not None:
            path = key_file(self._directory, kid)
            # Whoever asks says that a key is missing; `signet doctor` says why.
            with suppress(StartRefused, OSError):
                held = _held(_from_text(_read_private(path), str(path)))
                if held.signing.kid == kid:
                    self._found[kid] = held
        return self._found.get(kid)


async def open_keys(database: Database, held: HeldKeys, *, clock: Clock) -> SigningKeys:
    """Publish the keys of this process, and return what knows which of them signs when.

    Raises `StartRefused` where the database says that a key signs which is not here.
    """
    now_us = clock()
    await database.transact(announced, held.first, held.following, now_us)
    keys = SigningKeys(database=database, held=held.find, clock=clock, monotonic=time.monotonic)
    await keys.refresh()
    signer = signer_at(await database.read_current(stored.published), now_us)
    if signer is not None and signer.kid in keys.missing(now_us):
        raise StartRefused(
            f"the signing key of this database is {signer.kid}, and here is"
            f" {held.first.signing.kid}; put the right one back, or see `signet keys rotate --help`"
        )
    return keys


def load_signing_key(settings: Settings) -> SigningKey:
    """Return the key of the settings, or that of the key file, made when it is missing.

    Raises `StartRefused`.
    """
    alias = settings.identity.kid
    given = settings.identity.private_key_b64
    if given:
        return _from_text(given, "SP_PRIVATE_KEY_B64", alias)
    path = settings.storage.data_dir / SIGNING_KEY_FILE
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):  # another process was first, and its key is ours too
                write_key_file(path, SigningKey.generate())
        return _from_text(_read_private(path), str(path), alias)
    except OSError as error:
        raise StartRefused(f"the signing key {path}: {error.strerror}") from error


def webhook_key(key: SigningKey) -> Ed25519PrivateKey:
    """Derive the key that signs forwards, so that it is never the one that signs receipts."""
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"signet webhook signing v1")
    return Ed25519PrivateKey.from_private_bytes(derived.derive(from_b64url(key.seed_b64)))


def key_file(directory: Path, kid: str) -> Path:
    """Return where the key of this kid is kept, unless it is the first one."""
    return directory / f"{SIGNING_KEY_FILE}-{kid}"


def write_key_file(path: Path, key: SigningKey) -> None:
    """Write a key to a new file that its owner alone can read; it is on the disk afterwards.

    It is written whole to a private name and then linked, so that nobody ever reads half of one.
    Where root does this for a service, the file belongs to the directory's owner. Raises `OSError`,
    `FileExistsError` among them.
    """
    private = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(key.seed_b64 + "\n")
            file.flush()
            owner = path.parent.stat()
            if os.geteuid() == 0:
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            os.fsync(descriptor)
        path.hardlink_to(private)
    finally:
        private.unlink()
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def new_held_key() -> HeldKey:
    """Return a new key from the operating system's randomness."""
    return _held(SigningKey.generate())


def _held(key: SigningKey) -> HeldKey:
    return HeldKey(key, webhook_key(key))


def _from_text(text: str, source: str, alias: str | None = None) -> SigningKey:
    try:
        return SigningKey.from_b64(text, alias=alias)
    except KeyFormatError as error:
        raise StartRefused(f"{source}: {error}") from error


def _read_private(path: Path) -> str:
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise StartRefused(f"{path} can be read by others (mode {mode:o}); chmod 600 {path}")
    return path.read_text("latin-1")  # what is no seed is refused as one
