"""Header values that receivers check with other people's code."""

import base64
import hashlib
import json
import time

import pytest
import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from signet.egress.errors import PolicyInvalid, RequestInvalid
from signet.egress.signing import (
    content_digest,
    derived_idempotency_key,
    forward_headers,
    sign_v1,
    sign_v1a,
    traceparent,
    webhook_key,
)

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
BODY = b'{"test": 2432232314}'


def test_v1_is_the_published_example() -> None:
    """The example of the Standard Webhooks libraries gives its known signature."""
    assert (
        sign_v1(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, BODY)
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9)))
def test_the_reference_library_accepts_our_signature(payload: dict[str, object]) -> None:
    """`standardwebhooks` verifies what we sign, with either secret of a rotation, and no other."""
    body = json.dumps(payload).encode()
    headers = forward_headers(
        body=body,
        trace_id="t-1",
        traceparent=traceparent("t-1", "hop-1"),
        idempotency_key="0" * 64,
        prev_receipt_hash=None,
        webhook_id="msg_1",
        timestamp_s=int(time.time()),
        secrets=[SECRET, OTHER_SECRET],
        signing_keys=[Ed25519PrivateKey.generate()],
    )
    for secret in (SECRET, OTHER_SECRET):
        Webhook(secret).verify(body, headers, json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body + b" ", headers, json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + "A" * 32).verify(body, headers, json_parse=False)


def test_v1a_verifies_over_id_time_and_body() -> None:
    """The asymmetric form signs "id.timestamp.body" with Ed25519, and nothing less."""
    key = Ed25519PrivateKey.generate()
    version, _, signature = sign_v1a(key, "msg_1", 1614265330, BODY).partition(",")
    assert version == "v1a"
    raw = base64.b64decode(signature, validate=True)
    key.public_key().verify(raw, b"msg_1.1614265330." + BODY)
    for content in (BODY, b"msg_2.1614265330." + BODY, b"msg_1.1614265331." + BODY):
        with pytest.raises(InvalidSignature):
            key.public_key().verify(raw, content)


@pytest.mark.parametrize("webhook_id", ["", "a.b", "a b", "a\n", "é", "x" * 256])
def test_an_id_that_could_shift_the_signed_text_is_refused(webhook_id: str) -> None:
    """The separator must not occur in the id."""
    with pytest.raises(RequestInvalid):
        sign_v1(SECRET, webhook_id, 1, b"")


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_!!!!", "c2hvcnQ=", "A" * 31 + "é", "A" * 88]
)
def test_weak_or_malformed_secrets_are_refused(secret: str) -> None:
    """24 to 64 bytes of base64; the error does not repeat the secret."""
    with pytest.raises(PolicyInvalid) as caught:
        webhook_key(secret)
    assert not secret or secret == "whsec_" or secret not in str(caught.value)


@pytest.mark.parametrize("size", [24, 25, 64])
def test_secrets_may_lack_prefix_or_padding(size: int) -> None:
    """Secrets are taken as other implementations write them."""
    key = bytes(range(size))
    text = base64.b64encode(key).decode()
    for form in (text, "whsec_" + text, text.rstrip("=")):
        assert webhook_key(form) == key


def test_content_digest_is_rfc_9530s_example() -> None:
    """RFC 9530 appendix B.1: the digest of `{"hello": "world"}` and a line feed."""
    assert (
        content_digest(b'{"hello": "world"}\n')
        == "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"
    )


@given(st.text(), st.text(), st.text())
def test_the_derived_key_is_the_hash_of_canonical_json(a: str, b: str, c: str) -> None:
    """The spelling is RFC 8785's, as an independent implementation writes it."""
    expected = hashlib.sha256(rfc8785.dumps([a, b, c])).hexdigest()
    assert derived_idempotency_key(a, b, c) == expected


def test_tenants_do_not_collide() -> None:
    """The same client key of two tenants, or a cleverly cut one, gives different keys."""
    keys = {
        derived_idempotency_key("iss", "a", "bc"),
        derived_idempotency_key("iss", "ab", "c"),
        derived_idempotency_key("iss", 'a","b', "c"),
        derived_idempotency_key("issa", "", "bc"),
    }
    assert len(keys) == 4


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("incoming", "start", "end"),
    [
        (f"00-{TRACE}-00f067aa0ba902b7-01", f"00-{TRACE}-", "-01"),
        (f"00-{TRACE}-00f067aa0ba902b7-00", f"00-{TRACE}-", "-00"),
        (f"cc-{TRACE}-00f067aa0ba902b7-03-more", f"00-{TRACE}-", "-01"),
    ],
)
def test_an_incoming_trace_goes_on(incoming: str, start: str, end: str) -> None:
    """The trace id and the sampling flag are kept, the parent is ours."""
    value = traceparent("t-1", "hop-1", incoming)
    assert value.startswith(start)
    assert value.endswith(end)
    assert "00f067aa0ba902b7" not in value


@pytest.mark.parametrize(
    "incoming",
    [
        None,
        "",
        "garbage",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"ff-{TRACE}-00f067aa0ba902b7-01",
        f"00-{TRACE.upper()}-00f067aa0ba902b7-01",
        f"00-{TRACE}-00f067aa0ba902b7-01\r\nX: y",
    ],
)
def test_a_malformed_trace_is_replaced(incoming: str | None) -> None:
    """What is no traceparent does not travel on; all hops of our trace share the derived id."""
    value = traceparent("t-1", "hop-1", incoming)
    assert value[:36] == traceparent("t-1", "hop-2", None)[:36]
    assert value != traceparent("t-1", "hop-2", None)
    assert TRACE not in value


def test_headers_of_a_forward() -> None:
    """A forward carries its digest, key, trace, predecessor and webhook fields."""
    headers = forward_headers(
        body=BODY,
        trace_id="t-1",
        traceparent="00-x",
        idempotency_key="k",
        prev_receipt_hash="sha256:aa",
        webhook_id="msg_1",
        timestamp_s=1614265330,
    )
    assert headers == {
        "Content-Type": "application/json",
        "Content-Digest": content_digest(BODY),
        "Idempotency-Key": "k",
        "traceparent": "00-x",
        "X-SIGNET-Trace": "t-1",
        "X-SIGNET-Prev-Receipt": "sha256:aa",
        "webhook-id": "msg_1",
        "webhook-timestamp": "1614265330",
    }
