"""The declarations of the reading endpoints; tests/api holds their answers."""

from __future__ import annotations

from typing import cast

import pytest
from starlette.requests import Request

from signet.api.auth import Refused
from signet.api.operations import Public, Secured
from signet.api.problems import PROBLEMS
from signet.api.routes import receipts
from signet.core.tenant import Scope
from signet.gateway.exports import Exports


def test_what_belongs_to_a_tenant_is_secured() -> None:
    """Only the public keys are public."""
    operations = receipts.operations(cast(Exports, None))
    public = [operation.name for operation in operations if isinstance(operation, Public)]
    assert public == ["jwks", "export_key_log"]
    for operation in operations:
        assert set(operation.problems) <= PROBLEMS.keys()
        if isinstance(operation, Secured):
            assert operation.scope is Scope.RECEIPTS_READ


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ("", None),
        ("other=1", None),
        ("from_hop=3", (3, 1000)),
        ("limit=3", (1, 3)),
        ("from_hop=0003&limit=1000", (3, 1000)),
    ],
)
def test_a_page_is_read(query: str, page: tuple[int, int] | None) -> None:
    """Each number has its default, and without either the whole is meant."""
    scope = {"type": "http", "query_string": query.encode(), "headers": []}
    assert receipts._page(Request(scope)) == page


def test_the_last_of_a_repeated_number_counts_and_is_checked() -> None:
    """A second value does not slip past the check of the first."""
    scope = {"type": "http", "query_string": b"limit=5&limit=-1", "headers": []}
    assert isinstance(receipts._page(Request(scope)), Refused)
