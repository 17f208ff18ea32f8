"""The shapes in the OpenAPI document are themselves in order."""

from __future__ import annotations

import json
import re

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signet.api import schemas
from signet.core.billing import PeriodInvalid, period_named
from signet.core.ids import RECEIPT_HASH, TRACE_ID, TYPE_NAME
from signet.receipts.canonical import Json


@pytest.mark.parametrize(
    "name", [n for n, v in vars(schemas).items() if n.isupper() and isinstance(v, dict)]
)
def test_each_is_a_schema(name: str) -> None:
    """Every constant that is a schema is one of 2020-12, and JSON."""
    schema = vars(schemas)[name]
    json.dumps(schema)
    if not name.endswith("HEADERS") and name != "COMPONENTS":
        jsonschema_rs.meta.validate(schema)


@pytest.mark.parametrize(
    ("schema", "pattern"), [(schemas.RECEIPT_HASH, RECEIPT_HASH), (schemas.TRACE_ID, TRACE_ID)]
)
def test_patterns_are_those_of_the_domain(schema: dict[str, str], pattern: re.Pattern[str]) -> None:
    """What the document says of an id is what the code holds it to."""
    assert schema["pattern"] == f"^{pattern.pattern}$"


@given(st.integers(0, 9999), st.integers(0, 13))
def test_months_are_those_of_the_calendar(year: int, month: int) -> None:
    """The document's pattern takes exactly the months that the code takes."""
    name = f"{year:04}-{month:02}"
    try:
        period_named(name, "UTC")
        known = True
    except PeriodInvalid:
        known = False
    assert jsonschema_rs.is_valid(schemas.MONTH, name) is known  # type: ignore[arg-type]


def test_the_envelope_is_as_strict_as_the_reader() -> None:
    """A member that the reader does not know fits the schema neither."""
    valid = jsonschema_rs.validator_for(schemas.ENVELOPE)  # type: ignore[arg-type]
    envelope: dict[str, Json] = {"payload_type": "a.v1", "target_type": "a.v1", "payload": {}}
    assert valid.is_valid(envelope)
    for change in (
        {"surprise": 1},
        {"payload": "x"},
        {"payload_type": ""},
        {"trace_id": 1},
        {"forward_url": ""},
        {"forward_url": "a b"},
        {"expected_prev": "x"},
        {"delivery": "later"},
    ):
        assert not valid.is_valid(envelope | change)
    assert TYPE_NAME.pattern in json.dumps(schemas.ENVELOPE)
