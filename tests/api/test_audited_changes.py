"""Whoever changes something leaves an entry: every operation of the document is asked for one."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from tests.inprocess import App, Reply, invoice, open_app

from signet.core.tenant import Scope
from signet.storage.tx import ReadTx

pytestmark = pytest.mark.anyio

KEYS: Final = {"root": {"tenant": "ops", "scopes": list(Scope)}}
_SCHEMA: Final = {"type": "object", "properties": {"a": {"type": "string"}}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a recipe sends: the path's parameters, and a body where there is one."""

    body: object = None
    names: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """A gateway, and the document that describes it."""

    app: App
    directory: Path
    operations: Mapping[str, tuple[str, str]]

    async def send(self, operation: str, asked: Asked) -> Reply:
        """Carry out an operation of the document."""
        method, path = self.operations[operation]
        for name, value in (asked.names or {}).items():
            path = path.replace("{" + name + "}", value)
        body = b"" if asked.body is None else json.dumps(asked.body).encode()
        kind = [(b"content-type", b"application/json")] if body else []
        return await self.app.call(
            method, path, headers=[(b"x-signet-api-key", b"root"), *kind], body=body
        )

    async def done(self, operation: str, asked: Asked) -> Any:
        """Carry out an operation that must succeed, and return its answer."""
        reply = await self.send(operation, asked)
        assert reply.status < 300, f"{operation}: {reply.status} {reply.body!r}"
        return reply.json

    async def changes(self) -> list[dict[str, Any]]:
        """Every entry of a change that somebody with a key made, in all chains."""

        async def read(tx: ReadTx) -> list[bytes]:
            return await tx.all(bytes, "SELECT body FROM audit_entries ORDER BY tenant, seq")

        entries = [json.loads(b) for b in await self.app.gateway.database.read_current(read)]
        changes = [e for e in entries if e["before"] is not None or e["after"] is not None]
        return [e for e in changes if not e["actor"].startswith("_")]


Recipe = Callable[[Stage], Awaitable[Asked]]


async def _erase_payload(stage: Stage) -> Asked:
    reply = await stage.app.exchange(invoice(), api_key="root")
    return Asked(names={"cid": reply.json["receipt"]["cid"]})


async def _reload_reserved(stage: Stage) -> Asked:
    plan = {"acme": {"vex_reserved": 10, "fu_reserved": 10}}
    (stage.directory / "reserved.json").write_text(json.dumps(plan))
    return Asked()


async def _create_tenant(_stage: Stage) -> Asked:
    return Asked(body={"tenant": "initech"})


async def _change_tenant(stage: Stage) -> Asked:
    await stage.done("create_tenant", Asked(body={"tenant": "initech"}))
    return Asked(names={"tenant": "initech"}, body={"fallback_enabled": True})


async def _create_key(stage: Stage) -> Asked:
    await stage.done("create_tenant", Asked(body={"tenant": "initech"}))
    return Asked(body={"tenant": "initech"})


async def _of_a_key(stage: Stage, **body: object) -> Asked:
    made = await stage.done("create_key", await _create_key(stage))
    return Asked(names={"key_id": made["key_id"]}, body=body or None)


async def _rotate_key(stage: Stage) -> Asked:
    return await _of_a_key(stage, overlap_s=60)


async def _expire_key(stage: Stage) -> Asked:
    return await _of_a_key(stage, in_s=60)


async def _revoke_key(stage: Stage) -> Asked:
    return await _of_a_key(stage)


_TYPE: Final = {"kind": "types", "name": "initech.thing.v1"}


async def _register(_stage: Stage) -> Asked:
    return Asked(names=_TYPE, body=_SCHEMA)


def _deprecate(register: str) -> Recipe:
    async def recipe(stage: Stage) -> Asked:
        await stage.done(register, await _register(stage))
        return Asked(names=_TYPE, body={"detail": "use v2"})

    return recipe


def _restore(register: str, deprecate: str) -> Recipe:
    async def recipe(stage: Stage) -> Asked:
        await stage.done(deprecate, await _deprecate(register)(stage))
        return Asked(names=_TYPE)

    return recipe


RECIPES: Final[Mapping[str, Recipe]] = {
    "erase_payload": _erase_payload,
    "reload_reserved": _reload_reserved,
    "create_tenant": _create_tenant,
    "change_tenant": _change_tenant,
    "create_key": _create_key,
    "rotate_key": _rotate_key,
    "expire_key": _expire_key,
    "revoke_key": _revoke_key,
    "register": _register,
    "register_global": _register,
    "deprecate": _deprecate("register"),
    "deprecate_global": _deprecate("register_global"),
    "restore": _restore("register", "deprecate"),
    "restore_global": _restore("register_global", "deprecate_global"),
}
"""How each operation that changes something is asked so that it does change something."""

CHANGES_NOTHING: Final = {
    "exchange": "its entry is committed with its receipt",
    "dry_run": "it shows what a payload would become",
}
"""Operations that are no reading and no change, and why."""


async def test_every_change_leaves_an_entry(tmp_path: Path) -> None:
    """Whatever the document offers beyond reading has a recipe here, and one call of it leaves one
    entry of the change that names the key that acted."""
    recipes = await _needed(tmp_path / "document")
    for operation in recipes:
        directory = tmp_path / operation
        async with _open(directory) as app:
            stage = Stage(app, directory, await _operations(app))
            asked = await RECIPES[operation](stage)
            before = await stage.changes()
            await stage.done(operation, asked)
            left = [entry for entry in await stage.changes() if entry not in before]
            assert len(left) == 1, f"{operation} left {left}"
            [entry] = left
            assert entry["actor"].startswith("env_"), operation
            assert entry["object"], operation
            assert "." in entry["action"], operation


async def test_a_refused_change_leaves_none(tmp_path: Path) -> None:
    """A change that did not happen is an attempt, and no entry says that anything changed."""
    async with _open(tmp_path) as app:
        stage = Stage(app, tmp_path, await _operations(app))
        (tmp_path / "reserved.json").write_text("[]")
        before = await stage.changes()
        assert (await stage.send("reload_reserved", Asked())).status == 409
        assert (
            await stage.send("erase_payload", Asked(names={"cid": "sha256:" + "0" * 64}))
        ).status == 404
        assert await stage.changes() == before


async def _needed(directory: Path) -> list[str]:
    """The operations of the document that may change something; each must have a recipe."""
    async with _open(directory) as app:
        operations = await _operations(app)
    changing = {
        name for name, (method, _) in operations.items() if method != "GET"
    } - CHANGES_NOTHING.keys()
    assert changing <= RECIPES.keys(), f"write a recipe for {changing - RECIPES.keys()}"
    return sorted(changing)


async def _operations(app: App) -> dict[str, tuple[str, str]]:
    """Each operation of the document: its method and its path."""
    document = (await app.get("/openapi.json")).json
    return {
        described["operationId"]: (method.upper(), path)
        for path, methods in document["paths"].items()
        for method, described in methods.items()
        if isinstance(described, dict) and "operationId" in described
    }


def _open(directory: Path) -> Any:
    directory.mkdir(exist_ok=True)
    reserved = directory / "reserved.json"
    reserved.write_text("{}")
    return open_app(directory, keys=KEYS, SP_RESERVED_CONFIG=str(reserved))
