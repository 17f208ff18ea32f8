"""Taking in a request body: JSON only, whole, and never more than the limit."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from signet.api.auth import Refused
from signet.api.direct import body_at_hand
from signet.api.headers import first_headers
from signet.api.operations import problem_response
from signet.core.errors import Fault
from signet.core.members import Rule, member_faults, object_schema
from signet.receipts.canonical import Json, parse
from signet.receipts.errors import ReceiptError

_DEPTH: Final = 64
_JSON: Final = b"application/json"


async def read_json_body(request: Request, max_bytes: int) -> bytes | Refused:
    """Return the body's bytes, unparsed.

    The declared length is checked before the first byte is read, and the real one while reading.
    Raises `ClientDisconnect` when the caller left half-way.
    """
    headers = first_headers(request.scope)
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
    body = body_at_hand(request.scope)
    if body is not None:
        return body if len(body) <= max_bytes else too_large
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A body that is one object: what is read of it, and what the documentation says of it.

    `code` is the problem of a body that is JSON and not what is asked for.
    """

    members: Mapping[str, Rule]
    required: Collection[str] = ()
    code: str
    example: Mapping[str, Json]

    @property
    def schema(self) -> Mapping[str, Json]:
        """Its JSON Schema, with the example."""
        described = object_schema(self.members, required=self.required)
        return {**described, "examples": [dict(self.example)]}

    @property
    def problems(self) -> tuple[str, ...]:
        """What `read` may answer."""
        return ("invalid_json", self.code, "body_too_large", "unsupported_media_type")

    async def read(self, request: Request, max_bytes: int) -> dict[str, Json] | Response:
        """Return the members, or the answer to a body that breaks the rules."""
        try:
            body = await read_json_body(request, max_bytes)
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it; the log does
        if isinstance(body, Refused):
            return problem_response(body.code, body.detail)
        try:
            document = parse(body, max_depth=_DEPTH)
        except ReceiptError as error:
            fault = Fault(pointer=error.pointer or "", code=error.code, detail=error.detail)
            return problem_response("invalid_json", str(error), faults=(fault,))
        if not isinstance(document, dict):
            fault = Fault(pointer="", code="wrong_type", detail="expected an object")
            return problem_response(self.code, "the body is no object", faults=(fault,))
        faults = tuple(member_faults(document, self.members, required=self.required))
        if faults:
            return problem_response(self.code, "the body has a member at fault", faults=faults)
        return document
