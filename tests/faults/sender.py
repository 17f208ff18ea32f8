"""A gateway in a process of its own that ends, or stops, at one step of a forward.

`python -m tests.faults.sender` reads its orders as JSON from standard input, opens the gateway on
the data it is given, with the egress seams leading to a receiver on loopback, posts one exchange
and writes what came back as JSON. Nothing of the gateway is replaced; calls to a few of its
functions are wrapped to end the process just before or just after them.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tests.egress.stage import HOST, PUBLIC_IP, URL, LoopbackDialler, StaticNames
from tests.inprocess import SEED, App, invoice

from signet.app.gateway import open_gateway
from signet.egress import EgressClient, Limits, Outcome, Policy, Record, Target
from signet.egress.resolve import QueryKind
from signet.gateway import forwarding
from signet.settings import read_settings
from signet.storage import committer, idempotency
from signet.storage.committer import Committer

Step = Literal[
    "none",
    "before intent",
    "intent written, not committed",
    "after intent",
    "before first byte",
    "in the middle of the body",
    "request read",
    "after the answer",
    "before commit",
    "receipt written, not committed",
    "after commit",
    "paused before first byte",
    "paused after the answer",
]
BY_ITSELF: Sequence[Step] = (
    "before intent",
    "intent written, not committed",
    "after intent",
    "before first byte",
    "after the answer",
    "before commit",
    "receipt written, not committed",
    "after commit",
)
BY_THE_RECEIVER: Sequence[Step] = ("in the middle of the body", "request read")
PAUSES: Sequence[Step] = ("paused before first byte", "paused after the answer")
FALLBACK_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What one process is to do. `large` makes a body that does not fit into socket buffers."""

    directory: str
    receiver_port: int
    authority: str
    key: str | None
    step: Step = "none"
    large: bool = False
    forward_s: float = 60.0
    lease_more_s: float = 30.0
    idempotent: bool = False
    trace_id: str = "t"

    def text(self) -> str:
        """The orders as the process reads them."""
        return json.dumps(asdict(self))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _pause() -> None:
    print(json.dumps({"paused": True}), flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)


class Names(StaticNames):
    """Asked first of all network: the intent is durable, nothing has left."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__({HOST: [PUBLIC_IP]})
        self._act = act

    async def query(self, name: str, kind: QueryKind) -> Sequence[Record]:
        self._act()
        return await super().query(name, kind)


class Client(EgressClient):
    """Ends around the real sending."""

    before_byte: Callable[[], None] = staticmethod(lambda: None)
    after_answer: Callable[[], None] = staticmethod(lambda: None)

    async def send(
        self, target: Target, body: bytes, headers: Any, policy: Policy | None, **options: Any
    ) -> Outcome:
        may_begin = options.pop("before_first_byte", None)

        def asked() -> bool:
            self.before_byte()
            return may_begin is None or may_begin()

        outcome = await super().send(
            target, body, headers, policy, before_first_byte=asked, **options
        )
        self.after_answer()
        return outcome


def _before(owner: object, name: str, act: Callable[[], None]) -> None:
    """Act before the async function `owner.name` begins."""
    original: Callable[..., Awaitable[object]] = getattr(owner, name)

    async def wrapped(*args: Any, **kwargs: Any) -> object:
        act()
        return await original(*args, **kwargs)

    setattr(owner, name, wrapped)


def _after(owner: object, name: str, act: Callable[[], None]) -> None:
    """Act after the async function `owner.name` has returned."""
    original: Callable[..., Awaitable[object]] = getattr(owner, name)

    async def wrapped(*args: Any, **kwargs: Any) -> object:
        result = await original(*args, **kwargs)
        act()
        return result

    setattr(owner, name, wrapped)


def prepare(step: Step, client: Client) -> None:
    """Lay the mine of one step. The steps of the receiver need none here."""
    match step:
        case "before intent":
            _before(idempotency, "claim", _die)
        case "intent written, not committed":
            _after(forwarding.Forwarder, "_claim", _die)
        case "before first byte":
            client.before_byte = _die
        case "paused before first byte":
            client.before_byte = _pause
        case "after the answer":
            client.after_answer = _die
        case "paused after the answer":
            client.after_answer = _pause
        case "before commit":
            _before(Committer, "commit", _die)
        case "receipt written, not committed":
            _after(committer, "commit_exchanges", _die)
        case "after commit":
            _after(Committer, "commit", _die)
        case _:
            pass


async def carry_out(orders: Orders) -> dict[str, object]:
    """Open the gateway, post, and tell what came back; without a key only recover."""
    client = Client(
        resolver=Names(_die if orders.step == "after intent" else lambda: None),
        dialler=(dialler := LoopbackDialler()),
        trust=orders.authority,
        limits=Limits(deadline_s=orders.forward_s),
    )
    dialler.ports[PUBLIC_IP, 443] = orders.receiver_port
    directory = Path(orders.directory)
    destinations, types = directory / "destinations.json", directory / "types"
    _put(destinations, json.dumps([{"host": HOST, "idempotent": orders.idempotent}]))
    types.mkdir(exist_ok=True)
    _put(types / "test.blob.v1.schema.json", "{}")
    environ = {
        "SP_DATA_DIR": orders.directory,
        "SP_REGISTRY_DIR": str(types),
        "SP_PRIVATE_KEY_B64": SEED,
        "SP_ISSUER": "https://signet.test",
        "SP_API_KEYS": '{"acme-key": {"tenant": "acme"}}',
        "SP_DESTINATIONS": str(destinations),
        "SP_FORWARD_SECONDS": str(orders.forward_s),
        "SP_FALLBACK_SECONDS": str(FALLBACK_S),
        "SP_LOG_LEVEL": "error",
        "SP_MAX_BODY_BYTES": str(8 << 20),
    }
    prepare(orders.step, client)
    settings = read_settings(environ).settings
    async with open_gateway(settings, sender=client, lease_more_s=orders.lease_more_s) as gateway:
        app = App(gateway.asgi, gateway)
        if orders.key is None:
            return await _recovered(app)
        body = _large_exchange() if orders.large else invoice()
        body |= {"trace_id": orders.trace_id, "forward_url": URL}
        reply = await app.exchange(body, key=orders.key)
        return {"status": reply.status, "code": reply.code, "body": reply.json}


def _put(path: Path, text: str) -> None:
    """Write a file whole: another sender on the same data may be reading it right now."""
    private = path.with_name(f".{path.name}.{os.getpid()}")
    private.write_text(text)
    private.replace(path)


def _large_exchange() -> dict[str, object]:
    """An exchange whose payload goes out as it is: 4 MB, more than sockets take at once."""
    return {
        "payload_type": "test.blob.v1",
        "target_type": "test.blob.v1",
        "payload": {"text": "x" * (4 << 20)},
    }


async def _recovered(app: App) -> dict[str, object]:
    """Wait until no claim is open, as recovery at the start makes it."""
    async with asyncio.timeout(240):
        # Nothing tells when another process's claims have ended.
        while await app.gateway.database.read_current(idempotency.owners):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return {"recovered": True}


def main() -> None:
    """Do as ordered."""
    orders = Orders(**json.loads(sys.stdin.read()))
    print(json.dumps(asyncio.run(carry_out(orders))), flush=True)


if __name__ == "__main__":
    main()
