"""The gateway in this process: the real application on a real SQLite file, called as ASGI.

No server and no socket lies between a test and the application, so a test can say exactly which
bytes arrive, in which pieces, and when the caller leaves.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Message

from signet.app import Gateway, open_gateway
from signet.core.tenant import Scope
from signet.egress.client import EgressClient
from signet.receipts.keys import KeySet, SigningKey
from signet.receipts.report import Level, Report
from signet.receipts.verify import verify, verify_receipt
from signet.settings import read_settings

SEED = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
"""The signing seed of every test gateway."""

KEYS: Mapping[str, object] = {
    "acme-key": {"tenant": "acme"},
    "acme-other-key": {"tenant": "acme"},
    "globex-key": {"tenant": "globex"},
    "sealed-key": {"tenant": "vault", "sealed": True},
    "plain-key": {"tenant": "plain", "canon_profile": "jcs"},
    "auditor-key": {"tenant": "acme", "scopes": ["receipts.read"]},
    "agent-key": {"tenant": "acme", "scopes": ["exchange"]},
    "admin-key": {"tenant": "operator", "scopes": ["admin"]},
    "every-key": {"tenant": "operator", "scopes": [scope.value for scope in Scope]},
}
"""The API keys of every test gateway."""

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back over ASGI."""

    status: int
    headers: Headers
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The problem's code; None where it is no problem."""
        if self.header("content-type") != "application/problem+json":
            return None
        return self.json["code"]

    @property
    def own_headers(self) -> Headers:
        """The headers that say something about the resource: all but the request's own id."""
        return [(name, value) for name, value in self.headers if name != b"x-request-id"]

    def header(self, name: str) -> str | None:
        """The value of a header that must not come twice."""
        found = [value for key, value in self.headers if key == name.lower().encode()]
        assert len(found) <= 1, f"{name} came {len(found)} times"
        return found[0].decode("latin-1") if found else None


@dataclass(slots=True)
class App:
    """Calls one application."""

    asgi: ASGIApp
    gateway: Gateway
    _keys: int = field(default=0)

    def fresh_key(self) -> str:
        """An idempotency key that was not used before."""
        self._keys += 1
        return f"key-{self._keys}"

    async def call(
        self,
        method: str,
        path: str,
        *,
        headers: Headers = (),
        body: bytes | Sequence[bytes] = b"",
        leave_after: int | None = None,
        client: tuple[str, int] | None = ("127.0.0.1", 40000),
    ) -> Reply:
        """Send one request, its body in the given pieces; `leave_after` counts the last of them."""
        pieces = [body] if isinstance(body, bytes) else list(body)
        incoming: list[Message] = [
            {"type": "http.request", "body": piece, "more_body": index < len(pieces) - 1}
            for index, piece in enumerate(pieces)
        ]
        if leave_after is not None:
            incoming = [*incoming[:leave_after], {"type": "http.disconnect"}]
            for message in incoming[:-1]:
                message["more_body"] = True
        sent: list[Message] = []
        waiting = asyncio.Event()

        async def receive() -> Message:
            if incoming:
                return incoming.pop(0)
            await waiting.wait()  # a caller that stays says nothing more
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)

        raw_path, _, query = path.partition("?")
        await self.asgi(
            {
                "type": "http",
                "asgi": {"version": "3.0", "spec_version": "2.3"},
                "http_version": "1.1",
                "method": method,
                "scheme": "http",
                "path": unquote(raw_path),
                "raw_path": raw_path.encode(),
                "query_string": query.encode(),
                "root_path": "",
                "headers": [(name.lower(), value) for name, value in headers],
                "client": client,
                "server": ("127.0.0.1", 8088),
                "state": {},
            },
            receive,
            send,
        )
        start = sent[0]
        assert start["type"] == "http.response.start"
        return Reply(
            status=start["status"],
            headers=start["headers"],
            body=b"".join(message.get("body", b"") for message in sent[1:]),
        )

    async def get(self, path: str, *, api_key: str | None = "acme-key") -> Reply:
        """Ask for a resource."""
        headers = [] if api_key is None else [(b"x-signet-api-key", api_key.encode())]
        return await self.call("GET", path, headers=headers)

    async def ask(
        self, method: str, path: str, body: object = None, *, api_key: str = "admin-key"
    ) -> Reply:
        """Ask for a change; bytes are sent as they are."""
        headers = [(b"x-signet-api-key", api_key.encode())]
        if body is not None:
            headers.append((b"content-type", b"application/json"))
        raw = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        return await self.call(method, path, headers=headers, body=raw)

    async def exchange(
        self,
        body: object,
        *,
        key: str | None = None,
        api_key: str = "acme-key",
        headers: Headers = (),
    ) -> Reply:
        """Post an exchange under `key`, or a fresh one; bytes are sent as they are."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.call(
            "POST",
            "/v1/exchange",
            headers=[
                (b"content-type", b"application/json"),
                (b"x-signet-api-key", api_key.encode()),
                (b"x-signet-idempotency-key", (key or self.fresh_key()).encode()),
                *headers,
            ],
            body=raw,
        )

    async def flush_audit(self) -> None:
        """Append the attempts that wait for the audit log."""
        await self.gateway.trail.flush()

    async def stored(self) -> int:
        """How many receipts there are, of all tenants."""
        return await self.gateway.database.read_current(count_receipts)

    def trusted(self, reply: Reply) -> Report:
        """Verify the receipt that an answer carries, with the gateway's key pinned."""
        document = reply.json
        receipt = json.dumps(document["receipt"]).encode()
        return verify_receipt(
            receipt, document["receipt_jws"], trust=[self.gateway.key.kid], jwks=self.key_set
        )

    @property
    def key_set(self) -> KeySet:
        """The keys that a careful auditor has pinned."""
        return KeySet.of([self.gateway.key.public])

    async def verified(self, trace_id: str, *, api_key: str = "acme-key") -> list[dict[str, Any]]:
        """Export a trace, verify the bundle as an auditor would, and return its receipts."""
        reply = await self.get(f"/v1/receipts/export/{trace_id}", api_key=api_key)
        assert reply.status == 200, reply.body
        verify(reply.body, trust=[self.gateway.key.kid], jwks=self.key_set, level=Level.SIGNED)
        return reply.json["chain"]


async def count_receipts(tx: Any) -> int:
    """How many receipts the log holds."""
    return await tx.one(int, "SELECT count(*) FROM receipts")


@asynccontextmanager
async def open_app(
    directory: Path,
    *,
    keys: Mapping[str, object] = KEYS,
    sender: EgressClient | None = None,
    **environ: str,
) -> AsyncIterator[App]:
    """Open the gateway on a database in `directory`, set up as the environment `environ` says."""
    environment = {
        "SP_DATA_DIR": str(directory),
        "SP_PRIVATE_KEY_B64": SEED,
        "SP_API_KEYS": json.dumps(keys),
        "SP_ISSUER": "https://signet.test",
        "SP_LOG_LEVEL": "error",
        **environ,
    }
    settings = read_settings(environment).settings
    async with open_gateway(settings, sender=sender) as gateway:
        yield App(gateway.asgi, gateway)


def signing_key() -> SigningKey:
    """The key of `SEED`."""
    return SigningKey.from_b64(SEED)


def key_at(_time_us: int) -> SigningKey:
    """The key of `SEED`, whatever the time."""
    return signing_key()


async def key_for(_time_us: int) -> SigningKey:
    """The same for who can wait."""
    return signing_key()


def envelope(payload: object, **members: object) -> dict[str, object]:
    """An exchange of `payload` as an invoice tool call, unless `members` say otherwise."""
    return {
        "payload_type": "openai.tooluse.invoice.v1",
        "target_type": "invoice.iso20022.v1",
        "payload": payload,
        **members,
    }


def invoice(arguments: object = None, **members: object) -> dict[str, object]:
    """The invoice of the mission as an exchange; `arguments` replace its tool's arguments."""
    if arguments is None:
        arguments = {
            "invoice_id": "INV-1",
            "amount": 123.45,
            "currency": "EUR",
            "customer_name": "ACME GmbH",
            "description": "Consulting",
        }
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    function = {"name": "create_invoice", "arguments": text}
    return envelope({"tool_calls": [{"type": "function", "function": function}]}, **members)
