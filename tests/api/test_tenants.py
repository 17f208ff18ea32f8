"""Tenants and API keys, made and changed while the gateway serves."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.faults.durability import EngineName, place
from tests.inprocess import App, Reply, invoice, open_app

from signet.cli.demo.stripe_double.ledger import Ledger
from signet.cli.demo.stripe_double.server import StripeDouble
from signet.storage import tenants as stored
from signet.storage.tenants import StoredKey
from signet.storage.tx import ReadTx

pytestmark = pytest.mark.anyio

TENANTS = "/v1/admin/tenants"
KEYS = "/v1/admin/keys"
FOLLOWS_S = 240.0
PEPPER = "A" * 43 + "="
OTHER_PEPPER = "B" * 42 + "A="


async def made(app: App, tenant: str = "initech", **members: object) -> dict[str, Any]:
    """Make a tenant."""
    reply = await app.ask("POST", TENANTS, {"tenant": tenant, **members})
    assert reply.status == 201, reply.body
    return reply.json


async def issued(app: App, tenant: str = "initech", **members: object) -> dict[str, Any]:
    """Make a key, its text included."""
    reply = await app.ask("POST", KEYS, {"tenant": tenant, **members})
    assert reply.status == 201, reply.body
    assert reply.header("cache-control") == "no-store"
    return reply.json


async def status(app: App, key: str) -> int:
    """What an exchange with this key is answered with."""
    return (await app.exchange(invoice(), api_key=key)).status


class TestTenants:
    """`/v1/admin/tenants`."""

    async def test_one_is_made_and_serves(self, app: App) -> None:
        """A new tenant is there with its defaults, and its first key exchanges at once."""
        tenant = await made(app, fu_monthly_limit=7)
        assert tenant["source"] == "database"
        assert (tenant["fu_monthly_limit"], tenant["allowlist"]) == (7, [])
        assert (await app.get(f"{TENANTS}/initech", api_key="admin-key")).json == tenant
        key = await issued(app)
        reply = await app.exchange(invoice(trace_id="t"), api_key=key["key"])
        assert reply.status == 200
        assert reply.json["receipt"]["tenant"] == "initech"
        assert len(await app.verified("t", api_key=key["key"])) == 1

    @pytest.mark.parametrize(
        ("body", "code", "pointer"),
        [
            (b"{", "invalid_json", "/"),
            (b"[]", "tenant_invalid", ""),
            ({}, "tenant_invalid", "/tenant"),
            ({"tenant": "_system"}, "tenant_invalid", "/tenant"),
            ({"tenant": "a/b"}, "tenant_invalid", "/tenant"),
            ({"tenant": 1}, "tenant_invalid", "/tenant"),
            ({"tenant": "a", "colour": 1}, "tenant_invalid", "/colour"),
            ({"tenant": "a", "scopes": []}, "tenant_invalid", "/scopes"),
            ({"tenant": "a", "sealed": None}, "tenant_invalid", "/sealed"),
            ({"tenant": "a", "fu_monthly_limit": -1}, "tenant_invalid", "/fu_monthly_limit"),
            ({"tenant": "a", "allowlist": ["ok.example", "a b"]}, "tenant_invalid", "/allowlist/1"),
            ({"tenant": "a", "allowlist": [{"port": 1}]}, "tenant_invalid", "/allowlist/0"),
            ({"tenant": "a", "stripe_item_vex": "si\0"}, "tenant_invalid", "/stripe_item_vex"),
            ({"tenant": "a", "stripe_item_fu": "si\n"}, "tenant_invalid", "/stripe_item_fu"),
        ],
    )
    async def test_what_is_no_tenant(self, app: App, body: object, code: str, pointer: str) -> None:
        """Each fault has its place, and nothing is made."""
        reply = await app.ask("POST", TENANTS, body)
        assert (reply.status, reply.code) == (400, code)
        assert [fault["pointer"] for fault in reply.json["faults"]][:1] == (
            [pointer] if code != "invalid_json" else [reply.json["faults"][0]["pointer"]]
        )
        listed = (await app.get(TENANTS, api_key="admin-key")).json["tenants"]
        assert all(tenant["source"] == "settings" for tenant in listed)

    async def test_an_id_is_given_once(self, app: App) -> None:
        """Neither the database's nor the settings' tenants can be described a second time."""
        await made(app)
        for tenant, code in (("initech", "tenant_exists"), ("acme", "configured_in_settings")):
            reply = await app.ask("POST", TENANTS, {"tenant": tenant, "sealed": True})
            assert (reply.status, reply.code) == (409, code)
        assert (await app.get(f"{TENANTS}/initech", api_key="admin-key")).json["sealed"] is False
        reply = await app.ask("PATCH", f"{TENANTS}/acme", {"sealed": True})
        assert (reply.status, reply.code) == (409, "configured_in_settings")

    async def test_a_change_replaces_what_it_names(self, app: App) -> None:
        """Members that are not named stay, null is the default again, a fault changes nothing."""
        await made(app, allowlist=["a.example"], fu_monthly_limit=5)
        path = f"{TENANTS}/initech"
        changed = (await app.ask("PATCH", path, {"allowlist": None, "sealed": True})).json
        assert (changed["allowlist"], changed["sealed"], changed["fu_monthly_limit"]) == (
            *([], True, 5),
        )
        for bad in ({"tenant": "x"}, {"colour": None}, {"allowlist": ["a b"]}, []):
            assert (await app.ask("PATCH", path, bad)).code == "tenant_invalid"
        assert (await app.get(path, api_key="admin-key")).json == changed
        gone = await app.ask("PATCH", f"{TENANTS}/nobody", {"sealed": True})
        assert (gone.status, gone.code) == (404, "not_found")

    async def test_a_changed_list_holds_for_keys_in_use(self, app: App) -> None:
        """The policy in receipts is another as soon as the list is; nothing of it is kept."""
        await made(app, allowlist=["a.example"])
        key = (await issued(app))["key"]
        hashes: list[str] = []
        for allowlist in (None, ["b.example"], ["a.example"]):
            if allowlist is not None:
                await app.ask("PATCH", f"{TENANTS}/initech", {"allowlist": allowlist})
            reply = await app.exchange(invoice(), api_key=key)
            hashes.append(reply.json["policy"]["policy_hash"])
        assert hashes[0] == hashes[2] != hashes[1]

    async def test_lists_are_paged(self, app: App) -> None:
        """Pages of any size are all tenants, in order, those of the settings among them."""
        for tenant in ("aaa", "plain.2", "zzz"):
            await made(app, tenant)
        found: list[str] = []
        path = f"{TENANTS}?limit=2"
        while True:
            page = (await app.get(path, api_key="admin-key")).json
            found += [tenant["tenant"] for tenant in page["tenants"]]
            if page["next"] is None:
                break
            path = f"{TENANTS}?limit=2&after={page['next']}"
        assert found == sorted(found)
        assert {"aaa", "acme", "globex", "plain", "plain.2", "zzz"} <= set(found)
        for query in ("limit=0", "limit=201", "limit=x", "after=%20", "after="):
            reply = await app.get(f"{TENANTS}?{query}", api_key="admin-key")
            assert (reply.status, reply.code) == (400, "parameter_invalid")

    async def test_the_administrator_s_alone(self, app: App) -> None:
        """A key with every other scope does not come near."""
        await made(app)
        key = (await issued(app))["key"]
        for method, path, body in (
            ("GET", TENANTS, None),
            ("POST", TENANTS, {"tenant": "b"}),
            ("PATCH", f"{TENANTS}/initech", {"sealed": True}),
            ("GET", KEYS, None),
            ("POST", KEYS, {"tenant": "initech", "scopes": ["admin"]}),
        ):
            reply = await app.ask(method, path, body, api_key=key)
            assert (reply.status, reply.code) == (403, "scope_missing")


class TestKeys:
    """`/v1/admin/keys`."""

    async def test_only_a_hash_is_kept(self, app: App) -> None:
        """The key is told once; the database has its SHA-256, and no answer has it again."""
        await made(app)
        key = await issued(app, label="batch")
        text, key_id = key.pop("key"), key["key_id"]
        assert re.fullmatch(r"sp_live_[0-9a-f]{16}_[0-9a-f]{64}", text)
        assert text.split("_")[2] == key_id.removeprefix("key_")
        row = await stored_key(app, key_id)
        assert row.hash == hashlib.sha256(text.encode()).digest()
        assert (await app.get(f"{KEYS}/{key_id}", api_key="admin-key")).json == key
        listed = await app.get(f"{KEYS}?tenant=initech", api_key="admin-key")
        assert listed.json == {"keys": [key], "next": None}
        secret = text.rpartition("_")[2].encode()
        assert secret not in listed.body
        assert secret not in await audit_bytes(app)

    async def test_a_key_of_a_configured_tenant(self, app: App) -> None:
        """Keys may be made at run time for a tenant of the settings; its description holds."""
        key = (await issued(app, "vault"))["key"]
        reply = await app.exchange(invoice(), api_key=key)
        assert "nonce" in reply.json["receipt"]
        assert reply.json["receipt"]["tenant"] == "vault"

    async def test_an_administrator_s_key(self, app: App) -> None:
        """A key of `_system` administers, exchanges for nobody, and has no other scope."""
        key = (await issued(app, "_system", scopes=["admin"]))["key"]
        assert (await app.ask("POST", TENANTS, {"tenant": "a"}, api_key=key)).status == 201
        assert (await app.exchange(invoice(), api_key=key)).code == "scope_missing"
        for members in ({}, {"scopes": ["admin", "exchange"]}, {"scopes": []}):
            reply = await app.ask("POST", KEYS, {"tenant": "_system", **members})
            assert (reply.status, reply.code) == (400, "key_invalid")
            assert reply.json["faults"][0]["pointer"] == "/scopes"

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({}, "/tenant"),
            ({"tenant": "nobody"}, "/tenant"),
            ({"tenant": "_other"}, "/tenant"),
            ({"tenant": "acme", "scopes": ["root"]}, "/scopes"),
            ({"tenant": "acme", "sealed": True}, "/sealed"),
            ({"tenant": "acme", "label": "a\nb"}, "/label"),
            ({"tenant": "acme", "label": "a" * 101}, "/label"),
            ({"tenant": "acme", "expires_in_s": 0}, "/expires_in_s"),
            ({"tenant": "acme", "expires_in_s": 10**10}, "/expires_in_s"),
            ({"tenant": "acme", "key_allowlist": ["a b"]}, "/key_allowlist/0"),
            ({"tenant": "acme", "key_fu_monthly_limit": -1}, "/key_fu_monthly_limit"),
        ],
    )
    async def test_what_is_no_key(self, app: App, body: object, pointer: str) -> None:
        """Each fault has its place, and no key is made."""
        reply = await app.ask("POST", KEYS, body)
        assert (reply.status, reply.code) == (400, "key_invalid")
        assert [fault["pointer"] for fault in reply.json["faults"]] == [pointer]
        listed = (await app.get(KEYS, api_key="admin-key")).json["keys"]
        assert all(key["source"] == "settings" for key in listed)

    async def test_a_key_narrows_its_tenant(self, app: App) -> None:
        """Scopes and list of the key hold beside those of its tenant."""
        await made(app, allowlist=["a.example"])
        wide = (await issued(app))["key"]
        narrow = (await issued(app, scopes=["exchange"], key_allowlist=[]))["key"]
        one = await app.exchange(invoice(trace_id="t"), api_key=wide)
        other = await app.exchange(invoice(), api_key=narrow)
        assert one.json["policy"]["policy_hash"] != other.json["policy"]["policy_hash"]
        assert (await app.get("/v1/receipts/chain/t", api_key=wide)).status == 200
        assert (await app.get("/v1/receipts/chain/t", api_key=narrow)).code == "scope_missing"

    async def test_rotation_overlaps(self, app: App) -> None:
        """Both keys serve until the overlap is over; the line and the members go on."""
        await made(app)
        old = await issued(app, scopes=["exchange"], key_fu_monthly_limit=9, label="batch")
        path = f"{KEYS}/{old['key_id']}"
        reply = await app.ask("POST", f"{path}/rotate", {"overlap_s": 3600})
        assert reply.status == 201
        new = reply.json
        assert (new["scopes"], new["key_fu_monthly_limit"], new["label"]) == (
            *(["exchange"], 9, "batch"),
        )
        assert new["succeeds"] == old["key_id"]
        assert new["expires_at"] is None
        assert [await status(app, key["key"]) for key in (old, new)] == [200, 200]
        ending = (await app.get(path, api_key="admin-key")).json
        assert ending["rotated_to"] == new["key_id"]
        assert ending["expires_at"] is not None
        again = await app.ask("POST", f"{path}/rotate", {})
        assert (again.status, again.code) == (409, "key_rotated")
        assert new["key_id"] in again.json["detail"]
        third = (await app.ask("POST", f"{KEYS}/{new['key_id']}/rotate", {"overlap_s": 0})).json
        assert third["succeeds"] == old["key_id"]
        assert [await status(app, key["key"]) for key in (old, new, third)] == [200, 401, 200]

    async def test_a_lost_successor_is_revoked_and_made_again(self, app: App) -> None:
        """Whose answer was lost rotates once more, after revoking what nobody holds."""
        await made(app)
        old = await issued(app)
        lost = (await app.ask("POST", f"{KEYS}/{old['key_id']}/rotate", {})).json
        await app.ask("POST", f"{KEYS}/{lost['key_id']}/revoke")
        again = await app.ask("POST", f"{KEYS}/{old['key_id']}/rotate", {})
        assert again.status == 201
        assert again.json["rotated_to"] is None
        assert await status(app, again.json["key"]) == 200
        assert await status(app, lost["key"]) == 401

    async def test_a_key_lives_no_longer_than_it_was_told(self, app: App) -> None:
        """An end can come sooner and never later; a successor lives as long as its predecessor."""
        await made(app)
        old = await issued(app, expires_in_s=1000)
        path = f"{KEYS}/{old['key_id']}"
        later = (await app.ask("POST", f"{path}/expire", {"in_s": 5000})).json
        assert later["expires_at"] == old["expires_at"]
        new = (await app.ask("POST", f"{path}/rotate", {"overlap_s": 5000})).json
        assert (await app.get(path, api_key="admin-key")).json["expires_at"] == old["expires_at"]
        life = await stored_key(app, new["key_id"])
        assert life.expires_us == life.created_us + 1_000_000_000
        assert await status(app, old["key"]) == 200
        ended = (await app.ask("POST", f"{path}/expire", {"in_s": 0})).json
        assert ended["state"] == "expired"
        assert await status(app, old["key"]) == 401
        for action in ("rotate", "expire"):
            reply = await app.ask(
                "POST", f"{path}/{action}", {"in_s": 1} if action == "expire" else {}
            )
            assert (reply.status, reply.code) == (409, "key_ended")

    async def test_revoked_is_for_good(self, app: App) -> None:
        """The next call is refused, revoking again changes nothing, and nothing brings it back."""
        await made(app)
        key = await issued(app)
        assert await status(app, key["key"]) == 200
        first = await app.ask("POST", f"{KEYS}/{key['key_id']}/revoke")
        assert first.json["state"] == "revoked"
        assert await status(app, key["key"]) == 401
        again = await app.ask("POST", f"{KEYS}/{key['key_id']}/revoke")
        assert (again.status, again.body) == (200, first.body)
        assert (await app.ask("POST", f"{KEYS}/{key['key_id']}/rotate", {})).code == "key_ended"

    async def test_the_settings_keys_are_shown_and_not_touched(self, app: App) -> None:
        """They are in the list, without any of their text, and are changed where they are."""
        listed = await app.get(KEYS, api_key="admin-key")
        assert b"acme-key" not in listed.body
        ours = [key for key in listed.json["keys"] if key["tenant"] == "acme"]
        assert len(ours) == 4
        name = ours[0]["key_id"]
        assert (await app.get(f"{KEYS}/{name}", api_key="admin-key")).json == ours[0]
        for action, body in (("rotate", {}), ("expire", {"in_s": 0}), ("revoke", None)):
            reply = await app.ask("POST", f"{KEYS}/{name}/{action}", body)
            assert (reply.status, reply.code) == (409, "configured_in_settings")

    async def test_unknown_keys(self, app: App) -> None:
        """A key that is not there, and what cannot be one, are not found."""
        for name in ("key_0123456789abcdef", "key_x", "env_0123456789abcdef", "sp_live_x"):
            for method, action, body in (
                ("GET", "", None),
                ("POST", "/rotate", {}),
                ("POST", "/expire", {"in_s": 0}),
                ("POST", "/revoke", None),
            ):
                reply = await app.ask(method, f"{KEYS}/{name}{action}", body)
                assert (reply.status, reply.code) == (404, "not_found")

    async def test_keys_are_paged(self, app: App) -> None:
        """Pages of any size are all keys, once each."""
        await made(app)
        ids = {(await issued(app))["key_id"] for _ in range(5)}
        found: list[str] = []
        after = ""
        while True:
            page = (await app.get(f"{KEYS}?limit=3{after}", api_key="admin-key")).json
            found += [key["key_id"] for key in page["keys"]]
            if page["next"] is None:
                break
            after = f"&after={page['next']}"
        assert len(found) == len(set(found))
        assert ids <= set(found)
        assert any(key.startswith("env_") for key in found)
        reply = await app.get(f"{KEYS}?tenant=_other", api_key="admin-key")
        assert reply.code == "parameter_invalid"

    async def test_near_misses(self, app: App) -> None:
        """A right public id with any other secret is nobody."""
        await made(app)
        key = (await issued(app))["key"]
        last = "1" if key[-1] == "0" else "0"
        for wrong in (
            key[:-1] + last,
            key[:-1],
            key + "0",
            key.upper(),
            key.replace("sp_live", "sp"),
        ):
            assert await status(app, wrong) == 401


class TestPepper:
    """`SP_KEY_PEPPER`."""

    async def test_keys_outlive_a_change_of_pepper(self, tmp_path: Path) -> None:
        """The hash is another with a pepper; the pepper before still opens, and none does not."""
        keys: list[str] = []
        settings = (
            {},
            {"SP_KEY_PEPPER": PEPPER},
            {"SP_KEY_PEPPER": OTHER_PEPPER, "SP_KEY_PEPPER_PREVIOUS": PEPPER},
        )
        names: list[str | None] = []
        for environ in settings:
            async with open_app(tmp_path, **environ) as app:
                key = await issued(app, "acme")
                keys.append(key["key"])
                names.append(key["pepper"])
                row = await stored_key(app, key["key_id"])
                plain = hashlib.sha256(key["key"].encode()).digest()
                assert (row.hash == plain) == (not environ)
                assert [await status(app, text) for text in keys] == [200] * len(keys)
        assert names[0] is None
        assert len(set(names)) == 3
        async with open_app(tmp_path, SP_KEY_PEPPER=OTHER_PEPPER) as app:
            assert [await status(app, text) for text in keys] == [200, 401, 200]
            (unusable,) = app.gateway.keyring.unusable
            assert "SP_KEY_PEPPER" in unusable.detail


class TestBothPlaces:
    """A tenant that the settings and the database describe."""

    async def test_the_settings_count(self, tmp_path: Path) -> None:
        """Who moves a tenant from one to the other is never without it."""
        async with open_app(
            tmp_path, keys={"admin-key": {"tenant": "o", "scopes": ["admin"]}}
        ) as app:
            await made(app, "acme", sealed=True)
            key = (await issued(app, "acme"))["key"]
            sealed = await app.exchange(invoice(), api_key=key)
            assert "nonce" in sealed.json["receipt"]
        async with open_app(tmp_path) as app:
            open_ = await app.exchange(invoice(), api_key=key)
            assert open_.status == 200
            (unusable,) = app.gateway.keyring.unusable
            assert unusable.subject == "tenant acme"
            listed = (await app.get(TENANTS, api_key="admin-key")).json["tenants"]
            assert [t["source"] for t in listed if t["tenant"] == "acme"] == ["settings"]

    async def test_a_key_of_a_tenant_that_is_gone(self, tmp_path: Path) -> None:
        """Once nothing describes its tenant, a key opens nothing; it does again when it is back."""
        async with open_app(tmp_path) as app:
            key = (await issued(app, "acme"))["key"]
        async with open_app(
            tmp_path, keys={"admin-key": {"tenant": "o", "scopes": ["admin"]}}
        ) as app:
            assert await status(app, key) == 401
            await made(app, "acme")
            assert await status(app, key) == 200


async def test_every_change_is_in_the_audit_log(app: App) -> None:
    """Who did what to which object, before and after; a refused change leaves no entry."""
    await made(app)
    key = await issued(app)
    await app.ask("PATCH", f"{TENANTS}/initech", {"sealed": True})
    new = (await app.ask("POST", f"{KEYS}/{key['key_id']}/rotate", {})).json
    await app.ask("POST", f"{KEYS}/{new['key_id']}/expire", {"in_s": 9})
    for _ in range(2):
        await app.ask("POST", f"{KEYS}/{new['key_id']}/revoke")
    await app.ask("POST", TENANTS, {"tenant": "initech"})
    assert await app.gateway.database.read_current(actions) == [
        "tenant.create",
        "key.create",
        "tenant.change",
        "key.rotate",
        "key.expire",
        "key.revoke",
    ]
    told = await audit_bytes(app)
    assert told.count(b'"actor":"env_') >= 6
    changes = [json.loads(body) for body in told.splitlines() if b"key.revoke" in body]
    assert [(c["before"]["revoked_us"], c["address"]) for c in changes] == [(None, "127.0.0.1")]
    assert changes[0]["after"]["revoked_us"] is not None
    assert changes[0]["request_id"]
    assert key["key"].encode() not in told


async def actions(tx: ReadTx) -> list[str]:
    """What the audit log says was done to a tenant."""
    return await tx.all(
        str, "SELECT action FROM audit_entries WHERE tenant = 'initech' AND action LIKE '%.%'"
        " AND action NOT LIKE '%/%' ORDER BY seq"
    )  # fmt: skip


async def audit_bytes(app: App) -> bytes:
    """Everything that the audit log holds."""

    async def bodies(tx: ReadTx) -> list[bytes]:
        return await tx.all(bytes, "SELECT body FROM audit_entries ORDER BY tenant, seq")

    return b"\n".join(await app.gateway.database.read_current(bodies))


async def stored_key(app: App, key_id: str) -> StoredKey:
    """A key's row."""
    public = key_id.removeprefix("key_")
    row = await app.gateway.database.read_current(stored.find_key, public)
    assert row is not None
    return row


async def test_a_bad_stripe_item_stops_no_start(tmp_path: Path) -> None:
    """What somebody made at run time is refused its route at Stripe, and nobody else a start."""
    async with StripeDouble(Ledger(lambda: 1_800_000_000)).serving() as stripe:
        settings = {"SP_STRIPE_API_KEY": "sk_test_double", "SP_STRIPE_BASE_URL": stripe.url}
        async with open_app(tmp_path, **settings) as app:
            await made(app, stripe_item_vex="si_nowhere")
            key = (await issued(app))["key"]
        async with open_app(tmp_path, **settings) as app:
            assert await status(app, key) == 200


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
async def test_what_can_be_nobody_s_id(engine: EngineName, tmp_path: Path) -> None:
    """Asking for, or changing, what no tenant can be called is 404 and not a failure of the
    database: PostgreSQL takes no NUL in a text."""
    with place(engine, tmp_path) as at:
        async with open_app(tmp_path, **at.settings) as app:
            for id in ("%00", "a%00b", "%ED%A0%80", "%FF", "_system", "a" * 64):
                for method, body in (("GET", None), ("PATCH", {"sealed": True})):
                    reply = await app.ask(method, f"{TENANTS}/{id}", body)
                    assert (id, reply.status, reply.code) == (id, 404, "not_found")


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
async def test_two_gateways_share_one_keyring(engine: EngineName, tmp_path: Path) -> None:
    """What one gateway's administrator makes, changes and revokes, the other follows by itself."""
    with place(engine, tmp_path) as at:
        settings = {"SP_KEY_PEPPER": PEPPER, **at.settings}
        async with (
            open_app(tmp_path / "one", **settings) as one,
            open_app(tmp_path / "other", **settings) as other,
        ):
            await made(one)
            key = await issued(one)
            await until(other, key["key"], lambda reply: reply.status == 200)
            changed = await other.ask("PATCH", f"{TENANTS}/initech", {"sealed": True})
            assert changed.status == 200
            await until(one, key["key"], lambda reply: "nonce" in reply.json["receipt"])
            await other.ask("POST", f"{KEYS}/{key['key_id']}/revoke")
            assert await status(other, key["key"]) == 401
            await until(one, key["key"], lambda reply: reply.status == 401)


async def until(app: App, key: str, holds: Callable[[Reply], bool]) -> None:
    """Exchange until the answer is as wanted: a gateway looks every second, however slow it is."""
    async with asyncio.timeout(FOLLOWS_S):
        # The condition is another gateway's state; there is no event to wait for.
        while not holds(await app.exchange(invoice(), api_key=key, key=secrets.token_hex(8))):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
