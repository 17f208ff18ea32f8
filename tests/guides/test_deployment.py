"""The page on deployment: its machine with PostgreSQL, with the paths moved into a directory."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest
from tests.docs import DOCS
from tests.guides.pages import LIMIT_S, run_page
from tests.postgres import Postgres, cluster

pytestmark = pytest.mark.timeout(LIMIT_S + 60)


def test_the_page_runs(tmp_path: Path) -> None:
    """Settings, doctor, start, first administrator and backup: as the page says, in that order."""
    bin_ = tmp_path / "opt" / "signet" / "bin"
    for made in (bin_, tmp_path / "etc", tmp_path / "bin", tmp_path / "data", tmp_path / "empty"):
        made.mkdir(parents=True)
    (bin_ / "signet").write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -P -c'
        ' "import sys; from signet.cli.main import main; sys.exit(main())" "$@"\n'
    )
    (bin_ / "signet").chmod(0o755)
    with cluster() as postgres:
        postgres.sql("CREATE DATABASE signet")
        run_page(
            moved(tmp_path, postgres),
            tmp_path / "empty",
            commands=commands(tmp_path / "bin", postgres),
        )
    assert (tmp_path / "empty" / "signet.dump").stat().st_size > 10_000
    seed = tmp_path / "etc" / "signing_seed"
    assert stat.S_IMODE(seed.stat().st_mode) == 0o600


def moved(directory: Path, postgres: Postgres) -> Path:
    """The page with every path of the machine in `directory`, and this test's server."""
    text = (DOCS / "operations" / "deployment.md").read_text("utf-8")
    for path, place in {
        "/etc/signet": directory / "etc",
        "/usr/local/bin": directory / "bin",
        "/opt/signet": directory / "opt" / "signet",
        "/var/lib/signet": directory / "data",
        "host=/run/postgresql": f"host={postgres.folder}&port={postgres.port}",
    }.items():
        assert path in text
        text = text.replace(path, str(place))
    page = directory / "deployment.md"
    page.write_text(text, "utf-8")
    return page


def commands(directory: Path, postgres: Postgres) -> Path:
    """Where the page puts its wrapper; it goes before all other commands, as it would there."""
    program = directory / "pg_dump"
    program.write_text(f'#!/bin/sh\nexec "{postgres.binaries / "pg_dump"}" "$@"\n')
    program.chmod(0o755)
    return directory
