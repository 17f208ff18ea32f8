"""The keys that the gateway signs with."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.inprocess import SEED

from signet.app.refused import StartRefused
from signet.app.signing import (
    HeldKeys,
    key_file,
    load_signing_key,
    new_held_key,
    webhook_key,
    write_key_file,
)
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


def test_the_next_key_is_held_too(tmp_path: Path) -> None:
    """The settings name it; it has no alias, which belongs to the other."""
    following = SigningKey.generate()
    settings = _settings(
        tmp_path,
        SP_PRIVATE_KEY_B64=SEED,
        SP_NEXT_PRIVATE_KEY_B64=following.seed_b64,
        SP_KID="mine",
    )
    held = HeldKeys(settings)
    assert held.following is not None
    assert held.following.signing.kid == following.kid
    assert held.find(following.kid) is held.following
    assert held.find(held.first.signing.kid) is held.first
    assert (held.first.signing.alias, held.following.signing.alias) == ("mine", None)
    assert held.directory is None


def test_a_key_file_beside_the_first_is_found_by_its_kid(tmp_path: Path) -> None:
    """Also one that appears while the process runs; one that others can read, or that holds another
    key than its name says, is none."""
    held = HeldKeys(_settings(tmp_path))
    new = new_held_key().signing
    assert held.find(new.kid) is None
    path = key_file(tmp_path, new.kid)
    write_key_file(path, new)
    path.chmod(0o640)
    assert held.find(new.kid) is None
    path.chmod(0o600)
    found = held.find(new.kid)
    assert found is not None
    assert found.signing.kid == new.kid
    other = new_held_key().signing
    write_key_file(key_file(tmp_path, other.kid), SigningKey.generate())
    assert held.find(other.kid) is None


def test_a_key_file_is_never_written_over(tmp_path: Path) -> None:
    """The old key stays, and nothing else is left behind."""
    path = tmp_path / "key"
    first = new_held_key().signing
    write_key_file(path, first)
    with pytest.raises(FileExistsError):
        write_key_file(path, new_held_key().signing)
    assert path.read_text().strip() == first.seed_b64
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_key_in_the_settings_looks_for_no_files(tmp_path: Path) -> None:
    """Where the settings hold the key, a file in the directory is nobody's."""
    new = new_held_key().signing
    write_key_file(key_file(tmp_path, new.kid), new)
    assert HeldKeys(_settings(tmp_path, SP_PRIVATE_KEY_B64=SEED)).find(new.kid) is None
