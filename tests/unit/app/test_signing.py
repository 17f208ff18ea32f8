"""The keys that the gateway signs with."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.inprocess import SEED

from signet.app.refused import StartRefused
from signet.app.signing import load_signing_key, published, webhook_key
from signet.receipts.keys import SigningKey
from signet.settings import Settings, read_settings


def _settings(directory: Path, **environ: str) -> Settings:
    return read_settings({"SP_DATA_DIR": str(directory), **environ}).settings


def test_a_key_is_made_once_and_kept(tmp_path: Path) -> None:
    """Without a key in the settings, a file only its owner may read holds one."""
    directory = tmp_path / "a" / "b"
    first = load_signing_key(_settings(directory))
    assert load_signing_key(_settings(directory)).kid == first.kid
    assert (directory / "signing-key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in directory.iterdir()] == ["signing-key"]


def test_processes_that_start_at_once_share_it(tmp_path: Path) -> None:
    """Whoever loses the race reads the winner's key."""
    with ThreadPoolExecutor(16) as pool:
        keys = pool.map(lambda _: load_signing_key(_settings(tmp_path)).kid, range(64))
        assert len(set(keys)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["signing-key"]


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """The start says how to mend it."""
    load_signing_key(_settings(tmp_path))
    (tmp_path / "signing-key").chmod(0o644)
    with pytest.raises(StartRefused, match="chmod 600"):
        load_signing_key(_settings(tmp_path))


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 43, SEED.encode() + b"AA"])
def test_a_spoiled_key_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """A key file that holds no seed names itself and not its content."""
    path = tmp_path / "signing-key"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(StartRefused, match="signing-key") as caught:
        load_signing_key(_settings(tmp_path))
    assert SEED not in str(caught.value)


def test_the_setting_wins_over_the_file(tmp_path: Path) -> None:
    """A key in the settings makes no file."""
    key = load_signing_key(_settings(tmp_path, SP_PRIVATE_KEY_B64=SEED))
    assert key.kid == SigningKey.from_b64(SEED).kid
    assert not list(tmp_path.iterdir())


def test_forwards_are_signed_by_another_key() -> None:
    """The webhook key is derived, stable, and not the receipt key."""
    key = SigningKey.from_b64(SEED)
    derived = webhook_key(key).public_key().public_bytes_raw()
    assert derived == webhook_key(SigningKey.from_b64(SEED)).public_key().public_bytes_raw()
    assert derived != key.public.raw


def test_a_key_is_published_from_its_first_moment() -> None:
    """Its row has no end, and its alias."""
    row = published(SigningKey.from_b64(SEED, alias="mine"), 5)
    assert (row.created_us, row.alias, row.exp_us, row.revoked_us) == (5, "mine", None, None)
