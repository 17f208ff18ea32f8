"""The commands of README and guides run as they stand, and print what the pages say."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from pathlib import Path

import pytest
from tests.docs import DOCS, ROOT
from tests.guides.pages import LIMIT_S, run_page
from tests.llm import open_model
from tests.month import MONTH_LEFT_S, wait_for_a_month_that_goes_on

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(LIMIT_S + MONTH_LEFT_S + 20)]

GUIDE = DOCS / "guide"
ALONE = [
    ROOT / "README.md",
    GUIDE / "billing.md",
    GUIDE / "first-exchange.md",
    GUIDE / "privacy.md",
    GUIDE / "tenants-and-keys.md",
]
PREPARED = {"egress.md", "migration.md", "repair.md", "types-and-mappings.md", "verify.md"}


def test_every_guide_is_run() -> None:
    """A page that is added is run here, or in a module of its own beside this one."""
    assert {page.name for page in GUIDE.glob("*.md")} == {p.name for p in ALONE[1:]} | PREPARED


@pytest.mark.parametrize("page", ALONE, ids=lambda page: page.name)
def test_pages_that_need_an_empty_directory(page: Path, tmp_path: Path) -> None:
    """One block after the other, from nothing to the end."""
    wait_for_a_month_that_goes_on()  # the page on billing asks for the usage of `date`'s month
    run_page(page, tmp_path)


def test_types_and_mappings(tmp_path: Path) -> None:
    """The page stands in a clone: it needs the examples."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    run_page(GUIDE / "types-and-mappings.md", tmp_path)


def test_migration(tmp_path: Path) -> None:
    """An old receipt is checked as the page says."""
    receipt = {"trace_id": "old", "hop": 1, "amount": 12.5, "name": "Müller"}
    text = json.dumps(receipt, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    receipt["receipt_hash"] = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    (tmp_path / "old-receipt.json").write_text(json.dumps(receipt), "utf-8")
    run_page(GUIDE / "migration.md", tmp_path)


async def test_repair(tmp_path: Path) -> None:
    """The page's model is one on loopback."""
    async with open_model() as model:
        model.say = lambda _call: '{"a": 1}'
        port = model.url.split(":")[2].removesuffix("/v1")
        await asyncio.to_thread(run_page, GUIDE / "repair.md", tmp_path, ports={"11434": port})
