"""The headers that say who calls and what the call means."""

from __future__ import annotations

import pytest

from signet.api.auth import (
    Refused,
    authenticate,
    idempotency_key,
    presented_secrets,
)
from signet.api.headers import RawHeaders
from signet.core.tenant import Principal, Scope, read_keyring

KEYRING = read_keyring({"key": {"tenant": "acme"}, "narrow": {"tenant": "acme", "scopes": []}})


def test_the_header_of_our_own_wins() -> None:
    """The order is ours, the older name, the bearer token; one that is wrong is not passed over."""
    headers = {b"authorization": b"Bearer key"}
    assert isinstance(authenticate(headers, KEYRING, Scope.EXCHANGE), Principal)
    headers[b"x-odin-api-key"] = b"key"
    assert isinstance(authenticate(headers, KEYRING, Scope.EXCHANGE), Principal)
    headers[b"x-signet-api-key"] = b"wrong"
    assert isinstance(authenticate(headers, KEYRING, Scope.EXCHANGE), Refused)


def test_a_missing_scope_is_no_missing_key() -> None:
    """A good key without the scope is told so; a bad one is not told which scope there is."""
    narrow = {b"x-signet-api-key": b"narrow"}
    refused = authenticate(narrow, KEYRING, Scope.EXCHANGE)
    assert isinstance(refused, Refused)
    assert (refused.code, refused.detail) == ("scope_missing", "this key lacks the scope exchange")
    assert refused.principal == KEYRING.find(b"narrow")
    hostile = ({}, {b"x-signet-api-key": b"x"}, {b"authorization": b"Bearer "})
    for headers in hostile:
        unknown = authenticate(headers, KEYRING, Scope.EXCHANGE)
        assert isinstance(unknown, Refused)
        assert unknown.code == "unauthenticated"
        assert unknown.principal is None


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ([], None),
        ([(b"idempotency-key", b"a")], "a"),
        ([(b"idempotency-key", b"a"), (b"x-odin-idempotency-key", b"a")], "a"),
        ([(b"idempotency-key", b"a"), (b"x-odin-idempotency-key", b"b")], "a\nb"),
        ([(b"idempotency-key", b"a"), (b"idempotency-key", b"")], "\na"),
        ([(b"idempotency-key", b"\xe9")], "\u00e9"),
        ([(b"idempotency-key", b"")], ""),
    ],
)
def test_idempotency_keys_are_not_guessed(headers: RawHeaders, key: str | None) -> None:
    """Different values together make a text that no key can be, whichever headers they came in."""
    assert idempotency_key(headers) == key


def test_what_was_presented_is_known_to_be_left_out() -> None:
    """Every header that can hold a key, the token by itself too."""
    headers = [
        (b"x-signet-api-key", b"one"),
        (b"x-odin-api-key", b"two"),
        (b"authorization", b"Bearer three"),
        (b"x-other", b"four"),
    ]
    assert {"one", "two", "three", "Bearer three"} <= set(presented_secrets(headers))
    assert "four" not in presented_secrets(headers)
