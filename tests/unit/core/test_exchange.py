"""The envelope, and the words in which an exchange ends."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signet.core.exchange import (
    Decision,
    EnvelopeInvalid,
    Outcome,
    PolicyVerdict,
    Refusal,
    read_envelope,
)
from signet.receipts.canonical import Json

MINIMAL: dict[str, Json] = {"payload_type": "a.v1", "target_type": "b.v1", "payload": {}}
HASH = "sha256:" + "0" * 64


def test_the_least_envelope() -> None:
    """What is not said takes its default; an absent `expected_prev` expects nothing."""
    envelope = read_envelope(MINIMAL)
    assert envelope.trace_id is None
    assert envelope.forward_url is None
    assert envelope.expected_prev == "any"
    assert envelope.delivery == "sync"


def test_the_whole_envelope() -> None:
    """Every member arrives as given; a null `expected_prev` means that there is no receipt yet."""
    envelope = read_envelope(
        MINIMAL
        | {
            "trace_id": "t",
            "forward_url": "https://a.example/",
            "expected_prev": None,
            "delivery": "queued",
        }
    )
    assert envelope.trace_id == "t"
    assert envelope.forward_url == "https://a.example/"
    assert envelope.expected_prev is None
    assert envelope.delivery == "queued"
    assert read_envelope(MINIMAL | {"expected_prev": HASH}).expected_prev == HASH


@pytest.mark.parametrize("document", [None, True, 1, "x", [], [MINIMAL], Decimal("1")])
def test_only_an_object_is_an_envelope(document: Json) -> None:
    """Everything else is one fault about the whole."""
    with pytest.raises(EnvelopeInvalid) as caught:
        read_envelope(document)
    assert caught.value.code == "envelope_invalid"
    assert [fault.pointer for fault in caught.value.faults] == [""]


@pytest.mark.parametrize(
    ("member", "values"),
    [
        ("payload_type", [None, 1, "", "a b", "a\n", "x" * 129, ["a"], {}]),
        ("target_type", [None, 1, "", ".v1", "é", [], {}]),
        ("payload", [None, 1, "x", True, Decimal("1.5")]),
        ("trace_id", [1, Decimal("1"), True, [], ["t"], {}, "", "a b", "a\r\nb", "a\n", "x" * 129]),
        ("forward_url", [1, [], "", "a b", "a\tb", "a\nb", "x" * 2049, "a\u00a0b", "a\u2028b"]),
        ("expected_prev", [1, "", "any", HASH[:-1], HASH.upper(), HASH + "\n", []]),
        ("delivery", ["", "SYNC", 1, True, [], {}]),
    ],
)
def test_each_member_is_held_to_its_rule(member: str, values: list[Json]) -> None:
    """A malformed member is named by its pointer, whatever kind of value it is."""
    for value in values:
        with pytest.raises(EnvelopeInvalid) as caught:
            read_envelope(MINIMAL | {member: value})
        assert [fault.pointer for fault in caught.value.faults] == [f"/{member}"], value


def test_an_unknown_member_decides_the_code() -> None:
    """One unknown member makes it `unknown_member`, beside whatever else is wrong."""
    with pytest.raises(EnvelopeInvalid) as caught:
        read_envelope({"payload": 1, "surprise": 2})
    assert caught.value.code == "unknown_member"
    assert {fault.code for fault in caught.value.faults} == {
        *("missing_member", "malformed_member", "unknown_member")
    }


def test_faults_are_bounded() -> None:
    """A body with a thousand unknown members is told of twenty."""
    with pytest.raises(EnvelopeInvalid) as caught:
        read_envelope({f"m{index}": index for index in range(1000)})
    assert len(caught.value.faults) == 20


@given(
    st.dictionaries(
        st.sampled_from([*MINIMAL, "trace_id", "forward_url", "expected_prev", "delivery", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.decimals(),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(st.text(max_size=2), inner, max_size=2)
            ),
            max_leaves=4,
        ),
    )
)
def test_any_object_is_an_envelope_or_has_faults(document: dict[str, Json]) -> None:
    """Nothing but `EnvelopeInvalid` comes out, and it always says where."""
    try:
        envelope = read_envelope(document)
    except EnvelopeInvalid as error:
        assert error.faults  # noqa: PT017 - either way out is in order
    else:
        assert envelope.payload == document["payload"]


def test_a_decision_gives_its_reason() -> None:
    """`ok`, the refusal's own reason, or else its code."""

    def reason(refusal: Refusal | None) -> str:
        return Decision(
            outcome=Outcome.FAILED, refusal=refusal, normalized=None, policy=None, members={}
        ).reason

    assert reason(None) == "ok"
    assert reason(Refusal(code="schema_invalid", detail="")) == "schema_invalid"
    denied = Refusal(code="egress_denied", detail="", reason="HEL_HOST_NOT_ALLOWED")
    assert reason(denied) == "HEL_HOST_NOT_ALLOWED"


def test_the_policy_member() -> None:
    """A verdict is shown with its engine and the hash of the policy in force."""
    verdict = PolicyVerdict(allowed=False, reason="HEL_URL_INVALID", policy_hash=HASH)
    assert verdict.document() == {
        "engine": "HEL",
        "allowed": False,
        "reason": "HEL_URL_INVALID",
        "policy_hash": HASH,
    }
