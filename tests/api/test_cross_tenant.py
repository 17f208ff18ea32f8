"""The cross-tenant matrix: every operation of the OpenAPI document, asked by everybody who must
not be answered.

The document is walked, so a new operation is covered by itself. Where one has a parameter or a body
that nothing here can fill, the matrix fails until it is told how: in the objects of the stage, or
in `BODIES`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import pytest
from tests.billing import Told
from tests.inprocess import App, Reply, invoice, key_for, open_app
from tests.month import set_steady_clock

from signet.core.billing import period_of
from signet.core.ids import TenantId
from signet.core.pricing import metered_only
from signet.core.tenant import Scope
from signet.gateway.metering import Metering
from signet.gateway.statements import Statements
from signet.receipts.receipt import timestamp_us
from signet.storage import billing

pytestmark = pytest.mark.anyio

VICTIM: Final = TenantId("victim-4f1c")
MARK: Final = "mark-of-the-victim"
TRACE: Final = "trace-of-the-victim"
TYPE: Final = "victim.order.v1"
OUTSIDE: Final = ("203.0.113.9", 40000)
"""An address that is not loopback, which is told more by `/metrics`."""

NOT_ADMIN: Final = [scope.value for scope in Scope if scope is not Scope.ADMIN]
KEYS: Final[Mapping[str, object]] = {
    "victim-key": {"tenant": VICTIM, "scopes": NOT_ADMIN},
    "acme-key": {"tenant": "acme", "scopes": NOT_ADMIN},
    "admin-key": {"tenant": "operator", "scopes": ["admin"]},
}

IDEMPOTENCY_KEY: Final = "key-of-the-victim"
ARGUMENTS: Final = {
    "invoice_id": MARK,
    "amount": 1,
    "currency": "EUR",
    "customer_name": MARK,
    "description": MARK,
}
BODIES: Final[Mapping[str, object]] = {
    "exchange": invoice(
        {**ARGUMENTS, "invoice_id": "INV-2"}, trace_id="trace-of-a-name-that-two-have"
    )
}
"""What is sent where the document's own example would not name the victim's object. The exchange is
one that the victim has made, and is asked for again under the victim's idempotency key."""

FILTERS: Final[Mapping[str, str]] = {
    "after": "0",
    "from": "2026-01-01T00:00:00.000000Z",
    "to": "9000-01-01T00:00:00.000000Z",
    "action": "exchange",
}
"""Parameters that name no object, and what to ask for so that as much as can be is answered."""

SHARED: Final[frozenset[str]] = frozenset({"register"})
"""Operations whose path names what is not one tenant's own."""

MADE: Final[Mapping[str, Mapping[str, str]]] = {"register": {"name": "anybody.order.v1"}}
"""What an operation makes: a name of the victim's would become one of the asker's own as well."""

ABSENT: Final[Mapping[str, str]] = {
    "receipt_hash": "sha256:" + "0" * 64,
    "trace_id": "no-such-trace",
    "period": "2001-01",
    "cid": "sha256:" + "0" * 64,
    "kind": "types",
    "name": "nobody.order.v1",
}
"""For each kind of object of a tenant's, one that nobody has."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One operation of the document, and how to ask for the victim's objects with it."""

    method: str
    path: str
    name: str
    scope: Scope | None
    has_object: bool
    parameters: tuple[dict[str, Any], ...]
    body: object

    def url(self, objects: Mapping[str, str], *, whole: bool) -> str:
        """The path with its objects; `whole` with every optional parameter too."""
        path, query = self.path, []
        for parameter in self.parameters:
            if parameter["in"] == "header":
                continue
            value = _value(parameter, objects)
            if parameter["in"] == "path":
                path = path.replace(f"{{{parameter['name']}}}", quote(value, safe=""))
            elif parameter["in"] == "query" and (whole or parameter.get("required")):
                query.append(f"{parameter['name']}={quote(value)}")
        return "?".join((path, "&".join(query))) if query else path


@dataclass(kw_only=True)
class Stage:
    """A gateway with a victim whose objects everybody else asks for."""

    app: App
    objects: Mapping[str, str]
    secrets: frozenset[bytes]
    operations: tuple[Asked, ...]
    dead: Mapping[str, str]

    async def ask(
        self, asked: Asked, key: str | None, *, whole: bool = True, **objects: str
    ) -> Reply:
        """Ask with a key, or with none."""
        headers = [] if key is None else [(b"x-signet-api-key", key.encode())]
        body = b""
        if asked.body is not None:
            headers.append((b"content-type", b"application/json"))
            headers.append((b"idempotency-key", IDEMPOTENCY_KEY.encode()))
            body = json.dumps(asked.body).encode()
        made = MADE.get(asked.name, {})
        url = asked.url({**self.objects, **made, **objects}, whole=whole)
        return await self.app.call(asked.method, url, headers=headers, body=body, client=OUTSIDE)

    def leaks(self, asked: Asked, reply: Reply) -> list[str]:
        """What an answer tells of the victim that the question did not say."""
        told = reply.body + b"\n".join(value for _, value in reply.headers)
        said = asked.url(self.objects, whole=True).encode() + json.dumps(asked.body).encode()
        return [secret.decode() for secret in self.secrets if secret in told and secret not in said]


@pytest.fixture(scope="module")
def steady_month() -> Iterator[None]:
    """The month in which the victim is billed does not end while this module runs."""
    with pytest.MonkeyPatch.context() as patch:
        set_steady_clock(patch)
        yield


@pytest.fixture(scope="module")
async def stage(
    steady_month: None, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    """The victim has exchanged, was metered, has a statement, an event, a key and a type."""
    async with open_app(tmp_path_factory.mktemp("data"), keys=KEYS) as app:
        done = await app.exchange(invoice(ARGUMENTS, trace_id=TRACE), api_key="victim-key")
        again = await app.exchange(BODIES["exchange"], api_key="victim-key", key=IDEMPOTENCY_KEY)
        assert [done.status, again.status] == [200, 200]
        used_us = timestamp_us(again.json["receipt"]["ts"])
        period = period_of(used_us, "UTC").name
        await _billed(app, period, used_us)
        own = await app.ask("POST", "/v1/admin/keys", {"tenant": VICTIM, "label": MARK})
        typed = f"/v1/registry/types/{TYPE}"
        stored = await app.ask("PUT", typed, {"description": MARK}, api_key="victim-key")
        assert stored.status == 201, stored.body
        receipt = done.json["receipt"]
        objects = {
            "receipt_hash": receipt["receipt_hash"],
            "trace_id": TRACE,
            "cid": receipt["cid"],
            "period": period,
            "tenant": VICTIM,
            "key_id": own.json["key_id"],
            "kind": "types",
            "name": TYPE,
        }
        names = (
            *(VICTIM, MARK, TRACE, TYPE, own.json["key_id"]),
            *(receipt["receipt_hash"], receipt["cid"], again.json["receipt"]["receipt_hash"]),
        )
        document = (await app.get("/openapi.json", api_key=None)).json
        yield Stage(
            app=app,
            objects=objects,
            secrets=frozenset(name.encode() for name in names),
            operations=tuple(_operations(document)),
            dead=await _dead(app),
        )


async def _billed(app: App, period: str, now_us: int) -> None:
    """Count what was metered, close the victim's month, and tell the victim something."""
    database = app.gateway.database
    metering = Metering(
        database=database,
        plan_of=lambda tenant: metered_only(tenant, vex_item=None, fu_item=None),
        fu_limit_of=lambda _tenant: None,
        observer=Told(),
        clock=lambda: now_us + 1_000_000,
        settle_us=0,
    )
    while await metering.count_once():
        pass
    statements = Statements(
        database=database, key_for=key_for, issuer="i", clock=lambda: now_us + 1_000_000
    )
    assert await statements.close(VICTIM, period) is not None
    document = json.dumps({"said": MARK}).encode()

    async def tell(tx: Any) -> None:
        await billing.tell(tx, VICTIM, "test", MARK, at_us=now_us, document=document)

    await database.transact(tell)


async def _dead(app: App) -> dict[str, str]:
    """Keys of the victim itself, with every scope, that have ended."""
    dead = {"unknown": "sp_live_" + "0" * 16 + "_" + "0" * 64}
    for ending, path, body in (
        ("expired", "expire", {"in_s": 0}),
        ("revoked", "revoke", None),
    ):
        made = (
            await app.ask(
                "POST", "/v1/admin/keys", {"tenant": VICTIM, "scopes": [s.value for s in Scope]}
            )
        ).json
        ended = await app.ask("POST", f"/v1/admin/keys/{made['key_id']}/{path}", body)
        assert ended.json["state"] == ending
        dead[ending] = made["key"]
    return dead


def _operations(document: dict[str, Any]) -> Iterator[Asked]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            ways = [way for ways in operation.get("security", []) for way in ways.values()]
            scopes = {scope for way in ways for scope in way}
            assert len(scopes) <= 1, f"{operation['operationId']}: one scope is asked for"
            parameters = tuple(operation.get("parameters", ()))
            yield Asked(
                method=method.upper(),
                path=path,
                name=operation["operationId"],
                scope=Scope(scopes.pop()) if scopes else None,
                has_object=any(p["in"] == "path" for p in parameters),
                parameters=parameters,
                body=_body(operation),
            )


def _body(operation: dict[str, Any]) -> object:
    if operation["operationId"] in BODIES:
        return BODIES[operation["operationId"]]
    if "requestBody" not in operation:
        return None
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert schema.get("examples"), f"{operation['operationId']}: its body has no example to send"
    return schema["examples"][0]


def _value(parameter: dict[str, Any], objects: Mapping[str, str]) -> str:
    name, schema = parameter["name"], parameter["schema"]
    if name in objects:
        return objects[name]
    if "enum" in schema:
        return str(schema["enum"][0])
    if schema.get("type") == "integer":
        return str(schema.get("minimum", 1))
    assert name in FILTERS, f"nothing here can fill {name}: add it to the objects of the stage"
    return FILTERS[name]


async def test_nobody_s_key_opens_anything(stage: Stage) -> None:
    """No key, an unknown, an expired and a revoked one are all refused with one and the same 401.

    The answers are equal to the byte, so none of them tells whether such a key ever was.
    """
    asked = 0
    for operation in (one for one in stage.operations if one.scope is not None):
        replies = [await stage.ask(operation, key) for key in (None, *stage.dead.values())]
        assert {reply.status for reply in replies} == {401}, operation.name
        assert {reply.code for reply in replies} == {"unauthenticated"}, operation.name
        assert len({reply.body for reply in replies}) == 1, operation.name
        asked += len(replies)
    assert asked >= 4 * 18


async def test_no_scope_stands_for_another(stage: Stage) -> None:
    """The victim's own key with every scope but the one that is needed is refused with 403."""
    keys: dict[Scope, str] = {}
    for scope in Scope:
        body = {"tenant": VICTIM, "scopes": [s.value for s in Scope if s is not scope]}
        keys[scope] = (await stage.app.ask("POST", "/v1/admin/keys", body)).json["key"]
    for operation in stage.operations:
        if operation.scope is not None:
            reply = await stage.ask(operation, keys[operation.scope])
            assert (reply.status, reply.code) == (403, "scope_missing"), operation.name
            assert stage.leaks(operation, reply) == [], operation.name


async def test_another_tenant_sees_nothing(stage: Stage) -> None:
    """Whatever of the victim's another tenant's key asks for is not there; nothing is told."""
    for operation in stage.operations:
        for whole in (False, True):
            reply = await stage.ask(operation, "acme-key", whole=whole)
            place = f"{operation.name}: {reply.status} {reply.body[:300]!r}"
            assert stage.leaks(operation, reply) == [], place
            assert reply.status < 500, place
            if operation.scope is Scope.ADMIN:
                assert (reply.status, reply.code) == (403, "scope_missing"), place
            elif operation.has_object and operation.scope and operation.name not in SHARED:
                assert reply.status == 404, place


async def test_what_is_another_s_and_what_is_nobody_s_look_alike(stage: Stage) -> None:
    """The answer about the victim's object is that about one which never was, to the byte."""
    compared = 0
    for operation in stage.operations:
        names = {p["name"] for p in operation.parameters if p["in"] == "path"}
        if not names or operation.scope in (None, Scope.ADMIN) or operation.name in SHARED:
            continue
        absent = {name: _absent(name) for name in names}
        theirs = await stage.ask(operation, "acme-key")
        nobodys = await stage.ask(operation, "acme-key", **absent)
        said = nobodys.body
        for name in names:  # an answer may repeat the question
            said = said.replace(absent[name].encode(), stage.objects[name].encode())
        assert (theirs.status, theirs.body) == (nobodys.status, said), operation.name
        compared += 1
    assert compared >= 5


def _absent(name: str) -> str:
    assert name in ABSENT, f"nothing here knows a {name} that nobody has: tell ABSENT"
    return ABSENT[name]


async def test_the_public_s_answers_tell_nothing(stage: Stage) -> None:
    """What answers anybody, asked from outside, has nothing of a tenant's in it."""
    for operation in stage.operations:
        if operation.scope is None:
            reply = await stage.ask(operation, None)
            assert stage.leaks(operation, reply) == [], operation.name


async def test_the_victim_has_what_it_had(stage: Stage) -> None:
    """After all that, the victim's own key still finds every object, and its chain is whole."""
    for operation in stage.operations:
        if operation.method == "GET" and operation.scope not in (None, Scope.ADMIN):
            reply = await stage.ask(operation, "victim-key", whole=False)
            assert reply.status == 200, f"{operation.name}: {reply.body!r}"
    (receipt,) = await stage.app.verified(TRACE, api_key="victim-key")
    assert receipt["receipt_hash"] == stage.objects["receipt_hash"]
