"""One request on its way through the guard: where it came from, and what it turned out to be."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final, cast

from starlette.requests import Request

from signet.api.headers import first_headers
from signet.api.proxies import NO_PROXIES, Proxies
from signet.core.audit import Origin
from signet.core.tenant import Principal
from signet.gateway.tenants import Actor

_PLACE: Final = "signet.visit"
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")


@dataclass(slots=True, kw_only=True)
class Visit:
    """What the guard writes down of a request once it has been answered.

    `principal` is there as soon as the key is known. An endpoint sets `code` where neither status
    nor problem tells how it ended, and `object` where the path does not say what it was about.
    `recorded` says that the audit entry has been committed with the receipt.
    """

    origin: Origin
    principal: Principal | None = None
    code: str | None = None
    object: str | None = None
    recorded: bool = False


def begin(
    request: Request, *, now_us: int, addresses: bool, proxies: Proxies = NO_PROXIES
) -> Visit:
    """Begin the visit of `request`; its client's address is kept only where `addresses` says so.
    Behind one of the `proxies` the client is whom that one heard.

    A caller's own X-Request-Id is kept if it is short and plain, so that it can be found again.
    """
    scope = request.scope
    given = first_headers(scope).get(b"x-request-id")
    own = given.decode("ascii") if given is not None and _REQUEST_ID.fullmatch(given) else None
    client: tuple[str, int] | None = scope.get("client")
    address = proxies.caller(client[0], scope["headers"]) if addresses and client else None
    request_id = own or os.urandom(8).hex()
    visit = Visit(origin=Origin(request_id=request_id, address=address, received_us=now_us))
    scope[_PLACE] = visit
    return visit


def visit_of(request: Request) -> Visit:
    """Return the visit that the guard has begun."""
    return cast(Visit, request.scope[_PLACE])


def actor_of(request: Request, principal: Principal) -> Actor:
    """Return who asks for a change, as the audit log will name them."""
    return Actor(key_id=principal.key_id, origin=visit_of(request).origin)
