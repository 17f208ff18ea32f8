"""`signet doctor`: finds each thing that can be wrong, and says how to mend it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from contextlib import closing
from pathlib import Path

import pytest
from tests.faults.durability import place
from tests.inprocess import SEED, signing_key
from tests.live import run_signet
from tests.postgres import free_port

from signet.app import open_gateway
from signet.cli import doctor
from signet.cli.doctor import Finding, examine
from signet.cli.main import main
from signet.receipts.keys import SigningKey
from signet.settings import read_settings
from signet.storage.database import SqliteConfig, open_database
from signet.storage.landmark import Landmark

KEYS = '{"k": {"tenant": "acme"}, "l": {"tenant": "globex"}}'


def findings(directory: Path, **settings: str) -> dict[str, Finding]:
    """What the doctor finds, by name, with data in `directory`."""
    environ = {
        "SP_DATA_DIR": str(directory),
        "SP_PORT": "0",
        "SP_API_KEYS": KEYS,
        "SP_PRIVATE_KEY_B64": SEED,
        **settings,
    }
    return {found.name: found for found in examine({k: v for k, v in environ.items() if v})}


def make_database(path: Path) -> None:
    """A database as a start makes it."""

    async def opened() -> None:
        async with open_database(SqliteConfig(path=path)):
            pass

    asyncio.run(opened())


def test_nothing_wrong_before_the_first_start(tmp_path: Path) -> None:
    """A new installation is in order, and looking at it makes nothing."""
    found = findings(tmp_path / "data", SP_PRIVATE_KEY_B64="")
    assert {finding.verdict for finding in found.values()} == {"ok"}
    assert "the first start makes" in found["database"].said
    assert "the first start makes" in found["key"].said
    assert found["api keys"].said == "2 for 2 tenants"
    assert list(tmp_path.iterdir()) == []


def test_nothing_wrong_after_it(tmp_path: Path) -> None:
    """An installation with data is in order; key and schema are named."""
    make_database(tmp_path / "signet.db")
    found = findings(tmp_path)
    assert {finding.verdict for finding in found.values()} == {"ok"}
    assert "takes writes, schema " in found["database"].said
    assert signing_key().kid in found["key"].said


def test_a_database_from_a_backup(tmp_path: Path) -> None:
    """A database that knows of fewer sends than this host is noted, with what to do."""
    make_database(tmp_path / "signet.db")
    Landmark(tmp_path / "stripe-sends").keep(3)
    noted = findings(tmp_path)["database"]
    assert noted.verdict == "note"
    assert "comes from a backup" in noted.said
    assert "signet storage restored" in noted.mend


def test_settings(tmp_path: Path) -> None:
    """Each unusable setting is a finding; unknown names are noted."""
    found = list(examine({"SP_PORT": "x", "SP_STORAGE": "y"}))
    assert [finding.verdict for finding in found] == ["ok", "wrong", "wrong"]
    noted = findings(tmp_path, SP_QUITE_OTHER="1")["settings"]
    assert (noted.verdict, noted.said) == ("note", "nothing reads SP_QUITE_OTHER")


def test_no_api_keys(tmp_path: Path) -> None:
    """A gateway that nobody can call is worth a note."""
    assert findings(tmp_path, SP_API_KEYS="")["api keys"].verdict == "note"


def test_keys_in_the_database(tmp_path: Path) -> None:
    """They count too, and one that cannot be served is told with its reason."""
    settings = {"SP_DATA_DIR": str(tmp_path), "SP_KEY_PEPPER": "A" * 43 + "="}
    for arguments in (("migrate", "--apply"), ("api-keys", "create", "--admin")):
        done = run_signet(*arguments, cwd=tmp_path, settings=settings)
        assert done.returncode == 0, done.stderr
    with_pepper = findings(tmp_path, SP_API_KEYS="", SP_KEY_PEPPER=settings["SP_KEY_PEPPER"])
    assert with_pepper["api keys"].verdict == "ok"
    without = findings(tmp_path, SP_API_KEYS="")["api keys"]
    assert without.verdict == "note"
    assert "SP_KEY_PEPPER" in without.said
    assert "signet api-keys revoke" in without.mend


def test_types(tmp_path: Path) -> None:
    """A registry that cannot be used is told with the file and the place."""
    types = tmp_path / "types"
    types.mkdir()
    (types / "acme.v1.schema.json").write_text('{"type": 5}')
    found = findings(tmp_path / "data", SP_REGISTRY_DIR=str(types))["types"]
    assert found.verdict == "wrong"
    assert "acme.v1.schema.json" in found.said
    missing = findings(tmp_path / "data", SP_REGISTRY_DIR=str(tmp_path / "none"))["types"]
    assert missing.verdict == "wrong"
    assert "SP_REGISTRY_DIR" in missing.said


def test_egress(tmp_path: Path) -> None:
    """An allowlist that cannot be used is wrong, and named by its variable."""
    found = findings(tmp_path, SP_HEL_ALLOWLIST="http://[nonsense")["egress"]
    assert found.verdict == "wrong"
    assert found.said.startswith("SP_HEL_ALLOWLIST: ")


def test_reserve(tmp_path: Path) -> None:
    """A reserved-capacity file that a start would be refused for is found, with its place."""
    file = tmp_path / "reserved.json"
    assert "reserve" not in findings(tmp_path / "data")
    missing = findings(tmp_path / "data", SP_RESERVED_CONFIG=str(file))["reserve"]
    assert (missing.verdict, "cannot be read" in missing.said) == ("wrong", True)
    file.write_text('{"acme": {"vex_reserved": -5}}')
    found = findings(tmp_path / "data", SP_RESERVED_CONFIG=str(file))["reserve"]
    assert found.verdict == "wrong"
    assert "SP_RESERVED_CONFIG: at /acme/vex_reserved" in found.said
    file.write_text('{"acme": {"vex_reserved": 5}}')
    found = findings(tmp_path / "data", SP_RESERVED_CONFIG=str(file))["reserve"]
    assert (found.verdict, found.said) == ("ok", "plans of 1 tenant")


def test_destinations_of_tenants_in_the_database(tmp_path: Path) -> None:
    """What a tenant made at run time may call is asked for, and a note where it leads inside."""
    settings = {"SP_DATA_DIR": str(tmp_path)}
    for arguments in (
        ("migrate", "--apply"),
        ("tenants", "create", "initech", "--settings", '{"allowlist": ["127.0.0.1"]}'),
    ):
        done = run_signet(*arguments, cwd=tmp_path, settings=settings)
        assert done.returncode == 0, done.stderr
    noted = findings(tmp_path)["dns"]
    assert (noted.verdict, "HEL_RESOLVED_LOOPBACK" in noted.said) == ("note", True)


def test_a_database_that_nobody_asked_for(tmp_path: Path) -> None:
    """Where a PostgreSQL is named and SQLite is in use, that is worth a note."""
    noted = findings(tmp_path, SP_POSTGRES_URL="postgresql://h/d")["settings"]
    assert noted.verdict == "note"
    assert noted.said == "SP_POSTGRES_URL is not used, because SP_STORAGE is sqlite"
    assert "SP_STORAGE=postgres" in noted.mend


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place that cannot be written is wrong; little room is a note, none is wrong."""
    assert findings(Path("/proc/no/such"))["disk"].verdict == "wrong"
    monkeypatch.setattr(doctor, "_LITTLE_FREE_BYTES", 1 << 62)
    assert findings(tmp_path)["disk"].verdict == "note"
    monkeypatch.setattr(doctor, "_LEAST_FREE_BYTES", 1 << 62)
    assert findings(tmp_path)["disk"].verdict == "wrong"


def test_key_that_others_can_read(tmp_path: Path) -> None:
    """A key file with the wrong mode, or without a key in it, is wrong; the key is not shown."""
    file = tmp_path / "signing-key"
    file.write_text(SEED)
    file.chmod(0o644)
    found = findings(tmp_path, SP_PRIVATE_KEY_B64="")["key"]
    assert found.verdict == "wrong"
    assert "chmod 600" in found.said
    file.write_text("no key")
    file.chmod(0o600)
    found = findings(tmp_path, SP_PRIVATE_KEY_B64="")["key"]
    assert found.verdict == "wrong"
    assert "no key" not in found.said


def test_database_that_is_none(tmp_path: Path) -> None:
    """A file that is no database is wrong, and left as it is."""
    file = tmp_path / "signet.db"
    file.write_bytes(b"no database " * 1000)
    assert findings(tmp_path)["database"].verdict == "wrong"
    assert file.read_bytes() == b"no database " * 1000


def test_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock before the release, or before the last write, is wrong."""
    make_database(tmp_path / "signet.db")
    ahead = time.time() + 3600
    os.utime(tmp_path / "signet.db", (ahead, ahead))
    assert findings(tmp_path)["clock"].said.endswith("before the last write to the database")
    monkeypatch.setattr(doctor, "_RELEASED_S", ahead)
    assert findings(tmp_path)["clock"].said.endswith("before this release")


def test_port(tmp_path: Path) -> None:
    """A port that something else has is wrong."""
    with closing(socket.create_server(("127.0.0.1", free_port()))) as taken:
        port = str(taken.getsockname()[1])
        found = findings(tmp_path, SP_PORT=port)["port"]
    assert found.verdict == "wrong"
    assert "Address already in use" in found.said
    assert findings(tmp_path, SP_PORT=port)["port"].said == f"127.0.0.1 port {port} is free"


def test_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command prints the findings, as text or JSON, and exits 1 when one is wrong."""
    monkeypatch.setenv("SP_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("SP_PORT", "0")
    assert main(["doctor", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in rows} >= {"version", "database", "key", "clock", "disk", "port"}
    monkeypatch.setenv("SP_HEL_ALLOWLIST", "http://[nonsense")
    assert main(["doctor"]) == 1
    captured = capsys.readouterr()
    assert "wrong  egress" in captured.out
    assert "-> mend the entry it names" in captured.out
    assert captured.err == "1 thing to mend\n"


def test_the_key_that_the_database_names(tmp_path: Path) -> None:
    """After a rotation it is the next key that must be here; where it is not, that is wrong."""
    settings = {"SP_DATA_DIR": str(tmp_path), "SP_PRIVATE_KEY_B64": SEED}

    async def start() -> None:
        async with open_gateway(read_settings(settings).settings):
            pass

    asyncio.run(start())
    following = SigningKey.generate()
    with_next = {**settings, "SP_NEXT_PRIVATE_KEY_B64": following.seed_b64}
    done = run_signet("keys", "rotate", cwd=tmp_path, settings=with_next)
    assert done.returncode == 0, done.stderr
    here = findings(tmp_path, SP_NEXT_PRIVATE_KEY_B64=following.seed_b64)["key"]
    assert here.verdict == "ok"
    assert f"{following.kid} takes over soon" in here.said
    missing = findings(tmp_path)["key"]
    assert missing.verdict == "wrong"
    assert following.kid in missing.said
    assert "keys.md" in missing.mend


def test_services_are_findings_too(tmp_path: Path) -> None:
    """What cannot be reached is wrong, and says how to mend it."""
    found = findings(tmp_path, SP_OTLP_ENDPOINT="http://127.0.0.1:1")["traces"]
    assert found.verdict == "wrong"
    assert found.mend


def test_clocks_that_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is not the database's is wrong."""
    make_database(tmp_path / "signet.db")
    monkeypatch.setattr(doctor, "_APART_US", -1)
    found = findings(tmp_path)["database"]
    assert found.verdict == "wrong"
    assert "NTP" in found.mend


def test_standbys(tmp_path: Path) -> None:
    """One that answers is told with its schema; without one reports come from the primary, which
    is a note with what to do."""
    with place("postgres", tmp_path) as at:
        done = run_signet("migrate", "--apply", cwd=tmp_path, settings=at.settings)
        assert done.returncode == 0, done.stderr
        url = at.settings["SP_POSTGRES_URL"]
        found = findings(tmp_path, **{**at.settings, "SP_POSTGRES_REPLICA_URL": url})["replica"]
        assert found.verdict == "ok"
        assert "answers, schema " in found.said
        away = {**at.settings, "SP_POSTGRES_REPLICA_URL": "postgresql://u:s3cret@127.0.0.1:1/d"}
        noted = findings(tmp_path, **away)["replica"]
        assert noted.verdict == "note"
        assert "SP_POSTGRES_REPLICA_URL" in noted.mend
        assert "s3cret" not in noted.said
        assert "replica" not in findings(tmp_path, **at.settings)


def test_a_server_that_is_away(tmp_path: Path) -> None:
    """The finding names the host and what to look at, and has nothing of the password."""
    found = findings(
        tmp_path,
        SP_STORAGE="postgres",
        SP_POSTGRES_URL="postgresql://signet:hidden-word@127.0.0.1:1/signet",
    )["database"]
    assert found.verdict == "wrong"
    assert found.said.startswith("postgres at 127.0.0.1:1: Cannot connect")
    assert "SP_POSTGRES_URL" in found.mend
    assert "hidden-word" not in found.said + found.mend
