"""A gateway's whole output, searched for everything that must not be in it."""

from __future__ import annotations

import base64
import json
import secrets
import signal
from contextlib import closing, suppress
from pathlib import Path

import pytest
from tests.fleet import gateway, postgres_settings
from tests.inprocess import SEED, invoice
from tests.live import STOP_S, exchange_headers, reply, run_signet
from tests.postgres import cluster

from signet.receipts.keys import SigningKey

NEXT = SigningKey.generate()
WEBHOOK = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
KEY = f"sp_live_abcd_{secrets.token_urlsafe(32)}"
SETTINGS = {
    "SP_METRICS_TOKEN": "metrics-token-of-ours",
    "SP_OTLP_HEADERS": "authorization=Bearer%20otlp-token-of-ours",
    "SP_OTLP_ENDPOINT": "http://127.0.0.1:1",
    "SP_OPENAI_API_KEY": "sk-proj-abcdefghijklmnopqrstuv",
    "SP_OPENAI_BASE_URL": "http://127.0.0.1:1/v1",
    "SP_NEXT_PRIVATE_KEY_B64": NEXT.seed_b64,
    "SP_API_KEYS": json.dumps({KEY: {"tenant": "acme", "fallback_enabled": True}}),
    "SP_HEL_ALLOWLIST": "localhost, example.com",
}
WRONG = ("sp_live_zzzz_wrong-key-that-was-presented", "another-wrong-key-0123")
CONTENT = ("Confidential Ltd", "4711.25")
HIDDEN = (
    *(SEED, NEXT.seed_b64, WEBHOOK, KEY, *WRONG, *CONTENT),
    *("metrics-token-of-ours", "otlp-token-of-ours", "sk-proj-abcdefghijklmnopqrstuv"),
)


@pytest.mark.parametrize("level", ["info", "debug"])
def test_nothing_hidden_is_told(tmp_path: Path, level: str) -> None:
    """Good and bad calls, a collector and a model that are away, a broken database and a stop: each
    line is JSON, requests have their ids, and no secret or payload is anywhere."""
    destinations = tmp_path / "destinations.json"
    destinations.write_text(json.dumps([{"host": "example.com", "secret": WEBHOOK}]))
    settings = {**SETTINGS, "SP_LOG_LEVEL": level, "SP_DESTINATIONS": str(destinations)}
    with cluster() as running:
        name = running.empty_database()
        with gateway(tmp_path, **settings, **postgres_settings(running.url(name))) as live:
            told = {"invoice_id": "1", "amount": 4711.25, "currency": "EUR"}
            told |= {"customer_name": "Confidential Ltd", "description": "Confidential Ltd"}
            broken = json.dumps(told)[:-2] + ",,}"
            for body in (
                invoice(told),
                invoice(broken),
                invoice(told, forward_url="https://127.0.0.1/x"),
                {"payload": "Confidential Ltd"},
            ):
                live.exchange(body, key=secrets.token_hex(8), api_key=KEY)
            with closing(live.connect()) as connection:
                content = b'{"Confidential Ltd": 4711.25'
                headers = exchange_headers("k", KEY)
                connection.request("POST", "/v1/exchange", content, headers)
                assert reply(connection).status == 400
            for wrong in WRONG:
                assert live.get("/v1/usage", api_key=wrong).status == 401
                with closing(live.connect()) as connection:
                    bearer = {"Authorization": f"Bearer {wrong}"}
                    connection.request("GET", "/v1/usage", headers=bearer)
                    assert reply(connection).status == 401
            running.sql("DROP TABLE receipts CASCADE", name)
            failed = live.exchange(invoice(told), key=secrets.token_hex(8), api_key=KEY)
            assert failed.status in (500, 503)
            live.process.send_signal(signal.SIGTERM)
            with suppress(TimeoutError):
                live.process.wait(STOP_S)
            assert live.process.stdout is not None
            output = live.line + live.process.stdout.read() + live.errors.read_text()
    assert [hidden for hidden in HIDDEN if hidden in output] == []
    lines = [json.loads(line) for line in live.errors.read_text().splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert len(requests) >= 10
    assert all(line["request_id"] for line in requests)
    assert any(line["trace_id"] for line in requests)
    assert any(line["event"] in ("not_acknowledged", "request_failed") for line in lines)


def test_a_failing_command_hides_the_password(tmp_path: Path) -> None:
    """What a driver says of a URL that it cannot use is told without its password."""
    for url in (
        "postgresql://signet:pa55-w0rd@127.0.0.1:1/signet?bad=%%",
        "postgresql://signet:pa55-w0rd@[::1/x",
    ):
        done = run_signet(
            "serve",
            cwd=tmp_path,
            settings={
                **postgres_settings(url),
                "SP_PRIVATE_KEY_B64": SEED,
                "SP_LOG_LEVEL": "debug",
            },
        )
        assert done.returncode != 0
        assert "pa55-w0rd" not in done.stdout + done.stderr
