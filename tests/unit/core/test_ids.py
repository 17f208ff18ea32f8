"""Ids: what they may look like, and that the ones we make are what they claim to be."""

from __future__ import annotations

import hashlib
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signet.core import ids
from signet.core.ids import TenantId


@given(now_us=st.integers(0, (1 << 48) * 1000 - 1), dice=st.binary(min_size=10, max_size=10))
def test_a_trace_id_is_a_uuid_of_version_7(now_us: int, dice: bytes) -> None:
    """Version, variant and the 48 bits of milliseconds stand where RFC 9562 §5.7 puts them."""
    made = ids.new_trace_id(now_us, dice)
    read = uuid.UUID(made)
    assert str(read) == made
    assert read.version == 7
    assert read.variant == uuid.RFC_4122
    assert read.int >> 80 == now_us // 1000
    assert ids.TRACE_ID.fullmatch(made)


@given(st.binary(min_size=10, max_size=10), st.binary(min_size=10, max_size=10))
def test_trace_ids_differ_where_the_dice_do(one: bytes, other: bytes) -> None:
    """74 of the 80 random bits are in the id."""
    assert (ids.new_trace_id(0, one) == ids.new_trace_id(0, other)) == (_kept(one) == _kept(other))


def _kept(dice: bytes) -> int:
    value = int.from_bytes(dice, "big")
    return value & ((0xFFF << 64) | ((1 << 62) - 1))


def test_later_trace_ids_sort_later() -> None:
    """UUIDv7 orders by time, so an index of them grows at its right edge."""
    made = [ids.new_trace_id(now_ms * 1000, b"\xff" * 10) for now_ms in range(100)]
    assert made == sorted(made)


def test_the_idempotency_hash_is_that_of_canonical_json() -> None:
    """SHA-256 over JCS of issuer, tenant and key, which any service can compute."""
    text = '["https://signet.test","acme","a\\"b"]'
    expected = hashlib.sha256(text.encode()).digest()
    assert ids.idempotency_hash("https://signet.test", TenantId("acme"), 'a"b') == expected


@given(st.tuples(st.text("ab,\"'", max_size=4), st.text("ab,", max_size=4)), st.data())
def test_parts_of_the_idempotency_hash_do_not_run_together(
    parts: tuple[str, str], data: st.DataObject
) -> None:
    """No two triples of issuer, tenant and key hash alike."""
    other = data.draw(st.tuples(st.text("ab,\"'", max_size=4), st.text("ab,", max_size=4)))
    same = ids.idempotency_hash("i", TenantId(parts[0]), parts[1]) == ids.idempotency_hash(
        "i", TenantId(other[0]), other[1]
    )
    assert same == (parts == other)


def test_the_fingerprint_is_over_route_mode_and_bytes() -> None:
    """It is SHA-256 of the three with a NUL between, and any change of one changes it."""
    base = ids.fingerprint("POST /v1/exchange", "sync", b"{}")
    assert base == hashlib.sha256(b"POST /v1/exchange\x00sync\x00{}").digest()
    assert base != ids.fingerprint("POST /v1/exchange", "queued", b"{}")
    assert base != ids.fingerprint("POST /v1/exchange", "sync", b"{} ")


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        (
            ids.TENANT_ID,
            ["a", "A.b_c-1", "0" * 63],
            ["", "_system", "-a", "a" * 64, "a b", "a\n", "é", "a/b"],
        ),
        (
            ids.TRACE_ID,
            ["a", "urn:x.y_z-1", ":", "a" * 128],
            ["", "a" * 129, "a b", "a\r\n", "a\n", "é", "a/b", "a%0a", "\x00"],
        ),
        (ids.TYPE_NAME, ["a.b.v1", "0", "a" * 128], ["", ".a", "a" * 129, "a b", "a\n", "é"]),
        (
            ids.IDEMPOTENCY_KEY,
            ["!", "~" * 255, 'a"b'],
            ["", "a b", "a" * 256, "a\n", "é", "\x7f", "\x00"],
        ),
        (
            ids.RECEIPT_HASH,
            ["sha256:" + "0a" * 32],
            ["sha256:" + "0A" * 32, "0a" * 32, "sha256:" + "0a" * 32 + "\n", "sha512:" + "00" * 32],
        ),
    ],
)
def test_the_patterns_take_exactly_what_they_say(
    pattern: object, good: object, bad: object
) -> None:
    """Each accepts its ids as a whole and nothing beside: no blank, line break or letter more."""
    assert all(pattern.fullmatch(text) for text in good)  # type: ignore[attr-defined]
    assert not any(pattern.fullmatch(text) for text in bad)  # type: ignore[attr-defined]
