"""The list of egress checks, the sources, the tests and docs/security.md agree."""

from __future__ import annotations

import re

import pytest
from tests.mutation.egress import MUTATIONS, ROOM, ROOT, Mutation, survives, table


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.file}: {m.check}")
def test_each_check_is_in_the_source_and_guarded(mutation: Mutation) -> None:
    """The check's text occurs exactly once, and the test that guards it exists."""
    source = (ROOT / "src" / ROOM / mutation.file).read_text("utf-8")
    assert source.count(mutation.old) == 1
    file, _, name = mutation.node.partition("::")
    function = name.partition("[")[0]
    assert re.search(rf"^(async )?def {function}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE)


def test_the_table_is_current() -> None:
    """docs/security.md shows every check with its guard, as `--table` prints them."""
    assert table() in (ROOT / "docs" / "security.md").read_text("utf-8")


def test_a_removed_check_is_noticed() -> None:
    """One removal is carried out here, so that the machinery itself is known to work."""
    mutation = next(m for m in MUTATIONS if m.check == "the request head is bounded")
    assert survives(mutation) is None
