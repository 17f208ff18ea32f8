"""Keys, their names, their life, and what they sign."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.receipts.samples import KEY, OTHER_KEY

from signet.receipts import keys
from signet.receipts.errors import KeyFormatError
from signet.receipts.keys import (
    KeySet,
    PublicKey,
    SigningKey,
    b64url,
    detach,
    from_b64url,
    thumbprint,
)

# RFC 8037 appendix A: a key, its thumbprint and a signature by it.
RFC_8037_SEED = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"
RFC_8037_X = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
RFC_8037_KID = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
RFC_8037_SIGNATURE = (
    "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
)


def test_rfc_8037() -> None:
    """The appendix's key has the appendix's public half, thumbprint and signature."""
    key = SigningKey.from_b64(RFC_8037_SEED)
    assert b64url(key.public.raw) == RFC_8037_X
    assert key.kid == key.public.kid == RFC_8037_KID
    message = b64url(b'{"alg":"EdDSA"}') + "." + b64url(b"Example of Ed25519 signing")
    assert b64url(key.sign(message.encode())) == RFC_8037_SIGNATURE


class TestSigningKey:
    """The private half."""

    @pytest.mark.parametrize("padding", ["", "=", "==", "\n"])
    def test_seed_texts(self, padding: str) -> None:
        """base64url and base64, padded or not, with the newline that files end in."""
        seed = bytes(range(240, 256)) + bytes(range(240, 256))
        for text in (base64.b64encode(seed).decode(), base64.urlsafe_b64encode(seed).decode()):
            assert SigningKey.from_b64(text.rstrip("=") + padding).seed_b64 == b64url(seed)

    @pytest.mark.parametrize(
        "text", ["", "abc", "é" * 43, "A" * 42, "A" * 44, "A" * 43 + "B", "*" * 43]
    )
    def test_bad_seed_texts(self, text: str) -> None:
        """One clear sentence, which never repeats the secret."""
        with pytest.raises(KeyFormatError) as refused:
            SigningKey.from_b64(text)
        assert refused.value.code == "key_format"
        assert not text or text not in str(refused.value)
        assert refused.value.__cause__ is None

    @pytest.mark.parametrize("length", [0, 31, 33, 64])
    def test_bad_seeds(self, length: int) -> None:
        """A seed has 32 bytes; a 64-byte expanded key is none."""
        with pytest.raises(KeyFormatError):
            SigningKey.from_seed(bytes(length))

    def test_generated_keys_differ_and_survive_their_text(self) -> None:
        """A key written down is the same key when it is read again."""
        key = SigningKey.generate()
        assert key.kid != SigningKey.generate().kid
        assert SigningKey.from_b64(key.seed_b64).kid == key.kid

    def test_repr_keeps_the_secret(self) -> None:
        """Neither repr nor str shows the seed."""
        assert KEY.seed_b64 not in repr(KEY) + str(KEY)

    def test_jws(self) -> None:
        """Compact serialisation: header and payload as given, the signature over both."""
        jws = KEY.jws(b"payload", typ="some-type")
        header, payload, signature = jws.split(".")
        assert json.loads(from_b64url(header)) == {
            "alg": "EdDSA",
            "kid": KEY.kid,
            "typ": "some-type",
        }
        assert from_b64url(payload) == b"payload"
        assert KEY.public.verify(from_b64url(signature), f"{header}.{payload}".encode())

    def test_detached_jws(self) -> None:
        """Detached (RFC 7515 appendix F) is the same without the middle."""
        header, _, signature = KEY.jws(b"payload", typ="t").split(".")
        assert KEY.jws(b"payload", typ="t", detached=True) == f"{header}..{signature}"
        assert detach(KEY.jws(b"payload", typ="t")) == f"{header}..{signature}"
        assert detach(f"{header}..{signature}") == f"{header}..{signature}"

    def test_the_algorithm_has_two_names(self) -> None:
        """RFC 9864's name can be chosen; the types of header do not get mixed up."""
        key = SigningKey.from_b64(KEY.seed_b64, alg="Ed25519")
        for typ in ("a", "b", "a"):
            header = json.loads(from_b64url(key.jws(b"", typ=typ).split(".")[0]))
            assert header == {"alg": "Ed25519", "kid": KEY.kid, "typ": typ}


class TestPublicKey:
    """The public half."""

    def test_verify(self) -> None:
        """Only this key's signature over exactly this message."""
        signature = KEY.sign(b"message")
        assert KEY.public.verify(signature, b"message")
        assert not KEY.public.verify(signature, b"massage")
        assert not OTHER_KEY.public.verify(signature, b"message")
        assert not KEY.public.verify(b"", b"message")

    def test_a_key_has_32_bytes(self) -> None:
        """Anything else is refused."""
        with pytest.raises(KeyFormatError):
            PublicKey(raw=b"short")

    def test_life(self) -> None:
        """From `nbf` on, and before the earlier of `exp` and `revoked_at`."""
        key = PublicKey(raw=KEY.public.raw, not_before_s=10, expires_s=30, revoked_at_s=20)
        assert [key.begun_by(t) for t in (9_999_999, 10_000_000)] == [False, True]
        assert [key.ended_by(t) for t in (19_999_999, 20_000_000)] == [False, True]
        assert KEY.public.begun_by(0)
        assert not KEY.public.ended_by(2**60)
        assert PublicKey(raw=key.raw, expires_s=30).ended_by(30_000_000)

    def test_jwk(self) -> None:
        """No `alg` (libraries disagree on its name), no private part, and the key's life."""
        assert KEY.public.jwk() == {
            "kty": "OKP",
            "crv": "Ed25519",
            "use": "sig",
            "kid": KEY.kid,
            "x": b64url(KEY.public.raw),
        }
        key = PublicKey(raw=KEY.public.raw, not_before_s=1, expires_s=2, revoked_at_s=3)
        jwk = key.jwk(kid="alias")
        assert (jwk["kid"], jwk["nbf"], jwk["exp"], jwk["revoked_at"]) == ("alias", 1, 2, 3)


class TestKeySet:
    """A JWKS, read and written."""

    def test_round_trip(self) -> None:
        """What is published is read back: thumbprints, aliases and lives."""
        old = PublicKey(raw=OTHER_KEY.public.raw, expires_s=9, alias="old-name")
        published = KeySet.of([KEY.public, old])
        document: Any = json.loads(json.dumps(published.jwks()))
        assert [jwk["kid"] for jwk in document["keys"]] == [KEY.kid, old.kid, "old-name"]
        read = KeySet.from_jwks(document)
        assert read.find(KEY.kid) == KEY.public
        assert read.find("old-name") == read.find(old.kid) == old
        assert read.find("nobody") is None
        assert read.jwks() == document

    def test_other_keys_are_passed_over(self) -> None:
        """A set may hold RSA and X25519 keys and things that are no keys at all."""
        others: Any = [
            {"kty": "RSA", "kid": "r"},
            {"kty": "OKP", "crv": "X25519"},
            KEY.public.jwk() | {"use": "enc"},
            7,
        ]
        assert KeySet.from_jwks({"keys": others}).jwks() == {"keys": []}

    @pytest.mark.parametrize("document", [None, [], {}, {"keys": {}}, {"keys": None}, "keys", 1])
    def test_not_a_set(self, document: Any) -> None:
        """A JWKS is an object with an array of keys."""
        with pytest.raises(KeyFormatError, match="JWKS"):
            KeySet.from_jwks(document)

    @pytest.mark.parametrize(
        "changes",
        [
            {"d": RFC_8037_SEED},
            {"x": None},
            {"x": "short"},
            {"x": RFC_8037_X + "="},
            {"x": RFC_8037_X[:-1] + "p"},
            {"x": "é" * 43},
            {"kid": None},
            {"kid": OTHER_KEY.kid},
            {"nbf": "1"},
            {"exp": -1},
            {"exp": 1.5},
            {"revoked_at": True},
        ],
    )
    def test_malformed_keys(self, changes: dict[str, Any]) -> None:
        """Private keys, foreign thumbprints, other spellings of x, and times that are none."""
        jwk: Any = {"kty": "OKP", "crv": "Ed25519", "kid": RFC_8037_KID, "x": RFC_8037_X}
        assert KeySet.from_jwks({"keys": [jwk]}).find(RFC_8037_KID)
        with pytest.raises(KeyFormatError):
            KeySet.from_jwks({"keys": [jwk | changes]})

    def test_one_name_for_two_keys(self) -> None:
        """An alias belongs to one key."""
        keys = [PublicKey(raw=key.public.raw, alias="main") for key in (KEY, OTHER_KEY)]
        with pytest.raises(KeyFormatError, match="main"):
            KeySet.of(keys)

    def test_an_alias_cannot_outlive_its_key(self) -> None:
        """One key listed with two lives is refused: the longer one would win."""
        ended: Any = PublicKey(raw=KEY.public.raw, expires_s=9).jwk()
        with pytest.raises(KeyFormatError):
            KeySet.from_jwks({"keys": [ended, KEY.public.jwk(kid="alias")]})

    def test_an_alias_may_have_the_length_of_a_thumbprint(self) -> None:
        """Only what could be a thumbprint is held to be one."""
        alias = "a key of ours, named in forty-three letters"
        assert len(alias) == len(KEY.kid)
        assert KeySet.from_jwks({"keys": [KEY.public.jwk(kid=alias)]}).find(alias)


@given(data=st.binary(max_size=40))
def test_base64url_has_one_spelling(data: bytes) -> None:
    """Each byte string has one text, and no neighbouring text is read as the same bytes."""
    text = b64url(data)
    assert from_b64url(text) == data
    for other in (text + "=", text + "A", " " + text, text + "\n"):
        with contextlib.suppress(KeyFormatError):
            assert from_b64url(other) != data


def test_thumbprint_is_rfc_7638() -> None:
    """The appendix's thumbprint, from the raw key."""
    assert thumbprint(from_b64url(RFC_8037_X)) == RFC_8037_KID


class TestSigner:
    """What signs is the fastest that agrees with `cryptography`."""

    def test_another_signature_is_never_given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A library that signs otherwise is passed over."""
        monkeypatch.setattr(keys, "ed25519_signer", lambda _: lambda _: bytes(64))
        key = SigningKey.from_seed(bytes(32))
        assert key.public.verify(key.sign(b"x"), b"x")

    def test_both_make_the_same_bytes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A node with libsodium and one without sign alike."""
        fast = SigningKey.from_seed(bytes(32)).jws(b"receipt", typ="t")
        monkeypatch.setattr(keys, "ed25519_signer", lambda _: None)
        assert SigningKey.from_seed(bytes(32)).jws(b"receipt", typ="t") == fast
