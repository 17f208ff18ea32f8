"""A decision takes its place in the chain."""

from __future__ import annotations

import json

from tests.inprocess import key_at, signing_key
from tests.unit.gateway.calls import decision, subject

from signet.api.answers import render
from signet.core.exchange import Outcome, Refusal
from signet.gateway.sealing import Draft, Sealer, pending, salted_id
from signet.receipts.canonical import content_id
from signet.receipts.keys import KeySet
from signet.receipts.verify import verify_chain
from signet.storage.exchanges import Head

NOW_US = 1_767_225_599_000_000  # 2025-12-31T23:59:59Z, in Berlin another year already


def _sealer(zone: str = "UTC") -> Sealer:
    return Sealer(
        issuer="https://signet.test",
        key_at=key_at,
        render=render,
        clock=lambda: NOW_US,
        dice=lambda count: b"\x07" * count,
        zone_of=lambda _tenant: zone,
    )


def test_the_first_receipt_begins_a_chain_and_the_next_follows() -> None:
    """Hop, link and hash make a chain that verifies."""
    seal = _sealer()
    waiting = pending(Draft(subject=subject(), decision=decision()), expected="any")
    first = seal(waiting, None)
    second = seal(waiting, Head(hop=1, receipt_hash=first.receipt_hash))
    assert (first.hop, second.hop) == (1, 2)
    told = json.loads(second.canonical)
    assert told["prev_receipt_hash"] == first.receipt_hash
    assert told["nonce"] == "07" * 16
    report = verify_chain(
        [first.canonical, second.canonical],
        [first.jws, second.jws],
        jwks=KeySet.of([signing_key().public]),
    )
    assert report.hops == 2


def test_only_an_allowed_exchange_is_metered() -> None:
    """Refusals and later receipts count nothing; spent tokens count once."""
    seal = _sealer()
    for outcome in Outcome:
        refusal = None
        if outcome is not Outcome.ALLOWED:
            refusal = Refusal(code="schema_invalid", detail="x", outcome=outcome)
        decided = decision(outcome=outcome, refusal=refusal, fu_tokens=7)
        draft = Draft(subject=subject(), decision=decided)
        sealed = seal(pending(draft, expected="any"), None)
        assert sealed.vex_units == (outcome is Outcome.ALLOWED)
        assert sealed.fu_tokens == 7
        later = seal(pending(draft, kind="resolution", expected="any"), None)
        assert (later.vex_units, later.fu_tokens) == (0, 0)


def test_a_later_receipt_claims_no_key() -> None:
    """A resolution cannot be retried and holds no fence."""
    draft = Draft(subject=subject(), decision=decision(fence=3))
    exchange = pending(draft, expected="any")
    assert (exchange.key_hash, exchange.fence) == (b"k" * 32, 3)
    resolution = pending(draft, kind="resolution", expected="any")
    assert (resolution.key_hash, resolution.fence) == (None, None)


def test_the_period_is_the_tenant_s() -> None:
    """The last second of a year in UTC is next year's in Berlin."""
    waiting = pending(Draft(subject=subject(), decision=decision()), expected="any")
    assert _sealer()(waiting, None).period == "2025-12"
    assert _sealer("Europe/Berlin")(waiting, None).period == "2026-01"


def test_what_was_not_made_has_no_cid() -> None:
    """A refusal before the result stores no payload."""
    refusal = Refusal(code="schema_invalid", detail="x")
    decided = decision(normalized=None, refusal=refusal, outcome=Outcome.FAILED)
    sealed = _sealer()(pending(Draft(subject=subject(), decision=decided), expected="any"), None)
    assert sealed.payload_cid is None
    assert b'"cid"' not in sealed.canonical


def test_a_salt_hides_what_is_hashed() -> None:
    """With a salt the CID is that of salt and content, and the salt is stored with it."""
    salt = b"s" * 16
    draft = Draft(subject=subject(salt=salt), decision=decision())
    sealed = _sealer()(pending(draft, expected="any"), None)
    assert sealed.payload_cid == content_id(salt + b'{"sku":"A"}')
    assert sealed.payload_salt == salt
    assert salted_id(None, b"x") == content_id(b"x")
