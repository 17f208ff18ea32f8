"""`/healthz`, `/readyz` and `/metrics`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.faults.durability import EngineName, place
from tests.inprocess import App, envelope, invoice, open_app

from signet import __version__
from signet.storage import migrate
from signet.storage.tx import Tx

pytestmark = pytest.mark.anyio


class TestHealthz:
    """`GET /healthz`."""

    async def test_it_says_that_the_process_answers(self, app: App) -> None:
        """Anybody learns version, engine and time, and nothing else."""
        reply = await app.get("/healthz", api_key=None)
        assert reply.status == 200
        assert reply.json.keys() == {"ok", "storage", "version", "ts"}
        assert reply.json["ok"] is True
        assert reply.json["storage"] == "sqlite"
        assert reply.json["version"] == __version__
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", reply.json["ts"])

    async def test_it_does_not_need_the_database(self, tmp_path: Path) -> None:
        """A gateway whose database has closed is still alive."""
        async with open_app(tmp_path) as app:
            pass
        assert (await app.get("/healthz", api_key=None)).status == 200


class TestReadyz:
    """`GET /readyz`."""

    async def test_a_gateway_that_is_up_is_ready(self, app: App) -> None:
        """Every component says `ok`."""
        reply = await app.get("/readyz", api_key=None)
        assert reply.status == 200
        assert reply.json["ready"] is True
        assert set(reply.json["components"].values()) == {"ok"}

    async def test_a_draining_gateway_is_not_ready(self, app: App) -> None:
        """Before it stops, it asks for no more traffic and begins no new exchange."""
        app.gateway.draining = True
        reply = await app.get("/readyz", api_key=None)
        assert reply.status == 503
        assert reply.json["components"]["serving"] == "draining"
        refused = await app.exchange(invoice())
        assert refused.status == 503
        assert refused.json["code"] == "draining"
        assert refused.json["retry"] == "same_key"

    @pytest.mark.parametrize("engine", ["sqlite", "postgres"])
    async def test_the_schema_is_read_and_not_remembered(
        self, engine: EngineName, tmp_path: Path
    ) -> None:
        """A database that was put back behind a running gateway is not ready; one that a newer
        release has migrated is, and `/metrics` tells the truth in either case."""

        async def back(tx: Tx) -> None:
            await tx.execute(
                "DELETE FROM schema_migrations"
                " WHERE version = (SELECT max(version) FROM schema_migrations)"
            )

        async def ahead(tx: Tx) -> None:
            for version in (known, known + 1):
                step = migrate.Migration(version=version, name="later", sql="SELECT 1")
                await migrate.record(tx, step)

        with place(engine, tmp_path) as at:
            async with open_app(tmp_path, **at.settings) as app:
                known = app.gateway.database.schema_version
                await app.gateway.database.transact(back)
                reply = await app.get("/readyz", api_key=None)
                assert (reply.status, reply.json["components"]["database"]) == (503, "schema_older")
                page = (await app.get("/metrics", api_key=None)).body.decode()
                assert f"signet_schema_version {known - 1}.0" in page
                await app.gateway.database.transact(ahead)
                assert (await app.get("/readyz", api_key=None)).status == 200
                page = (await app.get("/metrics", api_key=None)).body.decode()
                assert f"signet_schema_version {known + 1}.0" in page

    async def test_without_its_database_it_is_not_ready(self, tmp_path: Path) -> None:
        """The component at fault is named by its code."""
        async with open_app(tmp_path) as app:
            pass
        reply = await app.get("/readyz", api_key=None)
        assert reply.status == 503
        assert reply.json["components"]["database"] == "storage_unavailable"


class TestMetrics:
    """`GET /metrics`."""

    async def test_it_counts_what_happened(self, app: App) -> None:
        """Outcomes, replays, refusals and requests each have their count."""
        await app.exchange(invoice(), key="k")
        await app.exchange(invoice(), key="k")
        await app.exchange(envelope({}))
        await app.exchange(b"{")
        text = (await app.get("/metrics", api_key=None)).body.decode()
        assert 'signet_exchanges_total{outcome="allowed"} 1.0' in text
        assert 'signet_exchanges_total{outcome="failed"} 1.0' in text
        assert 'signet_failed_total{reason="schema_invalid"} 1.0' in text
        assert "signet_idempotency_replays_total 1.0" in text
        assert 'signet_refusals_total{code="invalid_json"} 1.0' in text
        assert "signet_vex_units_total 1.0" in text
        assert 'signet_http_requests_total{route="/v1/exchange",status="200"} 2.0' in text

    async def test_labels_do_not_grow_with_the_traffic(self, app: App) -> None:
        """Paths, traces and unknown routes never become labels."""
        for index in range(20):
            await app.exchange(invoice(trace_id=f"trace-{index}"))
            await app.get(f"/v1/receipts/chain/trace-{index}")
            await app.get(f"/nowhere/{index}")
        text = (await app.get("/metrics", api_key=None)).body.decode()
        assert "trace-" not in text
        assert "nowhere" not in text

    async def test_strangers_are_not_served(self, app: App) -> None:
        """Without a token only loopback is answered."""
        for client in (("10.0.0.1", 1), ("203.0.113.5", 1), ("unix", 0), None):
            reply = await app.call("GET", "/metrics", client=client)
            assert (reply.status, reply.code) == (401, "unauthenticated")
        for host in ("127.0.0.1", "::1", "127.8.8.8"):
            assert (await app.call("GET", "/metrics", client=(host, 1))).status == 200

    async def test_a_proxy_on_loopback_is_not_who_asks(self, app: App) -> None:
        """What a proxy of this machine passes on comes from outside, and needs the token."""
        for name in (b"x-forwarded-for", b"forwarded", b"x-real-ip", b"via"):
            reply = await app.call("GET", "/metrics", headers=[(name, b"127.0.0.1")])
            assert (reply.status, reply.code) == (401, "unauthenticated")

    async def test_a_token_opens_it_from_anywhere(self, tmp_path: Path) -> None:
        """With a token only the token counts."""
        async with open_app(tmp_path, SP_METRICS_TOKEN="scrape-me") as app:
            for given in (b"", b"Bearer wrong", b"Bearer \xff", b"Basic scrape-me"):
                headers = [(b"authorization", given)]
                assert (await app.call("GET", "/metrics", headers=headers)).status == 401
            headers = [(b"authorization", b"Bearer scrape-me")]
            reply = await app.call("GET", "/metrics", headers=headers, client=("10.0.0.1", 1))
            assert reply.status == 200
            headers += [(b"x-forwarded-for", b"203.0.113.5")]
            assert (await app.call("GET", "/metrics", headers=headers)).status == 200

    async def test_a_token_may_have_any_letters(self, tmp_path: Path) -> None:
        """It is compared as the bytes that were sent."""
        async with open_app(tmp_path, SP_METRICS_TOKEN="täglich") as app:
            headers = [(b"authorization", "Bearer täglich".encode())]
            assert (await app.call("GET", "/metrics", headers=headers)).status == 200
