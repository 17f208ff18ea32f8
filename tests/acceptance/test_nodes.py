"""A gateway among others: two on one PostgreSQL database, and one with a replica to read from."""

from __future__ import annotations

import itertools
import json
from contextlib import closing
from pathlib import Path

from tests.fleet import gateway, postgres_settings
from tests.inprocess import invoice
from tests.live import Live, Reply, exchange_headers, reply, run_signet, until
from tests.postgres import cluster

KEYS = {
    "acme-key": {"tenant": "acme"},
    "ci-key": {"tenant": "acme", "scopes": ["registry.write"]},
}
ORDER = {"type": "object", "required": ["sku"], "properties": {"sku": {"type": "string"}}}
CALL = {"payload_type": "acme.order.v1", "target_type": "acme.order.v1", "payload": {"sku": "A"}}
PATH = "/v1/registry/types/acme.order.v1"


def put(live: Live, path: str, body: object) -> Reply:
    """Register something."""
    with closing(live.connect()) as connection:
        connection.request("PUT", path, json.dumps(body), exchange_headers("unused", "ci-key"))
        return reply(connection)


def test_a_type_registered_on_one_node_serves_on_the_other(tmp_path: Path) -> None:
    """Every process of the other node carries out exchanges of it, without a restart, and tells of
    its deprecation."""
    numbers = itertools.count()
    with cluster() as server:
        settings = {
            "SP_API_KEYS": json.dumps(KEYS),
            **postgres_settings(server.url(server.empty_database())),
        }
        with (
            gateway(tmp_path / "one", **settings) as one,
            gateway(tmp_path / "two", workers=2, **settings) as two,
        ):

            def exchanged() -> Reply:
                return two.exchange(CALL, key=f"call-{next(numbers)}")

            assert exchanged().status == 422
            registered = put(one, PATH, ORDER)
            assert registered.status == 201
            # One connection each, so that both workers are asked sooner or later.
            until(lambda: all(exchanged().status == 200 for _ in range(12)))
            assert exchanged().json["receipt"]["schema_in"] == registered.json["cid"]
            assert put(two, PATH, {"type": "object"}).json["code"] == "registry_conflict"
            assert put(one, f"{PATH}/deprecation", {"detail": "use v2"}).status == 200
            until(lambda: "deprecation" in exchanged().headers)


def test_reports_come_from_the_replica_and_receipts_do_not(tmp_path: Path) -> None:
    """Usage is what the replica knows, and what the primary knows once the replica is gone."""
    with cluster() as server:
        databases = [server.url(server.empty_database(name)) for name in ("main", "copy")]
        for url in databases:  # the replica is one that never receives anything
            settings = postgres_settings(url)
            migrated = run_signet("migrate", "--apply", cwd=tmp_path, settings=settings)
            assert migrated.returncode == 0, migrated.stderr
        settings = {
            **postgres_settings(databases[0]),
            "SP_POSTGRES_REPLICA_URL": databases[1],
        }
        with gateway(tmp_path / "one", **settings) as live:
            answer = live.exchange(invoice(trace_id="a-trace"), key="one")
            assert answer.status == 200
            month = f"/v1/usage?period={answer.json['receipt']['ts'][:7]}"
            assert live.get(month).json["vex"]["units"] == 0
            assert live.get("/v1/receipts/chain/a-trace").status == 200
            server.sql("DROP DATABASE copy WITH (FORCE)")
            assert live.get(month).json["vex"]["units"] == 1
