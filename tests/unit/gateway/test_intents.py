"""Intents outlive the process that wrote them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.gateway.calls import POLICY_HASH, subject

from signet.core.exchange import PolicyVerdict
from signet.gateway.intents import Intent

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    salt=st.none() | st.binary(min_size=16, max_size=16),
    normalized=st.none() | st.just(b'{"a":1}') | st.just('{"\u00e9":[1e-7]}'.encode()),
    policy=st.none()
    | st.builds(
        PolicyVerdict, allowed=st.booleans(), reason=TEXTS, policy_hash=st.just(POLICY_HASH)
    ),
    members=st.dictionaries(TEXTS, st.lists(TEXTS | st.integers(-5, 5), max_size=3), max_size=3),
    headers=st.dictionaries(TEXTS, TEXTS, max_size=3),
    url=st.none() | TEXTS,
    idempotent=st.booleans(),
    fu_tokens=st.integers(0, 2**53 - 1),
)
def test_what_is_written_is_read_again(**members: object) -> None:
    """Decoding gives back every member, whatever it held."""
    salt = members.pop("salt")
    intent = Intent(subject=subject(salt=salt), **members)  # type: ignore[arg-type]
    assert Intent.decode(intent.encode()) == intent
    assert Intent.decode(intent.encode()).encode() == intent.encode()
