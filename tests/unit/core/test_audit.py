"""What an audit entry is: canonical, hashed, bounded."""

from __future__ import annotations

import hashlib
import json

import pytest

from signet.core.audit import SYSTEM, Change, Entry, Origin, seal_entry
from signet.core.ids import TenantId
from signet.receipts.canonical import Json, canonicalize
from signet.receipts.errors import CanonicalError

NOW_US = 1_700_000_000_000_000


def entry(**members: object) -> Entry:
    """An entry of an exchange."""
    given = {"tenant": "acme", "ts_us": NOW_US, "actor": "env_1", "action": "exchange", **members}
    return Entry(**given)  # pyright: ignore[reportArgumentType]


def change(*, after: Json = None, origin: Origin | None = None) -> Change:
    """A tenant's creation."""
    return Change(
        actor="env_1",
        tenant=TenantId("acme"),
        action="tenant.create",
        object="acme",
        after=after,
        origin=origin,
    )


def test_the_hash_is_that_of_all_other_members() -> None:
    """Whoever parses an entry finds its hash by RFC 8785 and SHA-256 alone."""
    sealed = seal_entry(
        entry(receipt_hash="sha256:" + "0" * 64), seq=7, prev_entry_hash="sha256:" + "1" * 64
    )
    members = json.loads(sealed.body)
    assert canonicalize(members) == sealed.body
    assert members.pop("entry_hash") == sealed.entry_hash
    digest = hashlib.sha256(canonicalize(members)).hexdigest()
    assert sealed.entry_hash == f"sha256:{digest}"


def test_every_member_is_there() -> None:
    """What does not apply is null, so that every entry has the same columns."""
    members = json.loads(seal_entry(entry(), seq=1, prev_entry_hash=None).body)
    assert members.keys() == {
        *("v", "seq", "prev_entry_hash", "entry_hash", "ts", "tenant", "actor", "action"),
        *("object", "code", "count", "receipt_hash", "latency_us", "request_id", "address"),
        *("before", "after"),
    }
    assert members["ts"] == "2023-11-14T22:13:20.000000Z"
    assert members["prev_entry_hash"] is members["object"] is members["before"] is None


@pytest.mark.parametrize("hostile", ["x" * 1_000_000, "\ud800", 'a"},{"', "\x00\r\n"])
def test_no_request_makes_an_entry_large_or_impossible(hostile: str) -> None:
    """An object's name from a request is cut and made text, whatever it is."""
    sealed = seal_entry(entry(object=hostile), seq=1, prev_entry_hash=None)
    assert len(sealed.body) < 2048
    assert canonicalize(json.loads(sealed.body)) == sealed.body


def test_a_change_becomes_an_entry() -> None:
    """A change says what was and what is, and where its request came from."""
    origin = Origin(request_id="r1", address="192.0.2.1", received_us=NOW_US - 1500)
    made = change(after={"id": "acme"}, origin=origin).entry(NOW_US)
    assert (made.before, made.after) == (None, {"id": "acme"})
    assert (made.request_id, made.address, made.latency_us) == ("r1", "192.0.2.1", 1500)
    assert change().entry(NOW_US).latency_us is None


def test_a_state_is_canonical_too() -> None:
    """Numbers and names of a state are spelled and ordered as RFC 8785 says, on either side."""
    state: Json = {"\ue000": 1e21, "😀": 0.0}
    for side in ("before", "after"):
        sealed = seal_entry(entry(**{side: state}), seq=1, prev_entry_hash=None)
        assert '{"😀":0,"\ue000":1e+21}'.encode() in sealed.body


def test_a_large_state_is_named_by_its_hash() -> None:
    """A state beyond 16 KiB is in the entry by its content id and size."""
    state: Json = {"document": "x" * 20_000}
    name = "sha256:" + hashlib.sha256(canonicalize(state)).hexdigest()
    assert change(after=state).entry(NOW_US).after == {"cid": name, "size_bytes": 20_015}


def test_a_state_that_no_json_can_say_is_refused() -> None:
    """Such a change fails whole: it is not made without its entry."""
    with pytest.raises(CanonicalError):
        change(after={"x": "\ud800"}).entry(NOW_US)


def test_the_system_is_no_tenant() -> None:
    """No tenant id collides with the deployment's own chain."""
    assert SYSTEM.startswith("_")
