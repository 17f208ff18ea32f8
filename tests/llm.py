"""A loopback service that speaks OpenAI's chat completions, for the real SDK to talk to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Model:
    """What the service says next, and what it was asked. `gate` holds its answers back."""

    say: Callable[[int], str] = lambda _call: "{}"
    tokens: int = 75
    calls: int = 0
    url: str = ""
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests on one connection until it ends."""
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            fields = dict(
                line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:] if line
            )
            await reader.readexactly(int(fields.get("content-length", "0")))
            self.calls += 1
            self.asked.set()
            body = json.dumps(self._answer(self.calls)).encode()
            await self.gate.wait()
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n%b" % (len(body), body)
            )
            await writer.drain()
        writer.close()

    def _answer(self, call: int) -> dict[str, object]:
        message = {"role": "assistant", "content": self.say(call), "refusal": None}
        return {
            "id": f"chatcmpl-{call}",
            "object": "chat.completion",
            "created": 1_790_000_000,
            "model": "loopback-1",
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": message, "logprobs": None}
            ],
            "usage": {
                "prompt_tokens": self.tokens - 25,
                "completion_tokens": 25,
                "total_tokens": self.tokens,
            },
        }


@asynccontextmanager
async def open_model() -> AsyncIterator[Model]:
    """Serve a model on a free port of loopback until the block ends."""
    model = Model()
    model.gate.set()
    server = await asyncio.start_server(model.serve, "127.0.0.1", 0)
    model.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield model
    finally:
        model.gate.set()
        server.close()
