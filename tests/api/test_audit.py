"""The audit log of a whole gateway: who did what, and what came of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.inprocess import App, invoice, open_app
from tests.storage.ledger import entries_of

pytestmark = pytest.mark.anyio


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    """A gateway on an empty database."""
    async with open_app(tmp_path) as opened:
        yield opened


async def told(app: App, tenant: str = "acme") -> list[dict[str, Any]]:
    """A tenant's entries, with what still waited."""
    await app.flush_audit()
    return await entries_of(app.gateway.database, tenant)


class TestExchanges:
    """Every accepted exchange has an entry of its own."""

    async def test_an_exchange_has_one_entry(self, app: App) -> None:
        """It names key, trace, result and receipt, and came with the receipt's own commit."""
        reply = await app.exchange(
            invoice(trace_id="t"), headers=[(b"x-request-id", b"my-request")]
        )
        assert reply.header("x-request-id") == "my-request"
        [entry] = await entries_of(app.gateway.database, "acme")  # without a flush
        assert entry["action"] == "exchange"
        assert entry["object"] == "t"
        assert entry["code"] == "ok"
        assert entry["receipt_hash"] == reply.json["receipt"]["receipt_hash"]
        assert entry["actor"].startswith("env_")
        assert entry["request_id"] == "my-request"
        assert entry["address"] == "127.0.0.1"
        assert entry["ts"] == reply.json["receipt"]["ts"]
        assert entry["latency_us"] >= 0
        assert len(await told(app)) == 1

    async def test_a_refused_exchange_has_one_entry(self, app: App) -> None:
        """Its code is the problem's, and its receipt is named."""
        reply = await app.exchange(invoice({"amount": "x"}))
        [entry] = await told(app)
        assert entry["code"] == reply.code
        assert entry["receipt_hash"] == reply.json["receipt"]["receipt_hash"]

    async def test_a_replay_is_an_attempt(self, app: App) -> None:
        """The replay has an entry but no receipt of its own."""
        for _ in range(2):
            await app.exchange(invoice(trace_id="t"), key="k")
        first, again = await told(app)
        assert (first["code"], again["code"]) == ("ok", "replayed")
        assert (again["object"], again["receipt_hash"]) == ("t", None)

    async def test_no_payload_is_in_the_log(self, app: App) -> None:
        """Neither values nor keys are in any entry, whatever came of the request."""
        await app.exchange(invoice())
        await app.exchange(invoice({"invoice_id": 5, "customer_name": "ACME GmbH"}))
        await app.exchange(b'{"payload": "ACME GmbH"}')
        log = json.dumps(await told(app))
        assert len(await told(app)) == 3
        assert "ACME GmbH" not in log
        assert "acme-key" not in log


class TestAttempts:
    """Whatever else somebody with a key asks."""

    async def test_reads_and_refusals_are_told(self, app: App) -> None:
        """Each with the operation's name, its object and how it ended."""
        await app.get("/v1/receipts/chain/nowhere")
        await app.get("/v1/usage")
        await app.get("/v1/usage", api_key="agent-key")
        await app.exchange(b"no json")
        entries = [(e["action"], e["object"], e["code"]) for e in await told(app)]
        assert entries == [
            ("get_chain", "nowhere", "not_found"),
            ("get_usage", None, "ok"),
            ("get_usage", None, "scope_missing"),
            ("exchange", None, "invalid_json"),
        ]

    async def test_a_key_in_a_path_is_not_told(self, app: App) -> None:
        """Who asks for a key by its text, and not by its id, does not put it into the log for
        good; nor does who mistakes a key, also one of the settings, for a trace."""
        made = await app.ask("POST", "/v1/admin/keys", {"tenant": "acme"}, api_key="admin-key")
        key = made.json["key"]
        for path in (f"/v1/receipts/chain/{key}", "/v1/receipts/chain/at-acme-key-here"):
            assert (await app.get(path)).status == 404
        for method, path in (("GET", key), ("POST", f"{key}/revoke")):
            reply = await app.ask(method, f"/v1/admin/keys/{path}", api_key="admin-key")
            assert reply.status == 404
        entries = [*await told(app), *await told(app, "operator")]
        assert key not in json.dumps(entries)
        objects = [entry["object"] for entry in entries if entry["code"] == "not_found"]
        assert sorted(objects) == [*["[redacted]"] * 3, "at-[redacted]-here"]

    async def test_a_stranger_leaves_no_entry(self, app: App) -> None:
        """Without a good key there is nobody to tell of; metrics count them."""
        await app.get("/v1/usage", api_key="nobody")
        await app.get("/v1/usage", api_key=None)
        await app.get("/healthz")
        assert await told(app) == []

    async def test_each_tenant_has_its_own_chain(self, app: App) -> None:
        """What one tenant does is not in another's log."""
        await app.get("/v1/usage")
        await app.get("/v1/usage", api_key="globex-key")
        assert len(await told(app)) == len(await told(app, "globex")) == 1


async def test_behind_a_proxy_callers_have_their_own_address(tmp_path: Path) -> None:
    """An entry has the address that the named proxy heard, and what a stranger says is no address
    of anybody."""
    async with open_app(tmp_path, SP_TRUSTED_PROXIES="10.0.0.0/8, 127.0.0.1") as app:
        headers = [(b"x-forwarded-for", b"203.0.113.9, 192.0.2.7")]
        await app.exchange(invoice(), headers=headers)
        key = (b"x-signet-api-key", b"acme-key")
        await app.call("GET", "/v1/usage", headers=[*headers, key], client=("198.51.100.1", 1))
        assert [e["address"] for e in await told(app)] == ["192.0.2.7", "198.51.100.1"]


async def test_addresses_can_be_switched_off(tmp_path: Path) -> None:
    """With SP_AUDIT_ADDRESSES=off no entry holds an address."""
    async with open_app(tmp_path, SP_AUDIT_ADDRESSES="off") as app:
        await app.exchange(invoice())
        await app.get("/v1/usage")
        assert [e["address"] for e in await told(app)] == [None, None]


async def test_a_stop_writes_what_waits(tmp_path: Path) -> None:
    """Attempts that waited when the gateway stopped are in the log at the next start."""
    async with open_app(tmp_path) as app:
        for number in range(5):
            await app.get(f"/v1/receipts/chain/t{number}")
    async with open_app(tmp_path) as app:
        objects = [e["object"] for e in await entries_of(app.gateway.database, "acme")]
    assert objects == [f"t{number}" for number in range(5)]


class TestReading:
    """Whoever may see the log."""

    async def test_a_tenant_reads_its_own(self, app: App) -> None:
        """The entries are those of the chain, with the next page and the end of the chain."""
        for _ in range(3):
            await app.exchange(invoice())
        reply = await app.get("/v1/audit?limit=2", api_key="auditor-key")
        assert reply.status == 200
        chain = await entries_of(app.gateway.database, "acme")
        assert reply.json["tenant"] == "acme"
        assert reply.json["entries"] == chain[:2]
        assert reply.json["next_after"] == 2
        assert reply.json["head"] == {"seq": 3, "entry_hash": chain[2]["entry_hash"]}
        more = await app.get("/v1/audit?after=2&action=exchange&from=2020-01-01&to=9000-01-01")
        assert [e["seq"] for e in more.json["entries"]] == [3]
        assert more.json["next_after"] is None

    async def test_another_tenant_s_is_not_there(self, app: App) -> None:
        """No parameter and no path shows another tenant's entries to a tenant's key."""
        await app.exchange(invoice())
        reply = await app.get("/v1/audit?tenant=acme", api_key="globex-key")
        assert (reply.json["tenant"], reply.json["entries"]) == ("globex", [])
        assert reply.json["head"] is None
        assert (await app.get("/v1/admin/audit/acme", api_key="globex-key")).status == 403
        assert (await app.get("/v1/audit", api_key="agent-key")).code == "scope_missing"

    async def test_the_operator_reads_anybody_s(self, tmp_path: Path) -> None:
        """An admin key reads every tenant's chain and the deployment's own."""
        keys = {"acme-key": {"tenant": "acme"}, "root": {"tenant": "ops", "scopes": ["admin"]}}
        async with open_app(tmp_path, keys=keys) as app:
            await app.exchange(invoice())
            reply = await app.get("/v1/admin/audit/acme", api_key="root")
            assert len(reply.json["entries"]) == 1
            system = await app.get("/v1/admin/audit/_system", api_key="root")
            assert (system.status, system.json["tenant"]) == (200, "_system")
            assert (await app.get("/v1/audit", api_key="root")).code == "scope_missing"

    @pytest.mark.parametrize(
        "query",
        [
            *(
                "limit=0",
                "limit=1001",
                "limit=x",
                "limit=-1",
                "after=-1",
                "after=99999999999999999",
            ),
            *("from=yesterday", "to=", "from=2026-13-01", "action=A%20B", "action="),
        ],
    )
    async def test_what_cannot_be_read(self, app: App, query: str) -> None:
        """A malformed parameter is said to be one."""
        reply = await app.get(f"/v1/audit?{query}")
        assert (reply.status, reply.code) == (400, "parameter_invalid")

    @pytest.mark.parametrize("tenant", ["_other", "-", "a%20b", "%00", "x" * 64])
    async def test_what_is_no_tenant(self, tmp_path: Path, tenant: str) -> None:
        """A name that no tenant can have is malformed."""
        async with open_app(tmp_path, keys={"root": {"tenant": "ops", "scopes": ["admin"]}}) as app:
            reply = await app.get(f"/v1/admin/audit/{tenant}", api_key="root")
            assert (reply.status, reply.code) == (400, "parameter_invalid")
