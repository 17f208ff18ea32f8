"""Taking in a request body: JSON only, whole, and never more than the limit."""

from __future__ import annotations

from typing import Final

from starlette.requests import ClientDisconnect, Request

from signet.api.auth import Refused

_JSON: Final = b"application/json"


async def read_json_body(request: Request, max_bytes: int) -> bytes | Refused:
    """Return the body's bytes, unparsed.

    The declared length is checked before the first byte is read, and the real one while reading.
    Raises `ClientDisconnect` when the caller left half-way.
    """
    headers = dict(request.scope["headers"])
    kind = headers.get(b"content-type", b"")
    if kind != _JSON and kind.partition(b";")[0].strip().lower() != _JSON:
        return Refused("unsupported_media_type", "send Content-Type: application/json")
    coding = headers.get(b"content-encoding")
    if coding is not None and coding.strip().lower() != b"identity":
        return Refused("unsupported_media_type", "send the body without a Content-Encoding")
    too_large = Refused("body_too_large", f"a body may have {max_bytes} bytes at most")
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and (len(declared) > 12 or int(declared) > max_bytes):
        return too_large
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > max_bytes:
            return too_large
        chunks.append(chunk)
        if not message.get("more_body"):
            return b"".join(chunks)
