"""A gateway with a few types of its own beside the built-in ones."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.inprocess import App, open_app

DOCUMENTS: dict[str, object] = {
    "test.order.v1.schema.json": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["sku", "quantity"],
        "properties": {"sku": {"type": "string"}, "quantity": {"type": "integer", "minimum": 1}},
    },
    "test.anything.v1.schema.json": {},
    "test.total.v1.schema.json": {"type": "object", "required": ["total"]},
    "test.order.v1--test.total.v1.map.json": {"jsonata": '{"total": quantity * 2}'},
    "test.anything.v1--test.total.v1.map.json": {
        "jsonata": "("
        '$f := function($n) { $n < 1 ? 0 : $f($n - 1) + $f($n - 1) }; {"total": $f(60)})'
    },
    "test.anything.v1--test.order.v1.map.json": {"fields": {"sku": "sku", "quantity": "quantity"}},
    "place_order.tool.json": {
        "name": "place_order",
        "input_schema": {
            "type": "object",
            "required": ["sku"],
            "properties": {"sku": {"type": "string"}},
            "additionalProperties": False,
        },
    },
    "more.tools.json": [
        {"name": "cancel_order", "inputSchema": {"type": "object", "required": ["order_id"]}}
    ],
}


@pytest.fixture(scope="session")
def registry_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of types, mappings and tools as an operator has one."""
    directory = tmp_path_factory.mktemp("types")
    for name, document in DOCUMENTS.items():
        (directory / name).write_text(json.dumps(document))
    return directory


@pytest.fixture
async def app(tmp_path: Path, registry_dir: Path) -> AsyncIterator[App]:
    """The gateway on an empty database."""
    async with open_app(
        tmp_path / "data", SP_REGISTRY_DIR=str(registry_dir), SP_MAPPING_SECONDS="0.5"
    ) as opened:
        yield opened


@pytest.fixture(scope="module")
async def shared_app(
    tmp_path_factory: pytest.TempPathFactory, registry_dir: Path
) -> AsyncIterator[App]:
    """One gateway for a module's tests, each under keys and traces of its own."""
    directory = tmp_path_factory.mktemp("data")
    async with open_app(directory, SP_REGISTRY_DIR=str(registry_dir)) as opened:
        yield opened
