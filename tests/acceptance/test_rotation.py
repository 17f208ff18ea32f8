"""The signing key changes under load, in all processes, without a failed exchange."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.fleet import Heard, gateway, postgres_settings, under_load
from tests.inprocess import SEED, invoice
from tests.live import Live, run_signet, until
from tests.postgres import cluster

from signet.receipts.keys import KeySet, SigningKey, from_b64url
from signet.receipts.receipt import timestamp_us
from signet.receipts.verify import Level, verify
from signet.settings import read_settings

pytestmark = pytest.mark.anyio

FOLLOWING = SigningKey.generate()
LEAD_S = 15


@pytest.fixture(params=["sqlite", "postgres"])
def storage(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Where the keys are: in files beside SQLite, in the settings of two nodes on PostgreSQL."""
    if request.param == "sqlite":
        yield {"SP_PRIVATE_KEY_B64": ""}
        return
    with cluster() as running:
        url = running.url(running.empty_database())
        following = {"SP_NEXT_PRIVATE_KEY_B64": FOLLOWING.seed_b64, "SP_PRIVATE_KEY_B64": SEED}
        yield {**postgres_settings(url), **following}


async def test_under_load(tmp_path: Path, storage: dict[str, str]) -> None:
    """Every exchange is answered; each receipt is signed by the key whose time it carries, inside
    that key's life; statements and exports follow, and the old key vouches for the new one."""
    nodes = 2 if "SP_POSTGRES_URL" in storage else 1
    with ExitStack() as stack:
        lives = [
            stack.enter_context(gateway(tmp_path / str(node), workers=2 // nodes, **storage))
            for node in range(nodes)
        ]
        first = kid_of(lives[0])
        heard = Heard()

        def traces() -> Iterator[bytes]:
            return bundles(lives[-1], ["shared-1", "shared-3"])

        async with under_load([live.port for live in lives], heard, callers=4):
            await asyncio.sleep(1.0)
            done = await asyncio.to_thread(
                run_signet,
                *("keys", "rotate", "--json", "--lead", str(LEAD_S)),
                cwd=tmp_path,
                settings={"SP_DATA_DIR": str(tmp_path / "0" / "data"), **set_only(storage)},
            )
            assert done.returncode == 0, done.stderr
            switch = json.loads(done.stdout)
            second, switch_us = switch["kid"], timestamp_us(switch["signs_from"])
            webhooks = {jwk["kid"] for jwk in keys_of(lives[0]) if jwk["use"] == "webhook"}
            assert len(webhooks) == 2
            await asyncio.to_thread(until, lambda: all(second in signers(b) for b in traces()))
        assert not heard.refused
        assert not heard.doubled
        assert len(heard.acknowledged) == len(heard.sent) - len(heard.open)
        assert switch["previous"] == first
        signed: Counter[str] = Counter()
        for bundle in traces():
            trusted = KeySet.from_jwks({"keys": keys_of(lives[0])})
            report = verify(bundle, jwks=trusted, level=Level.SIGNED)
            assert set(report.signed_by) == {first, second}
            document = json.loads(bundle)
            assert document["kid"] == second
            for receipt, jws in zip(document["chain"], document["signatures"], strict=True):
                kid = json.loads(from_b64url(jws.partition(".")[0]))["kid"]
                assert kid == (second if timestamp_us(receipt["ts"]) >= switch_us else first)
                signed[kid] += 1
        assert min(signed[first], signed[second]) > 0
        log = lives[-1].get("/v1/signing-keys/log", api_key="").body
        assert verify(log, trust=[first]).signed_by == (first, second)


async def test_a_restart_finds_the_key_that_signs(tmp_path: Path) -> None:
    """After the switch a gateway takes the new file; without it, it does not start."""
    with gateway(tmp_path, SP_PRIVATE_KEY_B64="") as live:
        assert live.get("/v1/signing-keys/log", api_key="").status == 404
        data = tmp_path / "data"
        done = run_signet(
            *("keys", "rotate", "--lead", str(LEAD_S)),
            cwd=tmp_path,
            settings={"SP_DATA_DIR": str(data)},
        )
        assert done.returncode == 0, done.stderr
        [file] = data.glob("signing-key-*")
        second = file.name.removeprefix("signing-key-")
        until(lambda: signing(tmp_path, data) == second)
    with gateway(tmp_path, SP_PRIVATE_KEY_B64="") as live:
        assert kid_of(live) == second
    file.rename(tmp_path / "elsewhere")
    done = run_signet("serve", cwd=tmp_path, settings={"SP_DATA_DIR": str(data), "SP_PORT": "0"})
    assert done.returncode == 78
    assert second in done.stderr


async def test_a_forgotten_node_signs_nothing(tmp_path: Path) -> None:
    """It says at once that it lacks the next key, and is not ready from the switch on, while the
    other one goes on."""
    with cluster() as running:
        url = running.url(running.empty_database())
        on = postgres_settings(url)
        knows = {**on, "SP_NEXT_PRIVATE_KEY_B64": FOLLOWING.seed_b64}
        with (
            gateway(tmp_path / "one", **knows) as one,
            gateway(tmp_path / "other", **on) as other,
        ):
            done = run_signet(
                *("keys", "rotate", "--json", "--lead", str(LEAD_S)),
                cwd=tmp_path,
                settings={**knows, "SP_PRIVATE_KEY_B64": SEED},
            )
            assert done.returncode == 0, done.stderr
            until(lambda: "signing_key_missing" in other.errors.read_text())
            status = other.get("/readyz").status
            if time.time() < timestamp_us(json.loads(done.stdout)["signs_from"]) / 1e6:
                assert status == 200
            until(lambda: other.get("/readyz").status == 503)
            assert FOLLOWING.kid in other.get("/readyz").json["components"]["signing_key"]
            assert other.exchange(invoice(), key=secrets.token_hex(8)).status == 503
            until(lambda: signed_by(one) == FOLLOWING.kid)


def signing(directory: Path, data: Path) -> str:
    """The kid that `signet keys list` says signs now."""
    settings = {"SP_DATA_DIR": str(data)}
    done = run_signet("keys", "list", "--json", cwd=directory, settings=settings)
    listed: Sequence[dict[str, Any]] = json.loads(done.stdout)["keys"]
    return next(key["kid"] for key in listed if key["state"] == "signing")


def set_only(storage: dict[str, str]) -> dict[str, str]:
    """The settings that are set: an empty one is none."""
    return {name: text for name, text in storage.items() if text}


def kid_of(live: Live) -> str:
    """The key that the start line names."""
    return live.line.partition(", key ")[2].split(" ")[0].strip().rstrip(",")


def keys_of(live: Live) -> list[Any]:
    """What the key set holds."""
    return live.get("/.well-known/jwks.json", api_key="").json["keys"]


def bundles(live: Live, traces: Sequence[str]) -> Iterator[bytes]:
    """The exports of traces."""
    for trace in traces:
        # A process that stood still for too long to know the keys says 503, and asks for them.
        while (reply := live.get(f"/v1/receipts/export/{trace}")).status == 503:
            time.sleep(0.1)
        assert reply.status == 200
        yield reply.body


def signers(bundle: bytes) -> set[str]:
    """The kids that signed the receipts of an export."""
    signatures: Sequence[str] = json.loads(bundle)["signatures"]
    return {json.loads(from_b64url(jws.partition(".")[0]))["kid"] for jws in signatures}


def signed_by(live: Live) -> str:
    """Who signs an exchange now; nobody while the process does not know."""
    reply = live.exchange(invoice(), key=secrets.token_hex(8))
    if reply.status == 503:
        return ""
    answer = reply.json
    return json.loads(from_b64url(answer["receipt_jws"].partition(".")[0]))["kid"]


def test_the_next_key_is_a_secret() -> None:
    """`signet config` masks it."""
    environment = read_settings({"SP_NEXT_PRIVATE_KEY_B64": FOLLOWING.seed_b64})
    shown = {origin.declared.name: origin.shown for origin in environment.origins}
    assert shown["SP_NEXT_PRIVATE_KEY_B64"] == "********"
