"""`signet keys rotate`, `list`, `retire` and `revoke`: what they print, and what they refuse."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path

import pytest

from signet.app import open_gateway
from signet.cli import keys
from signet.cli.main import main
from signet.gateway.signing import LEAST_LEAD_S
from signet.receipts.keys import SigningKey
from signet.settings import read_settings


def test_the_shortest_notice_is_the_gateways() -> None:
    """The command line says it without loading the gateway."""
    assert keys.LEAST_LEAD_S == LEAST_LEAD_S


class TestLife:
    """`rotate`, `list`, `retire` and `revoke`, on a database that a gateway has made."""

    @pytest.fixture
    def data(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The directory of a gateway that has started once with a key file."""
        for name in ("SP_PRIVATE_KEY_B64", "SP_NEXT_PRIVATE_KEY_B64"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("SP_DATA_DIR", str(tmp_path))

        async def start() -> None:
            async with open_gateway(read_settings({"SP_DATA_DIR": str(tmp_path)}).settings):
                pass

        asyncio.run(start())
        return tmp_path

    def listed(self, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
        """Every key's state."""
        capsys.readouterr()
        assert main(["keys", "list", "--json"]) == 0
        return {key["kid"]: key["state"] for key in json.loads(capsys.readouterr().out)["keys"]}

    def test_rotate(self, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A new file holds the next key; a second rotation waits for the first and leaves no
        file."""
        assert main(["keys", "rotate"]) == 0
        said = capsys.readouterr().out
        [file] = data.glob("signing-key-*")
        kid = file.name.removeprefix("signing-key-")
        assert said.startswith(f"{kid} signs from ")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert SigningKey.from_b64(file.read_text()).kid == kid
        first = SigningKey.from_b64((data / "signing-key").read_text()).kid
        assert self.listed(capsys) == {first: "signing", kid: "scheduled"}
        assert main(["keys", "rotate"]) == 1
        assert "takes over at" in capsys.readouterr().err
        assert list(data.glob("signing-key-*")) == [file]

    def test_listed_for_people(self, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """One line a key, with its state."""
        assert main(["keys", "list"]) == 0
        assert " signing " in capsys.readouterr().out

    def test_the_settings_name_the_next_key(
        self, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It takes over; no file is made. Without it the command says what to set."""
        monkeypatch.setenv("SP_PRIVATE_KEY_B64", (data / "signing-key").read_text())
        assert main(["keys", "rotate"]) == 78
        assert "SP_NEXT_PRIVATE_KEY_B64 on every node" in capsys.readouterr().err
        following = SigningKey.generate()
        monkeypatch.setenv("SP_NEXT_PRIVATE_KEY_B64", following.seed_b64)
        assert main(["keys", "rotate", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["kid"] == following.kid
        assert not list(data.glob("signing-key-*"))

    def test_lost(
        self, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Only a key that is not here is lost; then the one of the settings takes over."""
        assert main(["keys", "rotate", "--lost"]) == 1
        assert "is not lost" in capsys.readouterr().err
        (data / "signing-key").unlink()
        assert main(["keys", "rotate"]) == 1
        assert "see --lost" in capsys.readouterr().err
        new = SigningKey.from_b64((data / "signing-key").read_text())
        assert main(["keys", "rotate", "--lost", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["kid"] == new.kid

    def test_retire_and_revoke(self, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The key that signs is neither; an unknown one is told as that."""
        [first] = self.listed(capsys)
        for action in ("retire", "revoke"):
            assert main(["keys", action, "--", first]) == 1
            assert "rotate to another" in capsys.readouterr().err
            assert main(["keys", action, "x" * 43]) == 1
            assert "was ever published" in capsys.readouterr().err
            assert main(["keys", action, "short"]) == 64

    def test_retire_what_stands_by(
        self, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A key that was to follow is put aside, once."""
        following = SigningKey.generate()
        settings = {"SP_DATA_DIR": str(data), "SP_NEXT_PRIVATE_KEY_B64": following.seed_b64}

        async def start() -> None:
            async with open_gateway(read_settings(settings).settings):
                pass

        asyncio.run(start())
        assert self.listed(capsys)[following.kid] == "next"
        assert main(["keys", "retire", "--json", "--", following.kid]) == 0
        assert json.loads(capsys.readouterr().out)["kid"] == following.kid
        assert self.listed(capsys)[following.kid] == "retired"
        assert main(["keys", "retire", "--", following.kid]) == 1
        assert "retired before" in capsys.readouterr().err

    @pytest.mark.parametrize("lead", ["14", "-1", "x", "2592001", ""])
    def test_no_notice(self, data: Path, capsys: pytest.CaptureFixture[str], lead: str) -> None:
        """A notice that is too short for the other processes is misuse."""
        assert main(["keys", "rotate", f"--lead={lead}"]) == 64
        assert "whole seconds from 15" in capsys.readouterr().err

    def test_no_database(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing is made where nothing is."""
        monkeypatch.setenv("SP_DATA_DIR", str(tmp_path / "none"))
        assert main(["keys", "list"]) == 69
        assert not (tmp_path / "none").exists()


def test_nothing_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the first start there is no key to list, and the command says so."""
    monkeypatch.setenv("SP_DATA_DIR", str(tmp_path))
    assert main(["migrate", "--apply"]) == 0
    capsys.readouterr()
    assert main(["keys", "list"]) == 0
    assert capsys.readouterr().out.startswith("no key has been published yet")
