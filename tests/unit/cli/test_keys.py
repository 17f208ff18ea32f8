"""`signet keys generate`: what it prints is what the gateway takes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from signet.cli.main import main
from signet.receipts.keys import SigningKey
from signet.settings import read_settings


def generated(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    """The variable and the kid that the command prints."""
    assert main(["keys", "generate", *arguments]) == 0
    variable, kid = capsys.readouterr().out.splitlines()
    return variable, kid.removeprefix("# kid ")


def test_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """The line is a setting that can be used, and the kid is that key's; no two are the same."""
    variable, kid = generated(capsys)
    name, _, seed = variable.partition("=")
    assert SigningKey.from_b64(seed).kid == kid
    assert read_settings({name: seed}).settings.identity.private_key_b64 == seed
    assert generated(capsys)[1] != kid


def test_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file is its owner's alone, whatever the umask; the seed is not printed."""
    file = tmp_path / "key"
    before = os.umask(0)
    try:
        variable, kid = generated(capsys, "--out", str(file))
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert variable == f"SP_PRIVATE_KEY_B64_FILE={file}"
    settings = read_settings(dict([variable.split("=", 1)])).settings
    seed = settings.identity.private_key_b64
    assert seed is not None
    assert SigningKey.from_b64(seed).kid == kid


def test_never_over_an_old_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is there, or a link to nowhere, stays as it is."""
    there = tmp_path / "there"
    there.write_text("old")
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "elsewhere")
    for file in (there, dangling):
        assert main(["keys", "generate", "--out", str(file)]) == 64
        assert "exists already" in capsys.readouterr().err
    assert there.read_text() == "old"
    assert not (tmp_path / "elsewhere").exists()


def test_nowhere_to_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory that is not there is a sentence and 64."""
    assert main(["keys", "generate", "--out", str(tmp_path / "no" / "key")]) == 64
    assert "No such file or directory" in capsys.readouterr().err
