"""The commands of README and guides run as they stand, and print what the pages say."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.docs import DOCS, ROOT
from tests.guides.pages import LIMIT_S, run_page

pytestmark = pytest.mark.timeout(LIMIT_S + 20)

ALONE = [ROOT / "README.md", DOCS / "guide" / "first-exchange.md"]


@pytest.mark.parametrize("page", ALONE, ids=lambda page: page.name)
def test_pages_that_need_an_empty_directory(page: Path, tmp_path: Path) -> None:
    """One block after the other, from nothing to the end."""
    run_page(page, tmp_path)
