"""Who is calling: the API key in the headers, and the scope that a route asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from signet.api.headers import RawHeaders
from signet.core.tenant import Principal, Scope

_KEY_HEADERS: Final = (b"x-signet-api-key", b"x-odin-api-key")
_IDEMPOTENCY_HEADERS: Final = frozenset(
    {b"x-signet-idempotency-key", b"x-odin-idempotency-key", b"idempotency-key"}
)


class Keyring(Protocol):
    """The keys in force."""

    def find(self, presented: bytes) -> Principal | None:
        """Return whose key this is. Raises a `StorageError` where nobody can tell now."""
        ...


@dataclass(frozen=True, slots=True)
class Refused:
    """No entry; `code` has a row in the table of problems.

    `principal` is whose key it was, where the key was good.
    """

    code: str
    detail: str
    principal: Principal | None = None


def authenticate(
    headers: Mapping[bytes, bytes], keyring: Keyring, scope: Scope
) -> Principal | Refused:
    """Return the principal, or one and the same refusal for no key and for an unknown one."""
    presented = _presented_key(headers)
    principal = None if presented is None else keyring.find(presented)
    if principal is None:
        return Refused("unauthenticated", "send a valid key in X-SIGNET-API-Key")
    if scope not in principal.scopes:
        return Refused("scope_missing", f"this key lacks the scope {scope}", principal)
    return principal


def idempotency_key(headers: RawHeaders) -> str | None:
    """Return the idempotency key, or None where there is none.

    Two different values make one that is malformed on purpose: guessing which was meant could
    act twice.
    """
    values = {value for name, value in headers if name in _IDEMPOTENCY_HEADERS}
    if not values:
        return None
    return b"\n".join(sorted(values)).decode("latin-1")


def presented_secrets(headers: RawHeaders) -> tuple[str, ...]:
    """Return whatever a caller presented as a key, right or wrong: no log may repeat it."""
    given = [v for name, v in headers if name in _KEY_HEADERS or name == b"authorization"]
    texts = [value.decode("latin-1") for value in given]
    return (*texts, *(text.partition(" ")[2] for text in texts))


def _presented_key(headers: Mapping[bytes, bytes]) -> bytes | None:
    for name in _KEY_HEADERS:
        if name in headers:
            return headers[name]
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else None
