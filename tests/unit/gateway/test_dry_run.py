"""A dry run of what needs a model: it says so, and asks nobody."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.inprocess import invoice, open_app
from tests.unit.api.routes.test_dry_run import dry_run

pytestmark = pytest.mark.anyio

KEYS = {
    "with-key": {"tenant": "with", "fallback_enabled": True},
    "without-key": {"tenant": "without"},
}


async def test_a_model_would_be_asked_and_is_not(tmp_path: Path) -> None:
    """Only for a tenant that has the fallback; the place that cannot be read is told to both."""
    nowhere = "http://127.0.0.1:9/v1"
    async with open_app(tmp_path, keys=KEYS, SP_OPENAI_BASE_URL=nowhere) as app:
        body = invoice("the amount is about twelve")
        asked = (await dry_run(app, body, api_key="with-key")).json
        assert (asked["fallback"], asked["ok"]) == (True, False)
        assert asked["problem"]["faults"][0]["pointer"].endswith("/arguments")
        assert (await dry_run(app, body, api_key="without-key")).json["fallback"] is False
        assert (await dry_run(app, invoice(), api_key="with-key")).json["fallback"] is False


async def test_the_registry_is_the_tenant_s_own(tmp_path: Path) -> None:
    """A mapping is tried before anybody uses it, over the very types that the tenant has."""
    keys = {"k": {"tenant": "acme", "scopes": ["exchange", "registry.write"]}}
    async with open_app(tmp_path, keys=keys) as app:
        headers = [(b"x-signet-api-key", b"k"), (b"content-type", b"application/json")]
        for path, document in (
            ("types/a.v1", {}),
            ("types/b.v1", {"required": ["x"]}),
            ("mappings/a.v1--b.v1", {"fields": {"x": "deep.y"}}),
        ):
            reply = await app.call(
                "PUT", f"/v1/registry/{path}", headers=headers, body=json.dumps(document).encode()
            )
            assert reply.status == 201, reply.body
        body = {"payload_type": "a.v1", "target_type": "b.v1", "payload": {"deep": {"y": 1.5}}}
        shown = (await dry_run(app, body, api_key="k")).json
        assert (shown["ok"], shown["normalized"]) == (True, {"x": 1.5})
        body["payload"] = {}
        shown = (await dry_run(app, body, api_key="k")).json
        assert shown["problem"]["faults"][0]["pointer"] == "/payload/deep/y"
