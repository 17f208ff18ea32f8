"""`signet tenants`: made, listed, shown and changed in the database of the settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from signet.cli.main import main


@pytest.fixture(autouse=True)
def _database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty database with one configured tenant."""
    monkeypatch.setenv("SP_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("SP_API_KEYS", '{"env-key": {"tenant": "acme", "sealed": true}}')
    assert main(["migrate", "--apply"]) == 0


def test_made_changed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """What was given is in force, what was not is as before, null is the default."""
    settings = '{"allowlist": ["a.example", {"host": "b.example"}], "fu_monthly_limit": 5}'
    assert main(["tenants", "create", "initech", "--settings", settings]) == 0
    assert "signet api-keys create --tenant initech" in capsys.readouterr().out
    change = '{"allowlist": null, "sealed": true}'
    assert main(["tenants", "update", "initech", "--settings", change]) == 0
    changed = json.loads(capsys.readouterr().out)
    assert (changed["allowlist"], changed["sealed"], changed["fu_monthly_limit"]) == ([], True, 5)
    assert main(["tenants", "show", "initech"]) == 0
    assert json.loads(capsys.readouterr().out) == changed


def test_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """All of them, with where each is described and what is set; as JSON too."""
    assert main(["tenants", "create", "initech"]) == 0
    capsys.readouterr()
    assert main(["tenants", "list"]) == 0
    _, acme, initech = capsys.readouterr().out.splitlines()
    assert acme.split() == ["acme", "SP_API_KEYS", "-", "sealed"]
    assert initech.split()[:2] == ["initech", "database"]
    assert main(["tenants", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["tenants"]
    assert [tenant["tenant"] for tenant in listed] == ["acme", "initech"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["create", "acme"], 1, "SP_API_KEYS describes"),
        (["create", "_system"], 64, "/tenant"),
        (["create", "a", "--settings", '{"colour": 1}'], 64, "/colour"),
        (["create", "a", "--settings", '{"allowlist": ["a b"]}'], 64, "/allowlist/0"),
        (["create", "a", "--settings", "{"], 64, "JSON object"),
        (["create", "a", "--settings", "[]"], 64, "JSON object"),
        (["update", "nobody", "--settings", "{}"], 1, "no such tenant"),
        (["update", "acme", "--settings", "{}"], 1, "SP_API_KEYS describes"),
        (["show", "nobody"], 1, "no such tenant"),
    ],
)
def test_misuse(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is a sentence with the place of the fault, and nothing is made."""
    assert main(["tenants", *arguments]) == code
    assert said in capsys.readouterr().err
    assert main(["tenants", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["tenants"]
    assert [tenant["tenant"] for tenant in listed] == ["acme"]


def test_an_id_is_given_once(capsys: pytest.CaptureFixture[str]) -> None:
    """The second is refused."""
    assert main(["tenants", "create", "initech"]) == 0
    assert main(["tenants", "create", "initech"]) == 1
    assert "already" in capsys.readouterr().err
