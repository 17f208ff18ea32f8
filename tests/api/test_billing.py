"""What a tenant and an administrator see of the money: usage, preview, statements, events."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from tests.billing import Told
from tests.inprocess import App, Reply, invoice, key_for, open_app, signing_key
from tests.month import now_us, steady_clock  # noqa: F401 - a fixture
from tests.storage.ledger import commit, pending

from signet.api import schemas
from signet.core.billing import period_of
from signet.core.ids import TenantId
from signet.core.pricing import load_reserved, metered_only
from signet.gateway.metering import Metering
from signet.gateway.statements import Statements
from signet.receipts.errors import VerificationError
from signet.receipts.merkle import MerkleTree
from signet.receipts.statement import leaf
from signet.receipts.verify import verify, verify_statement

pytestmark = pytest.mark.anyio

ACME = TenantId("acme")
CUSTOMER: Mapping[str, object] = {"tenant": "acme", "fu_monthly_limit": 1000}
KEYS: Mapping[str, object] = {
    "acme-key": CUSTOMER,
    "globex-key": {"tenant": "globex"},
    "exchange-key": {**CUSTOMER, "scopes": ["exchange"]},
    "auditor-key": {**CUSTOMER, "scopes": ["receipts.read"]},
    "money-key": {**CUSTOMER, "scopes": ["billing.read"]},
    "admin-key": {"tenant": "operator", "scopes": ["admin"]},
}
PLAN: Mapping[str, object] = {
    "vex_reserved": 4,
    "fu_reserved": 1000,
    "vex_overage_tiers": [
        {"threshold": 2, "price_per_unit": 0.5},
        {"threshold": 9, "price_per_unit": 0.25},
    ],
}
READS = (
    "/v1/usage",
    "/v1/billing/preview",
    "/v1/billing/statements",
    "/v1/billing/statements/2026-11",
    "/v1/billing/statements/2026-11/receipts",
    "/v1/events",
)


@dataclass
class Deployment:
    """A gateway, and the hands that count and close when told, as its workers do by the clock."""

    app: App
    reserved: Path
    clock: Callable[[], int] = now_us
    made: int = 0

    @property
    def period(self) -> str:
        """The month that it is."""
        return period_of(self.clock(), "UTC").name

    async def exchange(self, count: int, *, api_key: str = "acme-key") -> None:
        """Make exchanges that are allowed, and count them."""
        for _ in range(count):
            assert (await self.app.exchange(invoice(), api_key=api_key)).status == 200
        await self.count()

    async def tokens(self, units: int) -> None:
        """Have tokens metered by a receipt of their own, as a fallback does, and count them."""
        self.made += 1
        await commit(
            self.app.gateway.database,
            pending(
                f"tokens-{self.made}",
                trace=f"tokens-{self.made}",
                ts_us=self.clock(),
                period=self.period,
                vex_units=0,
                fu_tokens=units,
                outcome="denied",
            ),
        )
        await self.count()

    async def count(self) -> None:
        """Count all that there is."""
        plans = load_reserved(self.reserved.read_bytes())
        metering = Metering(
            database=self.app.gateway.database,
            plan_of=lambda t: plans.get(t) or metered_only(t, vex_item=None, fu_item=None),
            fu_limit_of=lambda tenant: 1000 if tenant == ACME else None,
            observer=Told(),
            clock=self.clock,
            settle_us=0,
        )
        while await metering.count_once():
            pass

    async def close(self) -> bytes:
        """Close acme's month before its end."""
        statements = Statements(
            database=self.app.gateway.database,
            key_for=key_for,
            issuer="https://signet.test",
            clock=self.clock,
        )
        document = await statements.close(ACME, self.period)
        assert document is not None
        return document

    async def get(self, path: str, *, api_key: str = "acme-key") -> Reply:
        """Ask for something of acme's."""
        return await self.app.get(path, api_key=api_key)

    async def reload(self, query: str = "", *, api_key: str = "admin-key") -> Reply:
        """Ask for the reserved capacity to be read again."""
        headers = [(b"x-signet-api-key", api_key.encode())]
        return await self.app.call("POST", f"/v1/admin/reload-reserved{query}", headers=headers)


@pytest.fixture
async def deployment(
    tmp_path: Path,
    steady_clock: Callable[[], int],  # noqa: F811
) -> AsyncIterator[Deployment]:
    """A gateway with a plan for acme and none for globex."""
    reserved = tmp_path / "reserved.json"
    reserved.write_text(json.dumps({"acme": PLAN}))
    data = tmp_path / "data"
    async with open_app(data, keys=KEYS, SP_RESERVED_CONFIG=str(reserved)) as app:
        yield Deployment(app, reserved, steady_clock)


class TestScopes:
    """Who may ask."""

    @pytest.mark.parametrize("path", READS)
    async def test_reading_needs_its_scope(self, deployment: Deployment, path: str) -> None:
        """Without `billing.read` it is 403, without a key 401, and with it never either."""
        for key in ("exchange-key", "auditor-key", "admin-key"):
            reply = await deployment.get(path, api_key=key)
            assert (reply.status, reply.code) == (403, "scope_missing"), key
        assert (await deployment.app.get(path, api_key=None)).status == 401
        assert (await deployment.app.get(path, api_key="guessed")).status == 401
        assert (await deployment.get(path, api_key="money-key")).status in (200, 404)

    @pytest.mark.parametrize("key", ["acme-key", "money-key", "exchange-key"])
    async def test_the_reload_is_the_administrator_s(
        self, deployment: Deployment, key: str
    ) -> None:
        """No key of a tenant may change what tenants pay."""
        reply = await deployment.reload(api_key=key)
        assert (reply.status, reply.code) == (403, "scope_missing")


class TestUsage:
    """`GET /v1/usage`."""

    async def test_units_tokens_and_quota(self, deployment: Deployment) -> None:
        """It tells the month's units, of nobody else's."""
        await deployment.exchange(3)
        await deployment.exchange(1, api_key="globex-key")
        await deployment.tokens(70)
        reply = await deployment.get("/v1/usage")
        assert reply.status == 200
        jsonschema_rs.validate(dict(schemas.USAGE), reply.json)
        assert reply.json["vex"] == {"units": 3}
        assert reply.json["fu"]["units"] == 70
        assert reply.json["fu"]["quota"]["limit"] == 1000
        other = (await deployment.get("/v1/usage", api_key="globex-key")).json
        assert (other["tenant"], other["vex"]["units"], other["fu"]["units"]) == ("globex", 1, 0)
        assert other["fu"]["quota"] == {"limit": None, "used": 0, "reserved": 0, "left": None}

    async def test_months(self, deployment: Deployment) -> None:
        """Another month may be named, also one without any usage."""
        await deployment.exchange(1)
        named = await deployment.get(f"/v1/usage?period={deployment.period}")
        assert named.json["vex"] == {"units": 1}
        assert (await deployment.get("/v1/usage?period=2024-02")).json["vex"] == {"units": 0}

    @pytest.mark.parametrize(
        "period", ["2026-13", "2026-1", "x", "0000-01", "9999-12", "2026-11%00", "%EF%BC%92026-11"]
    )
    async def test_what_is_no_month(self, deployment: Deployment, period: str) -> None:
        """It is told as that."""
        reply = await deployment.get(f"/v1/usage?period={period}")
        assert (reply.status, reply.code) == (400, "parameter_invalid")


class TestPreview:
    """`GET /v1/billing/preview`."""

    async def test_it_says_what_the_statement_will(self, deployment: Deployment) -> None:
        """The preview and the statement differ in the seal and the time alone."""
        await deployment.exchange(8)
        reply = await deployment.get("/v1/billing/preview")
        assert reply.status == 200
        assert not {"statement_hash", "statement_jws", "jwks"} & set(reply.json)
        assert [(line["tier"], line["units"], line["amount"]) for line in reply.json["lines"]] == [
            (0, 4, "0.00"),
            (1, 2, "1.00"),
            (2, 2, "0.50"),
        ]
        assert reply.json["total"] == "1.50"
        kept = json.loads(await deployment.close())
        sealed = {"statement_hash", "statement_jws", "jwks", "issued_at"}
        assert {n: v for n, v in kept.items() if n not in sealed} == {
            n: v for n, v in reply.json.items() if n != "issued_at"
        }

    async def test_csv(self, deployment: Deployment) -> None:
        """A spreadsheet gets the same lines, and the total."""
        await deployment.exchange(5)
        reply = await deployment.get("/v1/billing/preview?format=csv")
        assert (reply.header("content-type") or "").startswith("text/csv")
        rows = list(csv.DictReader(io.StringIO(reply.body.decode())))
        assert [(row["meter"], row["tier"], row["units"], row["amount"]) for row in rows] == [
            ("vex", "0", "4", "0.00"),
            ("vex", "1", "1", "0.50"),
            ("total", "", "", "0.50"),
        ]

    async def test_nothing_to_preview(self, deployment: Deployment) -> None:
        """A tenant without usage has no statement to come; another's usage does not show."""
        await deployment.exchange(1)
        reply = await deployment.get("/v1/billing/preview", api_key="globex-key")
        assert (reply.status, reply.code) == (404, "period_not_found")
        reply = await deployment.get("/v1/billing/preview?period=2024-02")
        assert (reply.status, reply.code) == (404, "period_not_found")

    @pytest.mark.parametrize("query", ["period=2026-00", "format=xml", "format=JSON", "period=x"])
    async def test_parameters(self, deployment: Deployment, query: str) -> None:
        """A malformed parameter is told as that."""
        await deployment.exchange(1)
        reply = await deployment.get(f"/v1/billing/preview?{query}")
        assert (reply.status, reply.code) == (400, "parameter_invalid")


class TestStatements:
    """`GET /v1/billing/statements…`."""

    async def test_as_it_was_signed(self, deployment: Deployment) -> None:
        """The bytes are those that were signed; a stranger verifies them by the pinned key."""
        await deployment.exchange(7)
        document = await deployment.close()
        reply = await deployment.get(f"/v1/billing/statements/{deployment.period}")
        assert reply.body == document
        jsonschema_rs.validate(dict(schemas.STATEMENT), reply.json)
        report = verify(reply.body, trust=[signing_key().kid])
        assert report.as_json()["total"] == "1.25"
        with pytest.raises(VerificationError):
            verify(reply.body.replace(b'"total":"1.25"', b'"total":"1.26"'), trust=[])

    async def test_every_line_lists_its_receipts(self, deployment: Deployment) -> None:
        """The list is in the order of each line's tree; one receipt less, and it is not."""
        await deployment.exchange(7)
        await deployment.tokens(30)
        document = await deployment.close()
        path = f"/v1/billing/statements/{deployment.period}/receipts"
        listed = [json.loads(line) for line in (await deployment.get(path)).body.splitlines()]
        entries = [(e["meter"], e["tier"], e["receipt_hash"], e["units"]) for e in listed]
        verify_statement(document, entries, trust=[signing_key().kid])
        for line in json.loads(document)["lines"]:
            tree = MerkleTree()
            for meter, tier, receipt_hash, units in entries:
                if (meter, tier) == (line["meter"], line["tier"]):
                    tree.add(leaf(receipt_hash, units))
            assert (tree.size, tree.root_text()) == (line["receipts"], line["root"])
        with pytest.raises(VerificationError):
            verify_statement(document, entries[:-1], trust=[signing_key().kid])
        with pytest.raises(VerificationError):
            verify_statement(document, entries[1::-1] + entries[2:], trust=[signing_key().kid])
        own = [e for e in entries if e[0] == "vex"]
        for _, _, receipt_hash, _ in own:
            assert (await deployment.get(f"/v1/exchanges/{receipt_hash}")).status == 200

    async def test_revisions(self, deployment: Deployment) -> None:
        """What comes late makes a second revision that names the first, which stays as it was."""
        await deployment.exchange(5)
        first = await deployment.close()
        await deployment.exchange(2)
        second = json.loads(await deployment.close())
        assert second["revision"] == 2
        assert second["adjusts"] == json.loads(first)["statement_hash"]
        assert (second["total"], second["adjustment"]) == ("1.25", "0.75")
        path = f"/v1/billing/statements/{deployment.period}"
        assert (await deployment.get(path)).json == second
        assert (await deployment.get(f"{path}?revision=2")).json == second
        assert (await deployment.get(f"{path}?revision=1")).body == first
        old = await deployment.get(f"{path}/receipts?revision=1")
        assert len(old.body.splitlines()) == 5
        listing = (await deployment.get("/v1/billing/statements")).json
        jsonschema_rs.validate(dict(schemas.STATEMENTS), listing)
        assert [(s["period"], s["revision"]) for s in listing["statements"]] == [
            (deployment.period, 2),
            (deployment.period, 1),
        ]

    async def test_csv(self, deployment: Deployment) -> None:
        """A kept statement comes as CSV too."""
        await deployment.exchange(5)
        await deployment.close()
        path = f"/v1/billing/statements/{deployment.period}?format=csv"
        rows = list(csv.DictReader(io.StringIO((await deployment.get(path)).body.decode())))
        assert [row["meter"] for row in rows] == ["vex", "vex", "total"]

    async def test_another_tenant_s_is_not_found(self, deployment: Deployment) -> None:
        """It cannot be told from one that never was."""
        await deployment.exchange(1)
        await deployment.close()
        for rest in ("", "/receipts", "?revision=1", "?format=csv"):
            path = f"/v1/billing/statements/{deployment.period}{rest}"
            foreign = await deployment.get(path, api_key="globex-key")
            assert (foreign.status, foreign.code) == (404, "statement_not_found")
        assert (await deployment.get("/v1/billing/statements", api_key="globex-key")).json == {
            "statements": []
        }

    @pytest.mark.parametrize(
        ("rest", "status"),
        [
            ("2024-02", 404),
            ("2024-02/receipts", 404),
            ("2026-13", 400),
            ("x/receipts", 400),
            ("9999-12", 400),
            ("2024-02?revision=0", 400),
            ("2024-02?revision=x", 400),
            ("2024-02?revision=-1", 400),
            ("2024-02?revision=1234567", 400),
            ("2024-02?revision=%D9%A1", 400),
            ("2024-02/receipts?revision=1e1", 400),
        ],
    )
    async def test_parameters(self, deployment: Deployment, rest: str, status: int) -> None:
        """A month without a statement is 404; what is no month or no revision is 400."""
        reply = await deployment.get(f"/v1/billing/statements/{rest}")
        code = {404: "statement_not_found", 400: "parameter_invalid"}[status]
        assert (reply.status, reply.code) == (status, code)


class TestEvents:
    """`GET /v1/events`."""

    async def test_each_mark_once(self, deployment: Deployment) -> None:
        """50, 80 and 100 % of the reserve are told once a month, however usage goes on."""
        for _ in range(6):
            await deployment.exchange(1)
        reply = await deployment.get("/v1/events")
        jsonschema_rs.validate(dict(schemas.EVENTS), reply.json)
        told = [(e["kind"], e["data"]["meter"], e["data"]["percent"]) for e in reply.json["events"]]
        assert told == [("usage.reserve", "vex", percent) for percent in (50, 80, 100)]

    async def test_reserve_quota_and_statement(self, deployment: Deployment) -> None:
        """Tokens are held against reserve and quota, and a statement is announced."""
        await deployment.tokens(499)
        assert (await deployment.get("/v1/events")).json == {"events": []}
        await deployment.tokens(400)
        await deployment.close()
        events = (await deployment.get("/v1/events")).json["events"]
        told = [(e["kind"], e["data"].get("percent")) for e in events]
        assert told == [
            ("usage.reserve", 50),
            ("usage.reserve", 80),
            ("usage.quota", 50),
            ("usage.quota", 80),
            ("billing.statement", None),
        ]
        assert events[-1]["data"]["revision"] == 1

    async def test_polling(self, deployment: Deployment) -> None:
        """Whoever names the last event seen gets those behind it, and nobody another tenant's."""
        await deployment.exchange(4)
        events = (await deployment.get("/v1/events")).json["events"]
        rest = (await deployment.get(f"/v1/events?after={events[0]['id']}")).json["events"]
        assert rest == events[1:]
        last = await deployment.get(f"/v1/events?after={events[-1]['id']}")
        assert last.json == {"events": []}
        assert (await deployment.get("/v1/events", api_key="globex-key")).json == {"events": []}

    @pytest.mark.parametrize("after", ["-1", "x", "1.0", "99999999999999999", "%D9%A1", ""])
    async def test_parameters(self, deployment: Deployment, after: str) -> None:
        """What is no event's id is told as that."""
        reply = await deployment.get(f"/v1/events?after={after}")
        assert (reply.status, reply.code) == (400, "parameter_invalid")


class TestReload:
    """`POST /v1/admin/reload-reserved`."""

    async def test_new_plans_take_effect(self, deployment: Deployment) -> None:
        """It tells the plans in force, and whose plan is another than before."""
        deployment.reserved.write_text(json.dumps({"acme": PLAN, "globex": {"vex_reserved": 9}}))
        reply = await deployment.reload()
        assert reply.status == 200
        jsonschema_rs.validate(dict(schemas.RELOADED), reply.json)
        assert reply.json["changed"] == ["globex"]
        assert reply.json["plans"].keys() >= {"acme", "globex", "operator"}
        assert (await deployment.reload()).json["changed"] == []

    async def test_it_reaches_other_gateways(self, deployment: Deployment, tmp_path: Path) -> None:
        """Another gateway on the database takes the plans on by itself, its own file unread."""
        stale = tmp_path / "stale.json"
        stale.write_bytes(deployment.reserved.read_bytes())
        other = open_app(tmp_path / "data", keys=KEYS, SP_RESERVED_CONFIG=str(stale))
        async with other as app:
            deployment.reserved.write_text(json.dumps({"acme": {**PLAN, "vex_reserved": 77}}))
            assert (await deployment.reload()).json["changed"] == ["acme"]
            shown = b'signet_reserved_capacity{tenant="acme",type="vex"} 77.0'
            async with asyncio.timeout(240):
                while shown not in app.gateway.metrics.exposition():  # noqa: ASYNC110 - a loop of its own
                    await asyncio.sleep(0.05)

    async def test_a_month_that_has_begun_keeps_its_plan(self, deployment: Deployment) -> None:
        """A reload in the middle of a month changes nothing of it."""
        await deployment.exchange(5)
        before = (await deployment.get("/v1/billing/preview")).json
        deployment.reserved.write_text(json.dumps({"acme": {"vex_reserved": 1}}))
        assert (await deployment.reload()).json["changed"] == ["acme"]
        after = (await deployment.get("/v1/billing/preview")).json
        assert (after["plan"], after["lines"]) == (before["plan"], before["lines"])

    async def test_the_current_month_can_be_priced_anew(self, deployment: Deployment) -> None:
        """With `?period=current` the whole month has the new plan, of all units so far."""
        await deployment.exchange(5)
        await deployment.get("/v1/billing/preview")
        deployment.reserved.write_text(json.dumps({"acme": {**PLAN, "vex_reserved": 1}}))
        reply = await deployment.reload("?period=current")
        jsonschema_rs.validate(dict(schemas.RELOADED), reply.json)
        assert reply.json["repriced"].keys() == {"acme"}
        after = (await deployment.get("/v1/billing/preview")).json
        assert after["plan"] == reply.json["plans"]["acme"]
        assert (await deployment.reload("?period=current")).json["repriced"] == {}
        for query in ("?period=2026-11", "?period=", "?period=next"):
            refused = await deployment.reload(query)
            assert (refused.status, refused.code) == (400, "parameter_invalid")

    @pytest.mark.parametrize(
        ("change", "pointer"),
        [
            ({"vex_reserved": -1}, "/acme/vex_reserved"),
            ({"vex_reserve": 1}, "/acme/vex_reserve"),
            ({"timezone": "Mars/Olympus"}, "/acme/timezone"),
            (
                {"vex_overage_tiers": [{"threshold": 0, "price_per_unit": 1}]},
                "/acme/vex_overage_tiers/0/threshold",
            ),
            (
                {"vex_overage_tiers": [{"threshold": 1.5, "price_per_unit": 1}]},
                "/acme/vex_overage_tiers/0/threshold",
            ),
        ],
    )
    async def test_a_bad_file_changes_nothing(
        self, deployment: Deployment, change: dict[str, Any], pointer: str
    ) -> None:
        """Not even for the tenants whose plans are in order; the place is named."""
        bad = {"acme": {**PLAN, **change}, "globex": {"vex_reserved": 9}}
        deployment.reserved.write_text(json.dumps(bad))
        reply = await deployment.reload()
        assert (reply.status, reply.code) == (409, "reload_refused")
        assert [fault["pointer"] for fault in reply.json["faults"]] == [pointer]
        deployment.reserved.write_text(json.dumps({"acme": PLAN}))
        assert (await deployment.reload()).json["changed"] == []

    @pytest.mark.parametrize("text", ["", "{", '{"acme": {}, "acme": {}}', "[]", '{"acme": NaN}'])
    async def test_what_is_no_document(self, deployment: Deployment, text: str) -> None:
        """A file that is no JSON to be trusted is refused as a whole."""
        deployment.reserved.write_text(text)
        reply = await deployment.reload()
        assert (reply.status, reply.code) == (409, "reload_refused")
        assert reply.json["faults"]

    async def test_no_file(self, deployment: Deployment) -> None:
        """A file that has gone is told, and the plans stay."""
        deployment.reserved.unlink()
        reply = await deployment.reload()
        assert (reply.status, reply.code) == (409, "reload_refused")
        assert "No such file" in reply.json["detail"]

    async def test_no_setting(self, tmp_path: Path) -> None:
        """Without the setting there is nothing to reload."""
        async with open_app(tmp_path / "data", keys=KEYS) as app:
            reply = await Deployment(app, tmp_path / "none").reload()
            assert (reply.status, reply.code) == (409, "reload_refused")
            assert "SP_RESERVED_CONFIG is not set" in reply.json["detail"]
