"""`signet api-keys`: the first administrator's key, and the life of any other."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from tests.live import live, run_signet, until

from signet.cli.main import main

KEY = re.compile(r"sp_live_[0-9a-f]{16}_[0-9a-f]{64}")


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty database with one configured tenant."""
    monkeypatch.setenv("SP_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("SP_API_KEYS", '{"env-key": {"tenant": "acme"}}')
    assert main(["migrate", "--apply"]) == 0
    return tmp_path


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    """The keys that the command lists."""
    capsys.readouterr()
    assert main(["api-keys", "list", "--json", *arguments]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["keys"]
    return found


@pytest.mark.usefixtures("database")
def test_the_key_stands_alone_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    """So that a script can take it; what it is stands beside it, and no list has it again."""
    capsys.readouterr()
    assert main(["api-keys", "create", "--admin", "--label", "first"]) == 0
    printed = capsys.readouterr()
    assert KEY.fullmatch(printed.out.strip())
    assert "not shown again" in printed.err
    assert printed.out.strip() not in printed.err
    (key,) = listed(capsys, "--tenant", "_system")
    assert (key["scopes"], key["label"], key["state"]) == (["admin"], "first", "active")
    assert printed.out.strip().rpartition("_")[2] not in json.dumps(key)


@pytest.mark.usefixtures("database")
def test_keys_are_listed_as_they_were_made(capsys: pytest.CaptureFixture[str]) -> None:
    """The oldest first; their ids, by which pages go, are random."""
    labels = [f"number {number}" for number in range(6)]
    for label in labels:
        assert main(["api-keys", "create", "--admin", "--label", label]) == 0
    assert [key["label"] for key in listed(capsys, "--tenant", "_system")] == labels


@pytest.mark.usefixtures("database")
def test_the_life_of_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    """Made for a time, rotated, ended; each is told with the key's id and its end."""
    scopes = ["--scope", "exchange", "--scope", "receipts.read"]
    narrow = ["--settings", '{"key_fu_monthly_limit": 5}']
    made = ["api-keys", "create", "--tenant", "acme", "--expires-in", "2d", *scopes, *narrow]
    assert main(made) == 0
    (key,) = [k for k in listed(capsys, "--tenant", "acme") if k["source"] == "database"]
    assert key["scopes"] == ["exchange", "receipts.read"]
    assert key["key_fu_monthly_limit"] == 5
    assert key["expires_us"] == key["created_us"] + 2 * 86_400_000_000
    assert main(["api-keys", "rotate", key["key_id"], "--overlap", "1h"]) == 0
    printed = capsys.readouterr()
    assert KEY.fullmatch(printed.out.strip())
    assert f"{key['key_id']} ends at 2" in printed.err
    (successor,) = [k for k in listed(capsys) if k.get("succeeds") == key["key_id"]]
    assert main(["api-keys", "expire", successor["key_id"], "--in", "1m"]) == 0
    assert main(["api-keys", "revoke", key["key_id"]]) == 0
    assert f"{key['key_id']} was revoked at 2" in capsys.readouterr().out
    assert key["key_id"] not in {k["key_id"] for k in listed(capsys)}
    states = {k["key_id"]: k["state"] for k in listed(capsys, "--all")}
    assert states[key["key_id"]] == "revoked"
    assert main(["api-keys", "list", "--all"]) == 0
    shown = capsys.readouterr().out
    assert all(key_id in shown for key_id in states)


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["create"], 64, "required"),
        (["create", "--tenant", "a", "--admin"], 64, "not allowed"),
        (["create", "--tenant", "nobody"], 64, "no such tenant"),
        (["create", "--admin", "--scope", "exchange"], 64, "/scopes"),
        (["create", "--tenant", "acme", "--scope", "root"], 64, "invalid choice"),
        (["create", "--tenant", "acme", "--expires-in", "0s"], 64, "expected a time"),
        (["create", "--tenant", "acme", "--expires-in", "1w"], 64, "expected a time"),
        (["create", "--tenant", "acme", "--settings", "[]"], 64, "JSON object"),
        (["create", "--tenant", "acme", "--settings", '{"sealed": true}'], 64, "/sealed"),
        (["revoke", "key_0123456789abcdef"], 1, "no such key"),
        (["rotate", "x"], 1, "no such key"),
    ],
)
def test_misuse(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is a sentence, and no key is made."""
    assert main(["api-keys", *arguments]) == code
    assert said in capsys.readouterr().err
    assert [key["source"] for key in listed(capsys, "--all")] == ["settings"]


def test_the_settings_keys_are_changed_there(
    database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are listed without their text, and revoking one says where it is held."""
    (key,) = listed(capsys)
    assert "env-key" not in json.dumps(key)
    assert main(["api-keys", "revoke", key["key_id"]]) == 1
    assert "SP_API_KEYS holds" in capsys.readouterr().err


def test_no_database_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A key in a database that nobody serves from would be a puzzle later."""
    monkeypatch.setenv("SP_DATA_DIR", str(tmp_path / "data"))
    assert main(["api-keys", "create", "--admin"]) == 69
    assert "signet migrate --apply" in capsys.readouterr().err


def test_a_running_gateway_follows(tmp_path: Path) -> None:
    """From an empty deployment to a served tenant without a restart, and back by a revocation.

    Nothing that was printed or logged by the gateway has any of the keys in it.
    """
    settings = {"SP_DATA_DIR": str(tmp_path / "data")}

    def run(*arguments: str) -> str:
        done = run_signet(*arguments, cwd=tmp_path, settings=settings)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    with live(tmp_path, SP_API_KEYS="", SP_LOG_LEVEL="debug") as gateway:
        run("tenants", "create", "initech")
        keys = [
            run("api-keys", "create", "--admin"),
            run("api-keys", "create", "--tenant", "initech"),
        ]
        until(lambda: gateway.get("/v1/admin/tenants", api_key=keys[0]).status == 200)
        until(lambda: gateway.get("/v1/usage", api_key=keys[1]).status == 200)
        run("api-keys", "revoke", f"key_{keys[1].split('_')[2]}")
        started = time.monotonic()
        until(lambda: gateway.get("/v1/usage", api_key=keys[1]).status == 401)
        assert time.monotonic() - started < 120
        logged = gateway.errors.read_text()
        assert "there is no API key" in logged
        assert not any(key.rpartition("_")[2] in logged for key in keys)
