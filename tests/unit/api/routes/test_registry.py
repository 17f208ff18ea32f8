"""The registry over HTTP: a tenant's own names, everybody's, and what each caller may do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import jsonschema_rs
import pytest
from tests.inprocess import App, Reply, open_app

from signet.api.schemas import COMPONENTS, REGISTRY_LIST

pytestmark = pytest.mark.anyio

KEYS = {
    "acme-key": {"tenant": "acme"},
    "acme-ci-key": {"tenant": "acme", "scopes": ["registry.write", "exchange"]},
    "globex-key": {"tenant": "globex", "scopes": ["registry.write", "exchange"]},
    "small-key": {
        "tenant": "small",
        "registry_max_documents": 1,
        "scopes": ["registry.write", "exchange"],
    },
    "admin-key": {"tenant": "operator", "scopes": ["admin", "exchange"]},
}
ORDER: dict[str, object] = {
    "type": "object",
    "required": ["sku"],
    "properties": {"sku": {"type": "string"}},
}
TYPES = "/v1/registry/types"


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    """A gateway with a small registry."""
    async with open_app(
        tmp_path, keys=KEYS, SP_REGISTRY_MAX_DOCUMENTS="4", SP_REGISTRY_MAX_BYTES="20000"
    ) as opened:
        yield opened


async def call(
    app: App, method: str, path: str, body: object = None, *, key: str = "acme-ci-key"
) -> Reply:
    """Ask as `key`; `body` is sent as JSON unless it is bytes or None."""
    headers = [(b"x-signet-api-key", key.encode()), (b"content-type", b"application/json")]
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return await app.call(method, path, headers=headers, body=raw)


async def test_a_type_is_registered_once_and_used(app: App) -> None:
    """New, then the same, then a conflict; an exchange of it works from the first moment."""
    first = await call(app, "PUT", f"{TYPES}/acme.order.v1", ORDER)
    assert (first.status, first.json["origin"], first.json["kind"]) == (201, "tenant", "types")
    again = await call(app, "PUT", f"{TYPES}/acme.order.v1", ORDER)
    assert (again.status, again.json) == (200, first.json)
    other = await call(app, "PUT", f"{TYPES}/acme.order.v1", {"type": "object"})
    assert (other.status, other.code) == (409, "registry_conflict")
    exchanged = await app.exchange(
        {
            "payload_type": "acme.order.v1",
            "target_type": "acme.order.v1",
            "payload": {"sku": "A"},
        }
    )
    assert exchanged.status == 200
    assert exchanged.json["receipt"]["schema_in"] == first.json["cid"]
    shown = await call(app, "GET", f"{TYPES}/acme.order.v1")
    assert shown.json["document"] == ORDER
    assert shown.header("etag") == f'"{first.json["cid"]}"'


async def test_mappings_and_tools(app: App) -> None:
    """A tool's newest version is what calls are held against; a mapping needs its types."""
    mapping = "/v1/registry/mappings/mcp.tool_call.v1--acme.order.v1"
    fields = {"fields": {"sku": "params.arguments.sku"}}
    early = await call(app, "PUT", mapping, fields)
    assert (early.status, early.json["faults"][0]["code"]) == (422, "unknown_type")
    assert (await call(app, "PUT", f"{TYPES}/acme.order.v1", ORDER)).status == 201
    assert (await call(app, "PUT", mapping, fields)).status == 201

    def tool(kind: str) -> dict[str, object]:
        schema = {"type": "object", "properties": {"sku": {"type": kind}}, "required": ["sku"]}
        return {"name": "place_order", "inputSchema": schema}

    async def ordered() -> int:
        payload = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": "place_order", "arguments": {"sku": "A"}},
        }
        types = {"payload_type": "mcp.tool_call.v1", "target_type": "acme.order.v1"}
        return (await app.exchange({**types, "payload": payload})).status

    tools = "/v1/registry/tools"
    wrong = await call(app, "PUT", f"{tools}/order.v1", tool("string"))
    assert (wrong.status, wrong.json["faults"][0]["code"]) == (422, "tool_invalid")
    assert (await call(app, "PUT", f"{tools}/place_order.v1", tool("integer"))).status == 201
    assert await ordered() == 422
    assert (await call(app, "PUT", f"{tools}/place_order.v2", tool("string"))).status == 201
    assert await ordered() == 200
    await call(app, "PUT", f"{tools}/place_order.v2/deprecation", {})
    assert await ordered() == 422, "the newest that is not deprecated"


async def test_a_tenant_sees_its_own_and_everybody_s(app: App) -> None:
    """Another tenant's document is not found, and its name is free."""
    assert (await call(app, "PUT", f"{TYPES}/acme.order.v1", ORDER)).status == 201
    await call(app, "PUT", "/v1/admin/registry/types/shared.v1", ORDER, key="admin-key")
    hidden = await call(app, "GET", f"{TYPES}/acme.order.v1", key="globex-key")
    assert (hidden.status, hidden.code) == (404, "not_found")
    for key in KEYS:
        assert (await call(app, "GET", f"{TYPES}/shared.v1", key=key)).json["origin"] == "global"
    deprecated = await call(app, "PUT", f"{TYPES}/acme.order.v1/deprecation", {}, key="globex-key")
    assert deprecated.status == 404
    free = await call(app, "PUT", f"{TYPES}/acme.order.v1", {"type": "object"}, key="globex-key")
    assert free.status == 201


async def test_nobody_hides_what_everybody_has(app: App) -> None:
    """A built-in, an operator's or a global name is taken, for tenants; `signet.` for everybody."""
    await call(app, "PUT", "/v1/admin/registry/types/shared.v1", ORDER, key="admin-key")
    for name in ("invoice.iso20022.v1", "shared.v1"):
        taken = await call(app, "PUT", f"{TYPES}/{name}", {"type": "array"})
        assert (taken.status, taken.code) == (409, "registry_conflict")
    reserved = await call(app, "PUT", f"{TYPES}/signet.order.v1", ORDER)
    assert reserved.json["faults"][0]["code"] == "registry_name_invalid"
    built_in = "/v1/admin/registry/types/invoice.iso20022.v1"
    assert (await call(app, "PUT", built_in, {}, key="admin-key")).status == 409
    assert (await call(app, "PUT", f"{built_in}/deprecation", {}, key="admin-key")).status == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", f"{TYPES}/a.v1"),
        ("PUT", f"{TYPES}/a.v1/deprecation"),
        ("DELETE", f"{TYPES}/a.v1/deprecation"),
        ("PUT", "/v1/admin/registry/types/a.v1"),
        ("PUT", "/v1/admin/registry/types/a.v1/deprecation"),
        ("DELETE", "/v1/admin/registry/types/a.v1/deprecation"),
        ("GET", "/v1/admin/registry"),
    ],
)
async def test_who_may_change_it(app: App, method: str, path: str) -> None:
    """An agent's key may not; a tenant's registry key changes nothing for everybody."""
    assert (await call(app, method, path, ORDER, key="acme-key")).code == "scope_missing"
    if "admin" in path:
        assert (await call(app, method, path, ORDER)).code == "scope_missing"


async def test_a_tenant_s_own_bounds_go_before_the_deployment_s(app: App) -> None:
    """Fewer, or more as soon as an administrator says so; `GET /v1/limits` tells how it stands."""

    async def quota(key: str) -> tuple[int, int, int]:
        documents = (await app.get("/v1/limits", api_key=key)).json["registry"]["documents"]
        return documents["limit"], documents["used"], documents["left"]

    assert await quota("small-key") == (1, 0, 1)
    assert (await call(app, "PUT", f"{TYPES}/a.v1", ORDER, key="small-key")).status == 201
    assert await quota("small-key") == (1, 1, 0)
    full = await call(app, "PUT", f"{TYPES}/a.v2", ORDER, key="small-key")
    assert (full.status, full.code) == (409, "registry_full")
    assert await quota("globex-key") == (4, 0, 4)

    tenant: dict[str, object] = {"tenant": "later", "registry_max_documents": 0}
    made = await call(app, "POST", "/v1/admin/tenants", tenant, key="admin-key")
    assert made.status == 201
    wanted = {"tenant": "later", "scopes": ["registry.write", "exchange"]}
    key = (await call(app, "POST", "/v1/admin/keys", wanted, key="admin-key")).json["key"]
    refused = await call(app, "PUT", f"{TYPES}/a.v1", ORDER, key=key)
    assert (refused.status, refused.code) == (409, "registry_full")
    more = {"registry_max_documents": 5}
    assert (
        await call(app, "PATCH", "/v1/admin/tenants/later", more, key="admin-key")
    ).status == 200
    assert (await call(app, "PUT", f"{TYPES}/a.v1", ORDER, key=key)).status == 201
    assert await quota(key) == (5, 1, 4)


async def test_what_a_tenant_may_keep_is_bounded(app: App) -> None:
    """In number, in bytes together, and in bytes of one; what is refused leaves nothing."""
    large = {"description": "x" * 1_300}
    assert (await call(app, "PUT", f"{TYPES}/large.v1", large)).code == "body_too_large"
    for number in range(4):
        assert (await call(app, "PUT", f"{TYPES}/a.v{number}", ORDER)).status == 201
    full = await call(app, "PUT", f"{TYPES}/b.v1", ORDER)
    assert (full.status, full.code) == (409, "registry_full")
    assert (await call(app, "GET", f"{TYPES}/b.v1")).status == 404
    assert (await call(app, "PUT", f"{TYPES}/a.v1", ORDER)).status == 200
    assert (await call(app, "PUT", f"{TYPES}/a.v1", ORDER, key="globex-key")).status == 201


async def test_a_deprecated_version_serves_and_says_so(app: App) -> None:
    """The exchange works as before, with the headers of RFC 9745; and it can be taken back."""
    place = f"{TYPES}/acme.order.v1"
    await call(app, "PUT", place, ORDER)
    remark = {"detail": "use the next one", "successor": "acme.order.v2"}
    said = await call(app, "PUT", f"{place}/deprecation", remark)
    assert said.json["deprecated"]["successor"] == "acme.order.v2"
    types = {"payload_type": "acme.order.v1", "target_type": "acme.order.v1"}
    body = {**types, "payload": {"sku": "A"}}
    exchanged = await app.exchange(body)
    assert exchanged.status == 200
    assert (exchanged.header("deprecation") or "").startswith("@")
    assert exchanged.header("x-signet-deprecated") == "acme.order.v1"
    refused = await app.exchange({**body, "payload": {}})
    assert (refused.status, refused.header("x-signet-deprecated")) == (422, "acme.order.v1")
    shown = await call(app, "GET", place)
    assert shown.header("link") == '</v1/registry/types/acme.order.v2>; rel="successor-version"'
    taken_back = await call(app, "DELETE", f"{place}/deprecation")
    assert taken_back.json["deprecated"] is None
    assert (await app.exchange(body)).header("deprecation") is None


async def test_the_list_is_paged(app: App) -> None:
    """Each document once, in one order, whatever the pages; those of everybody included."""
    for number in range(3):
        await call(app, "PUT", f"{TYPES}/a.v{number}", ORDER)
    whole = (await call(app, "GET", "/v1/registry?limit=500")).json
    jsonschema_rs.validate(
        {**REGISTRY_LIST, "components": {"schemas": COMPONENTS}}, json.loads(json.dumps(whole))
    )
    assert whole["next"] is None
    pages: list[object] = []
    after = ""
    while after is not None:
        asked = "/v1/registry?limit=3" + (f"&after={after}" if after else "")
        page = (await call(app, "GET", asked)).json
        assert len(page["documents"]) <= 3
        pages += page["documents"]
        after = page["next"]
    assert pages == whole["documents"]
    mappings = (await call(app, "GET", "/v1/registry?kind=mappings")).json["documents"]
    assert {document["kind"] for document in mappings} == {"mappings"}
    of_acme = await call(app, "GET", "/v1/admin/registry?tenant=acme", key="admin-key")
    assert [d["name"] for d in of_acme.json["documents"]] == ["a.v0", "a.v1", "a.v2"]
    assert (await call(app, "GET", "/v1/admin/registry", key="admin-key")).json["documents"] == []


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/registry?limit=0", "parameter_invalid"),
        ("/v1/registry?limit=x", "parameter_invalid"),
        ("/v1/registry?kind=others", "parameter_invalid"),
        ("/v1/registry?after=a.v1", "parameter_invalid"),
        ("/v1/registry/others/a.v1", "parameter_invalid"),
        ("/v1/registry/types/a%20v1", "parameter_invalid"),
        ("/v1/registry/types/a.v1", "not_found"),
    ],
)
async def test_what_is_asked_wrongly(app: App, path: str, code: str) -> None:
    """A stable code, and no document."""
    assert (await call(app, "GET", path)).code == code


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        (b'{"type":1}', "/type", "schema_invalid"),
        (b'{"items":{"$ref":"http://10.0.0.1/x"}}', "/items/$ref", "schema_reference_outside"),
        (b'{"$ref":"#"}', "", "schema_endless"),
        (b'{"a":1,"a":2}', "/a", "duplicate_name"),
        (b"[" * 100 + b"]" * 100, None, "too_deep"),
        (b"{", None, None),
        (b'{"pattern":"' + b"(" * 900 + b'"}', "/pattern", "schema_invalid"),
    ],
)
async def test_faults_have_their_place(
    app: App, body: bytes, pointer: str | None, code: str | None
) -> None:
    """Each is 422 with a JSON Pointer into the document, in bounded time."""
    refused = await call(app, "PUT", f"{TYPES}/a.v1", body)
    assert (refused.status, refused.code) == (422, "registry_invalid")
    (fault, *_) = refused.json["faults"]
    assert pointer is None or fault["pointer"] == pointer
    assert code is None or fault["code"] == code
    assert (await call(app, "GET", f"{TYPES}/a.v1")).status == 404


async def test_the_longest_remark(app: App) -> None:
    """What the document allows fits into the body that is read, however it is escaped."""
    await call(app, "PUT", f"{TYPES}/a.v1", ORDER)
    remark = {"detail": "\U0001f334" * 500, "successor": "a" * 260}
    body = json.dumps(remark).replace("a" * 260, r"\u0061" * 260).encode()
    assert (await call(app, "PUT", f"{TYPES}/a.v1/deprecation", body)).status == 200


@pytest.mark.parametrize(
    "body", [[], {"detail": 1}, {"detail": "\x15"}, {"more": 1}, {"successor": "a b"}]
)
async def test_a_remark_that_is_none(app: App, body: object) -> None:
    """It says what to use instead, and nothing else."""
    await call(app, "PUT", f"{TYPES}/a.v1", ORDER)
    assert (await call(app, "PUT", f"{TYPES}/a.v1/deprecation", body)).status == 422
    assert (await call(app, "GET", f"{TYPES}/a.v1")).json["deprecated"] is None
