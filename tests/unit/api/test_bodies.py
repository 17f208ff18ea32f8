"""Taking in a body."""

from __future__ import annotations

import json

import jsonschema_rs
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message

from signet.api.auth import Refused
from signet.api.bodies import Body, read_json_body
from signet.core.members import whole

pytestmark = pytest.mark.anyio

JSON = (b"content-type", b"application/json")


def _request(*pieces: bytes, headers: tuple[tuple[bytes, bytes], ...] = (JSON,)) -> Request:
    waiting: list[Message] = [
        {"type": "http.request", "body": piece, "more_body": True} for piece in pieces
    ]
    waiting.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Message:
        return waiting.pop(0)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": list(headers)}
    return Request(scope, receive)


async def test_pieces_make_a_whole() -> None:
    """The bytes come back unparsed and complete."""
    assert await read_json_body(_request(b"{", b"", b"}"), 2) == b"{}"
    assert await read_json_body(_request(), 2) == b""


async def test_one_byte_too_many_is_refused() -> None:
    """The limit counts the bytes that come, whatever was declared."""
    for length in (b"1", b"2", b"x", b"-1", b""):
        headers = (JSON, (b"content-length", length))
        body = await read_json_body(_request(b"{", b"}", b" ", headers=headers), 2)
        assert isinstance(body, Refused)
        assert body.code == "body_too_large"


async def test_a_large_declaration_is_refused_unread() -> None:
    """Nothing is taken from a caller that says it is too much."""
    headers = (JSON, (b"content-length", b"3"))

    async def never() -> Message:
        raise AssertionError("it was read")

    scope = {"type": "http", "method": "POST", "path": "/", "headers": list(headers)}
    assert isinstance(await read_json_body(Request(scope, never), 2), Refused)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ((b"content-type", b"text/json"),),
        (JSON, (b"content-encoding", b"gzip")),
        (JSON, (b"content-encoding", b"identity, gzip")),
        (JSON, (b"content-encoding", b"br")),
    ],
)
async def test_only_plain_json_is_taken(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    """Another type and any coding are refused."""
    body = await read_json_body(_request(b"{}", headers=headers), 100)
    assert isinstance(body, Refused)
    assert body.code == "unsupported_media_type"


async def test_a_caller_that_left_is_told_apart() -> None:
    """Half a body never counts as one."""

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [JSON]}
    with pytest.raises(ClientDisconnect):
        await read_json_body(Request(scope, receive), 100)


OBJECT = Body(
    members={"in_s": whole(0, 9)}, required=("in_s",), code="key_invalid", example={"in_s": 3}
)


async def test_a_body_is_read_as_it_is_described() -> None:
    """The example is what the schema says, and what is read."""
    (example,) = OBJECT.schema["examples"]
    jsonschema_rs.validate(dict(OBJECT.schema), example)
    body = json.dumps(example).encode()
    assert await OBJECT.read(_request(body), 100) == example


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "invalid_json"),
        (b"[]", "key_invalid"),
        (b"{}", "key_invalid"),
        (b'{"in_s": 10}', "key_invalid"),
        (b'{"in_s": 1, "x": 1}', "key_invalid"),
        (b" " * 101, "body_too_large"),
    ],
)
async def test_what_breaks_the_rules_is_answered(body: bytes, code: str) -> None:
    """With a problem that the operation has declared."""
    answer = await OBJECT.read(_request(body), 100)
    assert isinstance(answer, Response)
    assert json.loads(bytes(answer.body))["code"] == code
    assert code in OBJECT.problems
