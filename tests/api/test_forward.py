"""Forwards through the gateway, over real TLS to loopback receivers behind the egress seams."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
from tests.egress.stage import HOST, OK, PUBLIC_IP, URL, Authority, Stage, answering, stage
from tests.egress.stage import read_request as read_raw
from tests.inprocess import KEYS, App, Reply, invoice, open_app

from signet.egress import Limits
from signet.egress.resolve import LookupFailed
from signet.receipts.canonical import canonicalize, content_id
from signet.storage import idempotency, usage
from signet.storage.tx import Tx

pytestmark = pytest.mark.anyio

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
FORWARD_S = "30"


@pytest.fixture(scope="module")
def authority() -> Authority:
    """One certificate authority for the module."""
    return Authority()


@dataclass(slots=True)
class Forwarding:
    """A gateway whose forwards end on a stage."""

    app: App
    stage: Stage

    async def post(self, url: str = URL, **options: Any) -> Reply:
        """Post an invoice to be forwarded to `url`."""
        members = options.pop("members", {})
        return await self.app.exchange(invoice(forward_url=url, **members), **options)

    @property
    def metrics(self) -> str:
        """What is counted."""
        return self.app.gateway.metrics.exposition().decode()


@asynccontextmanager
async def forwarding(
    directory: Path,
    authority: Authority,
    *,
    keys: Mapping[str, object] = KEYS,
    names: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
    **environ: str,
) -> AsyncIterator[Forwarding]:
    """Open a gateway that may forward to `HOST`, and the stage behind it."""
    environ = {"SP_HEL_ALLOWLIST": HOST, "SP_FORWARD_SECONDS": FORWARD_S} | environ
    async with (
        stage(authority, names=names, limits=limits) as it,
        open_app(directory, keys=keys, sender=it.client, **environ) as app,
    ):
        yield Forwarding(app, it)


@pytest.fixture
async def gateway(tmp_path: Path, authority: Authority) -> AsyncIterator[Forwarding]:
    """A gateway and its stage, on which nothing listens yet."""
    async with forwarding(tmp_path, authority) as opened:
        yield opened


@dataclass(slots=True)
class Receiver:
    """A receiver that keeps every request, and answers when it is let."""

    answer: bytes = OK
    requests: list[tuple[bytes, bytes]] = field(default_factory=list)
    let: asyncio.Event = field(default_factory=asyncio.Event)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            self.requests.append(await read_raw(reader))
            self.came.set()
            await self.let.wait()
            writer.write(self.answer)
            await writer.drain()

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the last request; none comes twice."""
        lines = self.requests[-1][0].decode("ascii").split("\r\n")[1:-2]
        pairs = [line.split(": ", 1) for line in lines]
        found = {name.lower(): value for name, value in pairs}
        assert len(found) == len(pairs)
        return found


def answers_at_once(answer: bytes = OK) -> Receiver:
    """A receiver that does not wait to be let."""
    receiver = Receiver(answer)
    receiver.let.set()
    return receiver


def response(status: int, body: bytes = b"{}", *more: bytes) -> bytes:
    """A whole response."""
    lines = (b"HTTP/1.1 %d Told" % status, b"Content-Length: %d" % len(body), *more)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class TestResponded:
    """A whole answer came, whatever it says."""

    @pytest.mark.parametrize("status", [200, 201, 204, 301, 400, 404, 409, 429, 500, 503])
    async def test_any_status_is_an_answer(self, gateway: Forwarding, status: int) -> None:
        """The exchange is allowed and metered, and tells what the service said."""
        body = b"" if status == 204 else b"told"
        await gateway.stage.serve(answers_at_once(response(status, body)))
        reply = await gateway.post()
        assert reply.status == 200, reply.body
        assert reply.json["forwarded"] == {
            "status_code": status,
            "host": HOST,
            "pinned_ip": PUBLIC_IP,
            "response_size": len(body),
            "outcome": "responded",
        }
        receipt = reply.json["receipt"]
        assert (receipt["outcome"], receipt["reason"]) == ("allowed", "ok")
        assert receipt["vex_units"] == 1
        assert receipt["forwarded"] == {
            "host": HOST,
            "pinned_ip": PUBLIC_IP,
            "status_code": status,
            "request_cid": receipt["cid"],
            "response_cid": content_id(body),
            "response_size": len(body),
            "attempt": 1,
            "result": "responded",
        }
        gateway.app.trusted(reply)

    async def test_a_redirect_is_not_followed(self, gateway: Forwarding) -> None:
        """A redirect to the metadata service is an outcome and nothing more."""
        away = response(302, b"", b"Location: http://169.254.169.254/latest/meta-data/")
        await gateway.stage.serve(answers_at_once(away))
        reply = await gateway.post()
        assert reply.json["forwarded"]["status_code"] == 302
        assert len(gateway.stage.dialler.dialled) == 1

    async def test_what_is_sent_is_what_was_hashed(self, gateway: Forwarding) -> None:
        """The body on the wire is the canonical payload, byte for byte, with its digest."""
        receiver = answers_at_once()
        await gateway.stage.serve(receiver)
        reply = await gateway.post()
        _, body = receiver.requests[0]
        assert body == canonicalize(reply.json["normalized"])
        assert content_id(body) == reply.json["receipt"]["cid"]
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        assert receiver.headers["content-digest"] == f"sha-256=:{digest}:"
        assert receiver.headers["content-type"] == "application/json"

    async def test_the_usage_is_the_sum_of_the_receipts(self, gateway: Forwarding) -> None:
        """Only what was allowed is metered."""
        await gateway.stage.serve(answers_at_once())
        await gateway.post()
        await gateway.post("https://elsewhere.example/")
        await gateway.app.exchange(invoice())
        period = (await gateway.post()).json["receipt"]["ts"][:7]
        totals = await gateway.app.gateway.database.read_current(usage.totals, "acme", period)
        assert {total.meter: total.units for total in totals} == {"vex": 3}


class TestHeaders:
    """What every forward carries."""

    async def test_the_key_upstream_is_derived(self, gateway: Forwarding) -> None:
        """The upstream's idempotency key is the receipt's hash of issuer, tenant and key."""
        receiver = answers_at_once()
        await gateway.stage.serve(receiver)
        reply = await gateway.post(key="the-agent-s-own-key")
        expected = hashlib.sha256(
            canonicalize(["https://signet.test", "acme", "the-agent-s-own-key"])
        ).hexdigest()
        assert receiver.headers["idempotency-key"] == expected
        assert reply.json["receipt"]["idempotency_key_hash"] == expected
        assert b"the-agent-s-own-key" not in receiver.requests[0][0]
        assert b"acme-key" not in receiver.requests[0][0]

    async def test_trace_and_previous_receipt_are_named(self, gateway: Forwarding) -> None:
        """The receiver learns the trace, and the receipt that this one will follow."""
        receiver = answers_at_once()
        await gateway.stage.serve(receiver)
        first = await gateway.post(members={"trace_id": "t"})
        assert receiver.headers["x-signet-trace"] == "t"
        assert "x-signet-prev-receipt" not in receiver.headers
        await gateway.post(members={"trace_id": "t"})
        last = first.json["receipt"]["receipt_hash"]
        assert receiver.headers["x-signet-prev-receipt"] == last

    async def test_a_trace_context_is_passed_on(self, gateway: Forwarding) -> None:
        """A valid traceparent lends its trace; a hostile one is replaced."""
        receiver = answers_at_once()
        await gateway.stage.serve(receiver)
        given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        await gateway.post(headers=[(b"traceparent", given.encode())])
        passed = receiver.headers["traceparent"].split("-")
        assert passed[1] == given.split("-")[1]
        assert passed[2] != given.split("-")[2]
        for hostile in (b"x", b"\xff" * 55, b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-00"):
            await gateway.post(headers=[(b"traceparent", hostile)])
            made = receiver.headers["traceparent"]
            assert len(made) == 55
            assert made[3:35] != "0" * 32

    async def test_the_signature_verifies_by_standard_webhooks(
        self, tmp_path: Path, authority: Authority
    ) -> None:
        """With a secret the published package verifies v1, and without changing a byte."""
        destinations = tmp_path / "destinations.json"
        destinations.write_text(json.dumps([{"host": HOST, "secret": SECRET}]))
        async with forwarding(
            tmp_path, authority, SP_HEL_ALLOWLIST="", SP_DESTINATIONS=str(destinations)
        ) as gateway:
            receiver = answers_at_once()
            await gateway.stage.serve(receiver)
            assert (await gateway.post()).status == 200
        headers, body = receiver.headers, receiver.requests[0][1]
        standardwebhooks.Webhook(SECRET).verify(body.decode(), headers)
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            standardwebhooks.Webhook(SECRET).verify(body.decode() + " ", headers)

    async def test_the_signature_verifies_by_the_published_key(self, gateway: Forwarding) -> None:
        """v1a is Ed25519 of the webhook key in the JWKS over id, time and body."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        receiver = answers_at_once()
        await gateway.stage.serve(receiver)
        await gateway.post()
        jwks = (await gateway.app.get("/.well-known/jwks.json")).json
        (key,) = [key for key in jwks["keys"] if key["use"] == "webhook"]
        public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"] + "="))
        headers = receiver.headers
        (signature,) = [
            part for part in headers["webhook-signature"].split() if part.startswith("v1a,")
        ]
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode()
        public.verify(base64.b64decode(signature[4:]), signed + receiver.requests[0][1])

    async def test_webhook_ids_differ(self, gateway: Forwarding) -> None:
        """No two keys share a webhook id."""
        receiver = answers_at_once()
        await gateway.stage.serve(receiver)
        ids = set()
        for _ in range(3):
            await gateway.post()
            ids.add(receiver.headers["webhook-id"])
        assert len(ids) == 3


class TestDenied:
    """A rule said no: 403, nothing sent."""

    @pytest.mark.parametrize(
        ("url", "reason"),
        [
            ("https://elsewhere.example/", "HEL_HOST_NOT_ALLOWED"),
            (f"https://{HOST}:8443/", "HEL_HOST_NOT_ALLOWED"),
            (f"https://x.{HOST}/", "HEL_HOST_NOT_ALLOWED"),
            (f"https://{HOST}.evil.example/", "HEL_HOST_NOT_ALLOWED"),
            (f"http://{HOST}/", "HEL_SCHEME_NOT_HTTPS"),
            ("https://127.0.0.1/", "HEL_HOST_NOT_ALLOWED"),
            ("https://[::1]/", "HEL_HOST_NOT_ALLOWED"),
            (f"https://user@{HOST}/", "HEL_URL_INVALID"),
            (f"https://{HOST}\\@evil.example/", "HEL_URL_INVALID"),
            ("https://0x7f.1/", "HEL_URL_INVALID"),
            ("https://2130706433/", "HEL_URL_INVALID"),
            ("ftp://a.example/", "HEL_SCHEME_NOT_HTTPS"),
            ("not-a-url", "HEL_URL_INVALID"),
            ("https://", "HEL_URL_INVALID"),
        ],
    )
    async def test_the_list_denies_before_any_lookup(
        self, gateway: Forwarding, url: str, reason: str
    ) -> None:
        """The problem and its `denied` receipt give the reason, and no name was asked."""
        reply = await gateway.post(url, key="k")
        assert (reply.status, reply.code) == (403, "egress_denied")
        problem = reply.json
        assert problem["reason"] == reason
        assert problem["retry"] == "new_key_safe"
        assert problem["forwarded"]["outcome"] == "refused"
        assert problem["forwarded"]["error"] == reason
        receipt = problem["receipt"]
        assert (receipt["outcome"], receipt["reason"]) == ("denied", reason)
        assert receipt["vex_units"] == 0
        assert receipt["policy"]["allowed"] is False
        assert receipt["policy"]["reason"] == reason
        assert receipt["forwarded"]["result"] == "refused"
        gateway.app.trusted(reply)
        assert gateway.stage.names.asked == []
        assert gateway.stage.dialler.dialled == []
        assert f'signet_denied_total{{reason="{reason}"}} 1.0' in gateway.metrics
        _replayed(reply, await gateway.post(url, key="k"))

    @pytest.mark.parametrize(
        ("addresses", "reason"),
        [
            (["127.0.0.1"], "HEL_RESOLVED_LOOPBACK"),
            (["::1"], "HEL_RESOLVED_LOOPBACK"),
            (["10.1.2.3"], "HEL_RESOLVED_PRIVATE"),
            (["169.254.169.254"], "HEL_RESOLVED_LINKLOCAL"),
            ([PUBLIC_IP, "192.168.0.1"], "HEL_RESOLVED_PRIVATE"),
            (["::ffff:10.0.0.1"], None),
            (["0.0.0.0"], None),
        ],
    )
    async def test_a_bad_address_denies_after_the_lookup(
        self,
        tmp_path: Path,
        authority: Authority,
        addresses: list[str],
        reason: str | None,
    ) -> None:
        """An allowed name that leads inside is refused, no address told, and the key is final."""
        async with forwarding(tmp_path, authority, names={HOST: addresses}) as gateway:
            reply = await gateway.post(key="k")
            assert (reply.status, reply.code) == (403, "egress_denied")
            assert reply.json["reason"].startswith("HEL_RESOLVED_")
            if reason is not None:
                assert reply.json["reason"] == reason
            receipt = reply.json["receipt"]
            assert receipt["outcome"] == "denied"
            assert receipt["policy"]["allowed"] is False
            assert receipt["forwarded"]["error"] == reply.json["reason"]
            assert "pinned_ip" not in receipt["forwarded"]
            for address in addresses:
                assert address.encode() not in reply.body
            assert gateway.stage.dialler.dialled == []
            _replayed(reply, await gateway.post(key="k"))

    async def test_a_tenant_has_its_own_list(self, tmp_path: Path, authority: Authority) -> None:
        """What one tenant's list allows is denied to another, and the policy hashes differ."""
        keys = {
            "acme-key": {"tenant": "acme", "allowlist": [HOST]},
            "globex-key": {"tenant": "globex"},
        }
        async with forwarding(tmp_path, authority, keys=keys, SP_HEL_ALLOWLIST="") as gateway:
            await gateway.stage.serve(answers_at_once())
            allowed = await gateway.post()
            denied = await gateway.post(api_key="globex-key")
            assert (allowed.status, denied.status) == (200, 403)
            hashes = {r.json["receipt"]["policy"]["policy_hash"] for r in (allowed, denied)}
            assert len(hashes) == 2
            quiet = await gateway.app.exchange(invoice())
            assert quiet.json["policy"]["policy_hash"] in hashes

    async def test_a_key_narrows_its_tenant_s_list(
        self, tmp_path: Path, authority: Authority
    ) -> None:
        """A key's own list takes away and gives nothing."""
        keys = {
            "acme-key": {"tenant": "acme"},
            "narrow-key": {"tenant": "acme", "key_allowlist": ["other.example"]},
            "none-key": {"tenant": "acme", "key_allowlist": []},
        }
        async with forwarding(tmp_path, authority, keys=keys) as gateway:
            await gateway.stage.serve(answers_at_once())
            assert (await gateway.post()).status == 200
            for api_key in ("narrow-key", "none-key"):
                assert (await gateway.post(api_key=api_key)).status == 403
                denied = await gateway.post("https://other.example/", api_key=api_key)
                assert denied.json["reason"] == "HEL_HOST_NOT_ALLOWED"

    async def test_a_replay_is_authorised_like_the_call(
        self, tmp_path: Path, authority: Authority
    ) -> None:
        """A narrower key of the tenant cannot read what came of a call it could not make."""
        keys = {
            "acme-key": {"tenant": "acme"},
            "none-key": {"tenant": "acme", "key_allowlist": []},
        }
        async with forwarding(tmp_path, authority, keys=keys) as gateway:
            await gateway.stage.serve(answers_at_once())
            first = await gateway.post(key="k")
            reply = await gateway.post(key="k", api_key="none-key")
            assert (reply.status, reply.code) == (403, "replay_denied")
            assert reply.json["retry"] == "never_blind"
            assert first.json["receipt"]["receipt_hash"].encode() not in reply.body
            _replayed(first, await gateway.post(key="k"))
            denied = await gateway.post(key="l", api_key="none-key")
            _replayed(denied, await gateway.post(key="l", api_key="none-key"))

    async def test_report_mode_lets_pass_and_counts(
        self, tmp_path: Path, authority: Authority
    ) -> None:
        """What the list would refuse goes out and is counted; addresses are still judged."""
        names = {HOST: [PUBLIC_IP], "inside.example": ["10.0.0.1"]}
        async with forwarding(
            tmp_path, authority, names=names, SP_HEL_ALLOWLIST="", SP_HEL_MODE="report"
        ) as gateway:
            await gateway.stage.serve(answers_at_once())
            reply = await gateway.post()
            assert reply.status == 200
            assert reply.json["policy"]["allowed"] is True
            assert reply.json["policy"]["reason"] == "HEL_HOST_NOT_ALLOWED"
            assert 'signet_hel_reported_total{reason="HEL_HOST_NOT_ALLOWED"} 1.0' in gateway.metrics
            inside = await gateway.post("https://inside.example/")
            assert inside.json["reason"] == "HEL_RESOLVED_PRIVATE"

    async def test_destinations_narrow_further(self, tmp_path: Path, authority: Authority) -> None:
        """Path, size, method and type of a destination decide too."""
        destinations = tmp_path / "destinations.json"
        destinations.write_text(json.dumps([{"host": HOST, "path_prefix": "/in", "max_body": 500}]))
        async with forwarding(
            tmp_path, authority, SP_HEL_ALLOWLIST="", SP_DESTINATIONS=str(destinations)
        ) as gateway:
            await gateway.stage.serve(answers_at_once())
            assert (await gateway.post(f"https://{HOST}/in/x")).status == 200
            reply = await gateway.post(f"https://{HOST}/out")
            assert reply.json["reason"] == "HEL_PATH_NOT_ALLOWED"
            reply = await gateway.post(f"https://{HOST}/in/../out")
            assert reply.status == 403
            large = {
                "invoice_id": "1",
                "amount": "1",
                "currency": "EUR",
                "customer_name": "A",
                "description": "x" * 500,
            }
            body = invoice(large, forward_url=f"https://{HOST}/in")
            reply = await gateway.app.exchange(body)
            assert reply.json["reason"] == "HEL_BODY_TOO_LARGE"
            assert reply.json["forwarded"]["status_code"] == 413

    async def test_what_fails_before_is_never_sent(self, gateway: Forwarding) -> None:
        """A payload that is refused leaves nothing for the network to do."""
        await gateway.stage.serve(answers_at_once())
        reply = await gateway.app.exchange(invoice("{", forward_url=URL))
        assert reply.status == 422
        assert "forwarded" not in reply.json
        assert gateway.stage.names.asked == []


class TestNotSent:
    """502: the destination was not reached, and not a byte of the request left."""

    async def _failed(self, gateway: Forwarding, reason: str) -> None:
        reply = await gateway.post(key="k")
        assert (reply.status, reply.code) == (502, "forward_not_sent"), reply.body
        assert reply.json["reason"] == reason
        assert reply.json["retry"] == "new_key_safe"
        assert reply.json["forwarded"]["outcome"] == "not_sent"
        assert reply.json["forwarded"]["status_code"] == 599
        receipt = reply.json["receipt"]
        assert (receipt["outcome"], receipt["reason"]) == ("failed", reason)
        assert receipt["vex_units"] == 0
        assert receipt["policy"]["allowed"] is True
        assert receipt["forwarded"]["error"] == reason
        gateway.app.trusted(reply)
        _replayed(reply, await gateway.post(key="k"))
        assert 'signet_forward_total{result="not_sent"} 1.0' in gateway.metrics

    async def test_no_address(self, tmp_path: Path, authority: Authority) -> None:
        """A name that does not exist."""
        async with forwarding(tmp_path, authority, names={}) as gateway:
            await self._failed(gateway, "HEL_NO_RESOLUTION")

    async def test_no_name_server(self, tmp_path: Path, authority: Authority) -> None:
        """Name servers that give no usable answer."""
        from signet.egress import NotSentCode

        failing = {HOST: LookupFailed(NotSentCode.RESOLUTION_FAILED)}
        async with forwarding(tmp_path, authority, names=failing) as gateway:
            await self._failed(gateway, "HEL_RESOLUTION_FAILED")

    async def test_nobody_listens(self, gateway: Forwarding) -> None:
        """A connection that is refused."""
        await self._failed(gateway, "CONNECT_FAILED")

    async def test_a_certificate_of_somebody_else(
        self, gateway: Forwarding, authority: Authority
    ) -> None:
        """A certificate for another host."""
        tls = authority.issue(["other.example"])
        await gateway.stage.serve(answers_at_once(), tls=tls)
        await self._failed(gateway, "TLS_CERTIFICATE_INVALID")

    async def test_a_peer_that_speaks_no_tls(self, gateway: Forwarding) -> None:
        """A plain server on the port."""

        async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await writer.drain()

        await gateway.stage.serve(plain, plain=True)
        await self._failed(gateway, "TLS_FAILED")


class TestUnknown:
    """504: bytes went out and no whole answer came."""

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            (b"", "CONNECTION_LOST"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "RESPONSE_TRUNCATED"),
            (b"no HTTP at all\r\n\r\n", "RESPONSE_MALFORMED"),
            (response(200, b"", b"Content-Encoding: gzip"), "RESPONSE_CODING_REFUSED"),
        ],
    )
    async def test_it_may_have_happened(
        self, gateway: Forwarding, answer: bytes, reason: str
    ) -> None:
        """The receipt says `unknown`, no unit is metered, and no blind retry is invited."""
        await gateway.stage.serve(answering(answer, close=True))
        reply = await gateway.post(key="k")
        assert (reply.status, reply.code) == (504, "forward_outcome_unknown"), reply.body
        assert reply.json["retry"] == "never_blind"
        assert reply.json["reason"] == reason
        assert reply.json["forwarded"]["outcome"] == "indeterminate"
        receipt = reply.json["receipt"]
        assert (receipt["outcome"], receipt["reason"]) == ("unknown", reason)
        assert receipt["vex_units"] == 0
        assert receipt["forwarded"]["pinned_ip"] == PUBLIC_IP
        assert receipt["forwarded"]["error"] == reason
        gateway.app.trusted(reply)
        _replayed(reply, await gateway.post(key="k"))
        assert len(gateway.stage.connections) == 1

    async def test_a_slow_receiver_is_given_up(self, tmp_path: Path, authority: Authority) -> None:
        """The one deadline bounds the wait for the answer."""
        async with forwarding(tmp_path, authority, SP_FORWARD_SECONDS="2") as gateway:
            receiver = answers_at_once()
            await gateway.stage.serve(receiver)
            # The connection that is kept needs no handshake, which a busy machine may be late with.
            while (await gateway.post()).status != 200:
                continue
            receiver.let.clear()
            before = len(receiver.requests)
            reply = await gateway.post()
            assert reply.status == 504
            assert reply.json["reason"] == "DEADLINE_AFTER_SEND"
            assert len(receiver.requests) == before + 1

    async def test_an_answer_beyond_the_limit(self, tmp_path: Path, authority: Authority) -> None:
        """A too large answer is no whole answer."""
        limits = Limits(max_body=1000)
        async with forwarding(tmp_path, authority, limits=limits) as gateway:
            await gateway.stage.serve(answers_at_once(response(200, b"x" * 1001)))
            reply = await gateway.post()
            assert reply.status == 504
            assert reply.json["reason"] == "RESPONSE_TOO_LARGE"
            assert reply.json["forwarded"]["status_code"] == 413
            assert "signet_forward_responses_truncated_total 1.0" in gateway.metrics


class TestDrips:
    """Receivers that answer without end."""

    async def test_others_are_served_meanwhile(self, tmp_path: Path, authority: Authority) -> None:
        """While a hundred answers come a byte at a time, probes and other tenants are served."""
        began = asyncio.Semaphore(0)

        async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_raw(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            began.release()
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.05)

        hosts = [f"h{number}.example.com" for number in range(100)]
        opening = forwarding(
            tmp_path,
            authority,
            names={host: [PUBLIC_IP] for host in hosts},
            limits=Limits(deadline_s=90),
            SP_HEL_ALLOWLIST="*.example.com",
            SP_FORWARD_SECONDS="90",
        )
        async with opening as gateway:
            await gateway.stage.serve(drip, tls=authority.issue(["*.example.com"]))
            async with asyncio.TaskGroup() as tasks:
                dripping = [
                    tasks.create_task(gateway.post(f"https://{host}/x", key=host)) for host in hosts
                ]
                for _ in hosts:
                    await began.acquire()
                for _ in range(20):
                    reply = await gateway.app.exchange(invoice(), api_key="globex-key")
                    assert reply.status == 200
                    assert (await gateway.app.get("/healthz", api_key=None)).status == 200
                assert not any(task.done() for task in dripping)
                for task in dripping:
                    task.cancel()


class TestOnce:
    """One key, one request upstream."""

    async def test_a_retry_while_it_is_under_way_is_told_to_wait(self, gateway: Forwarding) -> None:
        """409 with `Retry-After` while the first is in flight; then its answer; one request."""
        receiver = Receiver()
        await gateway.stage.serve(receiver)
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(gateway.post(key="k"))
            await receiver.came.wait()
            second = await gateway.post(key="k")
            assert (second.status, second.code) == (409, "idempotency_in_flight")
            assert second.json["retry"] == "same_key"
            wait = second.header("retry-after")
            assert wait is not None
            assert int(wait) >= 1
            other = await gateway.post(key="k", members={"trace_id": "other"})
            assert other.code == "idempotency_key_reused"
            plain = await gateway.app.exchange(invoice(), key="k")
            assert plain.code == "idempotency_key_reused"
            receiver.let.set()
        _replayed(first.result(), await gateway.post(key="k"))
        assert len(receiver.requests) == 1
        assert await gateway.app.stored() == 1

    async def test_a_hundred_at_once_send_one(self, gateway: Forwarding) -> None:
        """Parallel retries get the answer or are told to wait, and one request goes out."""
        receiver = answers_at_once()
        await gateway.stage.serve(receiver)
        async with asyncio.TaskGroup() as tasks:
            calls = [tasks.create_task(gateway.post(key="k")) for _ in range(100)]
        replies = [call.result() for call in calls]
        assert {reply.status for reply in replies} <= {200, 409}
        assert len({reply.body for reply in replies if reply.status == 200}) == 1
        assert len(receiver.requests) == 1
        assert await gateway.app.stored() == 1

    async def test_a_forward_never_acts_again(self, gateway: Forwarding) -> None:
        """After its answer has expired the key is 409 `idempotency_key_spent`, for ever."""
        receiver = answers_at_once()
        await gateway.stage.serve(receiver)
        first = await gateway.post(key="k")
        await gateway.app.gateway.database.transact(idempotency.purge_answers, 1 << 62, 100)
        reply = await gateway.post(key="k")
        assert (reply.status, reply.code) == (409, "idempotency_key_spent")
        assert first.json["receipt"]["receipt_hash"] in reply.json["detail"]
        assert len(receiver.requests) == 1

    async def test_a_moved_chain_is_found_before_anything_is_sent(
        self, gateway: Forwarding
    ) -> None:
        """409 `chain_moved` claims no key and asks no name."""
        receiver = answers_at_once()
        await gateway.stage.serve(receiver)
        await gateway.app.exchange(invoice(trace_id="t"))
        members = {"trace_id": "t", "expected_prev": None}
        reply = await gateway.post(key="k", members=members)
        assert (reply.status, reply.code) == (409, "chain_moved")
        assert gateway.stage.names.asked == []
        assert receiver.requests == []
        assert (await gateway.post(key="k", members={"trace_id": "t"})).status == 200

    async def test_a_chain_that_moves_meanwhile_is_no_conflict(self, gateway: Forwarding) -> None:
        """After the effect the receipt is appended wherever the chain ends by then."""
        receiver = Receiver()
        await gateway.stage.serve(receiver)
        async with asyncio.TaskGroup() as tasks:
            members = {"trace_id": "t", "expected_prev": None}
            call = tasks.create_task(gateway.post(members=members))
            await receiver.came.wait()
            await gateway.app.exchange(invoice(trace_id="t"))
            receiver.let.set()
        assert call.result().status == 200
        assert call.result().json["receipt"]["hop"] == 2
        assert len(await gateway.app.verified("t")) == 2

    async def test_a_traveller_that_leaves_does_not_stop_it(self, gateway: Forwarding) -> None:
        """What was decided after a caller left is there for its retry."""
        receiver = Receiver()
        await gateway.stage.serve(receiver)
        call = asyncio.ensure_future(gateway.post(key="k"))  # noqa: TID251 - it is abandoned
        await receiver.came.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        receiver.let.set()
        reply = await gateway.post(key="k")
        assert (reply.status, reply.code) == (409, "idempotency_in_flight")
        assert len(receiver.requests) == 1


class TestSealed:
    """Forwards of tenants whose content must not be guessed."""

    async def test_the_forward_s_hashes_are_salted(self, gateway: Forwarding) -> None:
        """Neither what was sent nor what was answered can be guessed from the receipt."""
        receiver = answers_at_once(response(200, b"yes"))
        await gateway.stage.serve(receiver)
        reply = await gateway.post(api_key="sealed-key")
        told = reply.json["receipt"]["forwarded"]
        assert told["request_cid"] == reply.json["receipt"]["cid"]
        assert told["request_cid"] != content_id(receiver.requests[0][1])
        assert told["response_cid"] != content_id(b"yes")
        assert told["response_size"] == 3


class TestStorageTrouble:
    """Storage that fails around a forward."""

    async def test_a_claim_that_is_not_durable_sends_nothing(self, gateway: Forwarding) -> None:
        """503 before anything left; afterwards the key is as good as new."""
        receiver = answers_at_once()
        await gateway.stage.serve(receiver)
        database = gateway.app.gateway.database
        await database.transact(_spoil, "claims")
        reply = await gateway.post(key="k")
        assert (reply.status, reply.code) == (503, "not_acknowledged")
        assert reply.json["retry"] == "same_key"
        assert gateway.stage.names.asked == []
        await database.transact(_mend)
        assert (await gateway.post(key="k")).status == 200
        assert len(receiver.requests) == 1

    async def test_an_answer_that_is_not_durable_is_not_told(self, gateway: Forwarding) -> None:
        """After the send there is no 200 without a receipt, and a retry never sends again."""
        receiver = answers_at_once()
        await gateway.stage.serve(receiver)
        database = gateway.app.gateway.database
        await database.transact(_spoil, "answers")
        reply = await gateway.post(key="k")
        assert (reply.status, reply.code) == (503, "not_acknowledged")
        await database.transact(_mend)
        reply = await gateway.post(key="k")
        assert (reply.status, reply.code) == (409, "idempotency_in_flight")
        assert len(receiver.requests) == 1
        assert await gateway.app.stored() == 0

    async def test_storage_that_comes_back_takes_the_answer(self, gateway: Forwarding) -> None:
        """A commit that fails once is tried again, and the answer is the one of the service."""
        receiver = Receiver()
        await gateway.stage.serve(receiver)
        database = gateway.app.gateway.database
        async with asyncio.TaskGroup() as tasks:
            call = tasks.create_task(gateway.post(key="k"))
            await receiver.came.wait()
            await database.transact(_spoil, "answers")
            receiver.let.set()
            await asyncio.sleep(0.3)
            await database.transact(_mend)
        assert call.result().status == 200
        assert len(receiver.requests) == 1
        chain = await gateway.app.verified(call.result().json["trace_id"])
        assert [receipt["kind"] for receipt in chain] == ["exchange"]


async def _spoil(tx: Tx, table: str) -> None:
    assert table in {"claims", "answers"}
    if table == "claims":
        await tx.execute(
            "CREATE TRIGGER spoiled BEFORE INSERT ON claims BEGIN SELECT RAISE(FAIL, 'no'); END"
        )
    else:
        await tx.execute(
            "CREATE TRIGGER spoiled BEFORE INSERT ON answers BEGIN SELECT RAISE(FAIL, 'no'); END"
        )


async def _mend(tx: Tx) -> None:
    await tx.execute("DROP TRIGGER spoiled")


def _replayed(first: Reply, second: Reply) -> None:
    assert (second.status, second.body) == (first.status, first.body)
    assert second.header("content-type") == first.header("content-type")
    assert second.header("X-SIGNET-Idempotency-Hit") == "1"
