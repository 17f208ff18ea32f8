"""`signet config`: everything in force, its origin, and never a secret."""

from __future__ import annotations

import json
from pathlib import Path

from tests.inprocess import SEED
from tests.live import run_signet

from signet.settings import declared_settings

SECRETS = {
    "SP_PRIVATE_KEY_B64": SEED,
    "SP_API_KEYS": '{"sssh": {"tenant": "acme"}}',
    "SP_METRICS_TOKEN": "also-secret",
    "SP_POSTGRES_URL": "postgresql://user:password@host/db",
}


def test_every_setting_and_no_secret(tmp_path: Path) -> None:
    """Both forms name every setting; no part of a secret is in either."""
    for form in ([], ["--json"]):
        done = run_signet("config", *form, cwd=tmp_path, settings=SECRETS)
        assert done.returncode == 0
        for declared in declared_settings():
            assert declared.name in done.stdout
        for secret in (SEED, "sssh", "also-secret", "password"):
            assert secret not in done.stdout + done.stderr


def test_origins(tmp_path: Path) -> None:
    """Each value says where it comes from: default, variable, older name, or file."""
    issuer = tmp_path / "issuer"
    issuer.write_text("https://signet.example\n")
    settings = {"PORT": "9000", "SP_ISSUER_FILE": str(issuer), "SP_STORAGE": "sqlite"}
    shown = json.loads(run_signet("config", "--json", cwd=tmp_path, settings=settings).stdout)
    assert shown["SP_PORT"] == {"value": "9000", "source": "PORT"}
    assert shown["SP_ISSUER"] == {
        "value": "https://signet.example",
        "source": f"SP_ISSUER_FILE ({issuer})",
    }
    assert shown["SP_STORAGE"]["source"] == "SP_STORAGE"
    assert shown["SP_HOST"] == {"value": "127.0.0.1", "source": "default"}


def test_unknown_names_are_told(tmp_path: Path) -> None:
    """A name that means nothing is told with the one that was meant."""
    done = run_signet("config", cwd=tmp_path, settings={"SP_DATADIR": "x"})
    assert done.stderr == "warning: nothing reads SP_DATADIR (did you mean SP_DATA_DIR?)\n"


def test_a_database_that_is_not_asked_for_is_told(tmp_path: Path) -> None:
    """Who names a PostgreSQL and gets SQLite is told so, without its password."""
    settings = {"SP_POSTGRES_URL": "postgresql://user:password@host/db"}
    done = run_signet("config", cwd=tmp_path, settings=settings)
    told = "warning: SP_POSTGRES_URL is not used, because SP_STORAGE is sqlite\n"
    assert (done.returncode, done.stderr) == (0, told)
