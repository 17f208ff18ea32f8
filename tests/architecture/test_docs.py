"""The pages say what is so: tables are those of the code, names exist, links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.deploy.test_prometheus import series
from tests.docs import DOCS, PAGES, ROOT, TABLES, current

from signet.settings import declared_settings

WRITTEN = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]

_LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
_SETTING = re.compile(r"\bSP_[A-Z0-9_]+[A-Z0-9]\b(?!\*)")
_FAMILY = re.compile(r"\bsignet_[a-z_]+[a-z]\b(?![*/.])")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_tables_are_current(page: Path) -> None:
    """Every made table is what the code says now; `python -m tests.docs` mends it."""
    assert page.read_text("utf-8") == current(page.read_text("utf-8"))


def test_every_table_is_shown() -> None:
    """No table can be lost from the pages unnoticed."""
    pages = "".join(page.read_text("utf-8") for page in PAGES)
    for name in TABLES:
        assert pages.count(f"<!-- made: {name} -->") == 1


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link is to a file that is there, and every anchor to a heading of it."""
    for target in _LINK.findall(page.read_text("utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{target} leads nowhere"
        if anchor:
            assert anchor in _anchors(linked), f"{target} names no heading"


def test_every_table_of_the_database_is_described() -> None:
    """A table that a migration makes has its row on the page about storage."""
    migrations = "".join(
        map(Path.read_text, (ROOT / "src/signet/storage/migrations").glob("*.sql"))
    )
    page = (DOCS / "reference" / "storage.md").read_text("utf-8")
    made = set(re.findall(r"^CREATE (?:UNLOGGED )?TABLE (\w+)", migrations, re.MULTILINE))
    dropped = set(re.findall(r"^DROP TABLE (\w+)", migrations, re.MULTILINE))
    assert {name for name in made - dropped if f"`{name}`" not in page} == set()


def test_every_page_can_be_found() -> None:
    """Every page of the documentation is linked from its index or from the index of decisions."""
    found = {
        (index.parent / target.partition("#")[0]).resolve()
        for index in (DOCS / "index.md", DOCS / "adr" / "README.md")
        for target in _LINK.findall(index.read_text("utf-8"))
    }
    pages = {page.resolve() for page in DOCS.rglob("*.md") if "evidence" not in page.parts}
    assert pages - found == {DOCS / "index.md"}


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_names_exist(page: Path) -> None:
    """A setting or metric family that a page names is one that there is."""
    text = page.read_text("utf-8")
    settings = {name for one in declared_settings() for name in (one.name, *one.also)} | {"SP_X"}
    assert {name.removesuffix("_FILE") for name in _SETTING.findall(text)} - settings == set()
    families = set(series()) | {name.removesuffix("_bucket") for name in series()}
    assert set(_FAMILY.findall(text)) - families == set()


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
