"""`signet audit`: what goes out verifies, and what was touched does not."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from tests.inprocess import KEYS, SEED, invoice, open_app, signing_key

from signet.cli.main import main

KID = signing_key().kid


@pytest.fixture
def audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory whose database has three exchanges of acme, and the settings to find it."""

    async def fill() -> None:
        async with open_app(tmp_path / "data") as app:
            for _ in range(3):
                await app.exchange(invoice())

    asyncio.run(fill())
    monkeypatch.setenv("SP_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("SP_PRIVATE_KEY_B64", SEED)
    monkeypatch.setenv("SP_API_KEYS", json.dumps(KEYS))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_what_is_exported_verifies(
    audited: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both forms are whole and signed; without a pinned key that is less than was asked."""
    out = f"acme.{form}"
    assert main(["audit", "export", "--tenant", "acme", "--format", form, "--out", out]) == 0
    assert "3 entries" in capsys.readouterr().err
    assert main(["audit", "verify", out, "--trust", KID]) == 0
    assert "3 entries, 1 to 3" in capsys.readouterr().out
    assert main(["audit", "verify", out]) == 2
    assert "BELOW" in capsys.readouterr().out
    assert main(["audit", "verify", out, "--level", "INTEGRITY", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["count"] == 3
    jwks = {"keys": [signing_key().public.jwk()]}
    (audited / "jwks.json").write_text(json.dumps(jwks))
    assert main(["audit", "verify", out, "--jwks", "jwks.json"]) == 0


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_what_was_touched_does_not(
    audited: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A changed byte and a removed line are INVALID, and said to be where they are."""
    out = audited / f"acme.{form}"
    main(["audit", "export", "--tenant", "acme", "--format", form, "--out", str(out)])
    whole = out.read_bytes()
    out.write_bytes(whole.replace(b"exchange", b"exchangf", 1))
    assert main(["audit", "verify", str(out), "--trust", KID, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["code"] == "entry_hash"
    lines = whole.splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:1] + lines[2:]))
    assert main(["audit", "verify", str(out), "--trust", KID]) == 1
    assert capsys.readouterr().out.startswith("INVALID: ")


def test_an_empty_chain_has_a_manifest(
    audited: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The deployment's own chain is exported by default, to standard output, although empty."""
    assert main(["audit", "export"]) == 0
    [line] = capsysbinary.readouterr().out.splitlines()
    assert (json.loads(line)["count"], json.loads(line)["tenant"]) == (0, "_system")
    (audited / "system.jsonl").write_bytes(line + b"\n")
    assert main(["audit", "verify", "system.jsonl", "--trust", KID]) == 0


def test_a_part_by_time(audited: Path) -> None:
    """Only what is between the times goes out, and its manifest says so."""
    arguments = ["audit", "export", "--tenant", "acme", "--out", "part.jsonl"]
    assert main([*arguments, "--from", "2001-01-01", "--to", "2002-01-01T00:00:00Z"]) == 0
    [manifest] = (audited / "part.jsonl").read_text().splitlines()
    assert json.loads(manifest)["from"] == "2001-01-01T00:00:00.000000Z"
    assert main(["audit", "verify", "part.jsonl", "--trust", KID]) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "--tenant", "a b"],
        ["export", "--format", "csv"],
        ["export", "--from", "yesterday"],
        ["verify", "nowhere.jsonl"],
        ["verify", "nowhere.csv"],
        ["verify", "acme.jsonl", "--jwks", "nowhere.json"],
    ],
)
def test_misuse(audited: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """64, and one line that says what is wrong."""
    assert audited.exists()
    assert main(["audit", *arguments]) == 64
    assert len(capsys.readouterr().err.splitlines()) == 1
