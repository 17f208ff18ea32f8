"""The guide for outsiders, with the base install alone and files that a gateway made."""

from __future__ import annotations

import asyncio
import stat
import sys
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from tests.docs import DOCS, ROOT
from tests.guides.pages import LIMIT_S, run_page
from tests.inprocess import SEED, invoice, open_app
from tests.live import run_signet

pytestmark = pytest.mark.timeout(LIMIT_S + 20)


def test_the_page_runs(tmp_path: Path) -> None:
    """Every command works on what an auditor is given, and shows what the page shows."""
    files, commands = tmp_path / "given", tmp_path / "bin"
    data = tmp_path / "gateway"
    files.mkdir()
    data.mkdir()
    asyncio.run(give(files, data))
    run_page(
        DOCS / "guide" / "verify.md",
        files,
        settings={"PYTHONPATH": str(base_install(tmp_path / "site"))},
        commands=without_site_packages(commands),
    )


async def give(files: Path, data: Path) -> None:
    """Write what a gateway exports of a trace of three exchanges, the last one refused."""
    async with open_app(data) as app:
        first = await app.exchange(invoice(trace_id="order-4711"))
        await app.exchange(invoice(trace_id="order-4711"))
        await app.exchange(invoice(trace_id="order-4711") | {"target_type": "no.such.v1"})
        exported = "/v1/receipts/export/order-4711"
        for name, path in {
            "jwks.json": "/.well-known/jwks.json",
            "bundle.json": exported,
            "page1.json": f"{exported}?limit=2",
            "page2.json": f"{exported}?from_hop=3",
        }.items():
            (files / name).write_bytes((await app.get(path)).body)
        (files / "answer.json").write_bytes(first.body)
    settings = {"SP_DATA_DIR": str(data), "SP_PRIVATE_KEY_B64": SEED}
    out = ("audit", "export", "--tenant", "acme", "--out", str(files / "acme.jsonl"))
    done = run_signet(*out, cwd=data, settings=settings)
    assert done.returncode == 0, done.stderr


def base_install(directory: Path) -> Path:
    """Make a directory that holds what `pip install signet-protocol` installs, and no more."""
    directory.mkdir()
    (directory / "signet").symlink_to(ROOT / "src" / "signet")
    for name in needed("signet-protocol") - {"signet-protocol"}:
        tops = {path.parts[0] for path in distribution(name).files or () if path.parts[0] != ".."}
        for top in tops:
            place = distribution(name).locate_file(top)
            (directory / top).symlink_to(str(place))
    return directory


def needed(name: str) -> set[str]:
    """A package and what it requires, without extras, for this Python."""
    found = {name}
    for requirement in _required(name):
        found |= needed(requirement)
    return found


def _required(name: str) -> Iterator[str]:
    for text in distribution(name).requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement.name


def without_site_packages(directory: Path) -> Path:
    """Make `signet` and `python3` whose interpreter sees no site-packages."""
    directory.mkdir()
    program = "import sys; from signet.cli.main import main; sys.exit(main())"
    for name, words in {"python3": "", "signet": f"-c '{program}'"}.items():
        path = directory / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S {words} "$@"\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return directory


def test_nothing_else_can_be_imported(tmp_path: Path) -> None:
    """The base install of this test has the verifier and lacks the server."""
    site = base_install(tmp_path / "site")
    assert (site / "cryptography").is_dir()
    assert not (site / "starlette").exists()
