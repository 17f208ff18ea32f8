"""Lists that are longer than one answer."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from signet.api.auth import Refused
from signet.api.pages import limit_of, limit_parameter, next_of, page_of


def _asked(query: str) -> Request:
    return Request({"type": "http", "query_string": query.encode(), "headers": []})


def test_what_is_asked_for() -> None:
    """Both parameters may be absent."""
    assert page_of(_asked("")) == (100, "")
    assert page_of(_asked("limit=1&after=key_0")) == (1, "key_0")
    assert page_of(_asked("limit=200")) == (200, "")


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=201",
        "limit=-1",
        "limit=1.0",
        "limit=",
        "limit=%C2%B2",
        "after=",
        "after=a b",
    ],
)
def test_what_is_no_page(query: str) -> None:
    """Anything else is refused, digits of other scripts too."""
    refused = page_of(_asked(query))
    assert isinstance(refused, Refused)
    assert refused.code == "parameter_invalid"


@pytest.mark.parametrize("most", [200, 1000])
def test_a_list_says_how_long_its_pages_may_be(most: int) -> None:
    """What is documented is what is read."""
    assert limit_parameter(most).schema["maximum"] == most
    assert limit_of(_asked(f"limit={most}"), most) == most
    refused = limit_of(_asked(f"limit={most + 1}"), most)
    assert isinstance(refused, Refused)
    assert str(most) in refused.detail


def test_the_last_page_has_no_next() -> None:
    """A page that is not full is the last; one that is full may be followed by an empty one."""
    assert next_of(["a", "b"], 2) == "b"
    assert next_of(["a"], 2) is None
    assert next_of([], 2) is None
