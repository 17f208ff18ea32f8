"""The OpenAPI document, held against the specification and against the real answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema_rs
import pytest
from schemathesis.specs.openapi.definitions import (
    OPENAPI_31,  # the official schema, as they ship it
)
from tests.inprocess import App, envelope, invoice
from tests.live import live

pytestmark = pytest.mark.anyio

SEED = 4711
"""The suite asks the same each time; the drills ask something new."""
EXAMPLES = 12
"""How many examples of each operation `make test` tries; the drills try a thousand."""


def explore(
    url: str, examples: int, *, key: str = "every-key", seed: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run schemathesis with every check, and all its phases, against a running gateway."""
    return subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            "--config-file",
            str(Path(__file__).with_name("schemathesis.toml")),
            "run",
            f"{url}/openapi.json",
            "--checks=all",
            f"--max-examples={examples}",
            "--no-color",
            "--generation-database=none",
            "--request-timeout=300",
            "--max-response-time=300",  # ten seconds by itself, which a busy machine may take
            f"--header=X-SIGNET-API-Key: {key}",
            *([] if seed is None else [f"--seed={seed}"]),
        ],
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )


@pytest.mark.parametrize("key", ["acme-key", "every-key"])
def test_every_answer_is_documented(tmp_path: Path, key: str) -> None:
    """Whatever schemathesis makes of the document, each answer is one that the document names, for
    a tenant as for who may do everything."""
    with live(tmp_path) as gateway:
        explored = explore(gateway.url, EXAMPLES, key=key, seed=SEED)
    assert explored.returncode == 0, explored.stdout[-8000:]


async def test_the_document_is_openapi_3_1(shared_app: App) -> None:
    """It is valid by the official schema's dialect, and every reference in it resolves."""
    document = (await shared_app.get("/openapi.json", api_key=None)).json
    assert document["openapi"].startswith("3.1.")
    jsonschema_rs.validator_for(OPENAPI_31).validate(document)
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)
    for reference in _values(document, "$ref"):
        place = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
    ids = list(_values(document["paths"], "operationId"))
    assert len(ids) == len(set(ids)) + 3, "three of them are links"


async def test_examples_fit_and_work(shared_app: App) -> None:
    """The example of an exchange fits its own schema and is answered with 200."""
    document = (await shared_app.get("/openapi.json", api_key=None)).json
    body = document["paths"]["/v1/exchange"]["post"]["requestBody"]["content"]
    schema = body["application/json"]["schema"]
    for example in schema["examples"]:
        jsonschema_rs.validate(schema, example)
        assert (await shared_app.exchange(example)).status == 200


async def test_answers_fit_their_schemas(shared_app: App) -> None:
    """An allowed and a refused exchange, and all that can be asked of them, are as described."""
    document = (await shared_app.get("/openapi.json", api_key=None)).json
    allowed = await shared_app.exchange(invoice(trace_id="fits"))
    refused = await shared_app.exchange(envelope({}, trace_id="fits"))
    receipt_hash = allowed.json["receipt"]["receipt_hash"]
    _fits(document, "/v1/exchange", "post", "200", allowed.body)
    _fits(document, "/v1/exchange", "post", "422", refused.body)
    for path, real in (
        ("/v1/exchanges/{receipt_hash}", f"/v1/exchanges/{receipt_hash}"),
        ("/v1/receipts/chain/{trace_id}", "/v1/receipts/chain/fits"),
        ("/v1/receipts/export/{trace_id}", "/v1/receipts/export/fits"),
        ("/v1/receipts/export/{trace_id}", "/v1/receipts/export/fits?limit=1"),
        ("/.well-known/jwks.json", "/.well-known/jwks.json"),
        ("/healthz", "/healthz"),
        ("/readyz", "/readyz"),
    ):
        _fits(document, path, "get", "200", (await shared_app.get(real)).body)


def _fits(document: dict[str, object], path: str, method: str, status: str, body: bytes) -> None:
    described = document["paths"][path][method]["responses"][status]["content"]  # type: ignore[index,call-overload]
    (content,) = described.values()
    schema = {**content["schema"], "components": document["components"]}
    jsonschema_rs.validate(schema, json.loads(body))


def _values(node: object, name: str) -> list[str]:
    if isinstance(node, dict):
        own = [node[name]] if isinstance(node.get(name), str) else []
        return own + [text for child in node.values() for text in _values(child, name)]
    if isinstance(node, list):
        return [text for child in node for text in _values(child, name)]
    return []
