"""What the compiling process says of documents, called here without the process."""

from __future__ import annotations

import pytest

from signet.core.registry import Kind
from signet.providers.registry_child import faults_of


def test_good_documents_have_no_faults() -> None:
    """Types of its owner and types that everybody has may be named alike."""
    documents = [
        ("mapping", "a.v1--b.v1", '{"jsonata": "{ \\"x\\": y }"}'),
        ("mapping", "b.v1--c.v1", '{"fields": {"x": "y"}}'),
        ("type", "a.v1", "{}"),
        ("tool", "pay.v1", '{"name": "pay"}'),
    ]
    assert faults_of(["b.v1", "c.v1"], documents) == {}


@pytest.mark.parametrize("expression", ["$sum(", "(" * 19_000, '\\"' * 3])
def test_an_expression_must_parse(expression: str) -> None:
    """A wrong or bottomless one is found when it is registered, not when it is used."""
    text = '{"jsonata": "' + expression + '"}'
    found = faults_of(["a.v1", "b.v1"], [("mapping", "a.v1--b.v1", text)])
    (fault,) = found[Kind.MAPPING, "a.v1--b.v1"]
    assert (fault.pointer, fault.code) == ("/jsonata", "mapping_invalid")


def test_each_document_has_its_own_faults() -> None:
    """One that is wrong says nothing about another."""
    found = faults_of([], [("type", "a.v1", '{"type": 1}'), ("type", "b.v1", "{}")])
    assert set(found) == {(Kind.TYPE, "a.v1")}
