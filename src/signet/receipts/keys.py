"""Ed25519 keys, JWKs and JWS: RFC 8032, RFC 8037, RFC 7638 (thumbprint), RFC 7515, RFC 9864.

A key is named by its RFC 7638 thumbprint, so a name cannot be claimed by another key. An alias is
a second name for the same key in the published set, and proves nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from signet.receipts.accelerator import ed25519_signer
from signet.receipts.canonical import Json, canonicalize
from signet.receipts.errors import KeyFormatError

Algorithm = Literal["EdDSA", "Ed25519"]

_SEED_BYTES = 32
_MICROSECONDS = 1_000_000


def b64url(data: bytes) -> str:
    """Base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def from_b64url(text: str) -> bytes:
    """The bytes of unpadded base64url; exactly one text is accepted for each byte string.

    Raises `KeyFormatError` for padding, foreign characters and non-zero trailing bits (RFC 4648
    §3.5): otherwise one signature would have many spellings.
    """
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error) as error:
        raise KeyFormatError("This is not base64url.", code="key_format") from error
    if b64url(data) != text:
        raise KeyFormatError("This is not base64url in its one canonical form.", code="key_format")
    return data


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """An Ed25519 public key and what is known about its life.

    `not_before_s`, `expires_s` and `revoked_at_s` are NumericDates (seconds since 1970, UTC); a
    signature counts from `not_before_s` on and before the earlier of the two ends. `alias` is
    the name given by the operator (`SP_KID`).
    """

    raw: bytes
    alias: str | None = field(default=None, compare=False)
    not_before_s: int | None = None
    expires_s: int | None = None
    revoked_at_s: int | None = None
    kid: str = field(init=False)
    _key: Ed25519PublicKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            key = Ed25519PublicKey.from_public_bytes(self.raw)
        except ValueError as error:
            raise KeyFormatError(
                "An Ed25519 public key is 32 bytes long.", code="key_format"
            ) from error
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "kid", thumbprint(self.raw))

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` over `message` was made by this key (RFC 8032 §5.1.7)."""
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def ended_by(self, time_us: int) -> bool:
        """Whether the key had expired or was revoked at `time_us` (microseconds, UTC)."""
        ends = [end for end in (self.expires_s, self.revoked_at_s) if end is not None]
        return bool(ends) and time_us >= min(ends) * _MICROSECONDS

    def begun_by(self, time_us: int) -> bool:
        """Whether the key's life had begun at `time_us` (microseconds, UTC)."""
        return self.not_before_s is None or time_us >= self.not_before_s * _MICROSECONDS

    def jwk(self, *, kid: str | None = None) -> dict[str, Json]:
        """The JWK under its thumbprint, or under another name.

        Without `alg`: a key serves `EdDSA` and `Ed25519` alike, and some JOSE libraries refuse
        a token whose header spells the algorithm in the other way.
        """
        document: dict[str, Json] = {
            "kty": "OKP",
            "crv": "Ed25519",
            "use": "sig",
            "kid": kid or self.kid,
            "x": b64url(self.raw),
        }
        life = {"nbf": self.not_before_s, "exp": self.expires_s, "revoked_at": self.revoked_at_s}
        document.update({name: value for name, value in life.items() if value is not None})
        return document


class SigningKey:
    """An Ed25519 private key that signs receipts and bundles."""

    __slots__ = ("_headers", "_private", "_sign", "alg", "alias", "kid", "public")

    def __init__(
        self, private: Ed25519PrivateKey, *, alias: str | None = None, alg: Algorithm = "EdDSA"
    ) -> None:
        self._private = private
        self.public = PublicKey(raw=private.public_key().public_bytes_raw(), alias=alias)
        self.kid = self.public.kid
        self.alias = alias
        self.alg: Algorithm = alg
        self._headers: dict[str, str] = {}
        self._sign = _fastest(private)

    @classmethod
    def generate(cls, *, alias: str | None = None, alg: Algorithm = "EdDSA") -> SigningKey:
        """A new key from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate(), alias=alias, alg=alg)

    @classmethod
    def from_seed(
        cls, seed: bytes, *, alias: str | None = None, alg: Algorithm = "EdDSA"
    ) -> SigningKey:
        """The key of a 32-byte seed (RFC 8032 §5.1.5). Raises `KeyFormatError`."""
        if len(seed) != _SEED_BYTES:
            raise KeyFormatError(
                f"An Ed25519 seed is {_SEED_BYTES} bytes long; this one has {len(seed)}.",
                code="key_format",
            )
        return cls(Ed25519PrivateKey.from_private_bytes(seed), alias=alias, alg=alg)

    @classmethod
    def from_b64(
        cls, text: str, *, alias: str | None = None, alg: Algorithm = "EdDSA"
    ) -> SigningKey:
        """The key of a seed in base64url or base64, padded or not. Raises `KeyFormatError`.

        No message repeats any part of the text, which is a secret.
        """
        plain = text.strip().rstrip("=").replace("+", "-").replace("/", "_")
        try:
            seed = from_b64url(plain)
        except KeyFormatError:
            raise KeyFormatError(
                "The private key is not base64: it must be the base64url text of a 32-byte seed.",
                code="key_format",
            ) from None
        return cls.from_seed(seed, alias=alias, alg=alg)

    @property
    def seed_b64(self) -> str:
        """The seed in unpadded base64url. This is the secret itself."""
        return b64url(self._private.private_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature over `message`."""
        return self._sign(message)

    def jws(self, payload: bytes, *, typ: str, detached: bool = False) -> str:
        """Compact JWS (RFC 7515 §3.1) over `payload`; detached leaves the middle part empty."""
        header = self._headers.get(typ) or self._header(typ)
        signed = f"{header}.{b64url(payload)}"
        signature = b64url(self._sign(signed.encode("ascii")))
        return f"{header}..{signature}" if detached else f"{signed}.{signature}"

    def _header(self, typ: str) -> str:
        members: dict[str, Json] = {"alg": self.alg, "kid": self.kid, "typ": typ}
        encoded = b64url(canonicalize(members))
        self._headers[typ] = encoded
        return encoded

    def __repr__(self) -> str:
        return f"SigningKey(kid={self.kid!r})"  # never the seed: reprs end up in logs


def _fastest(private: Ed25519PrivateKey) -> Callable[[bytes], bytes]:
    """What signs with this key. Ed25519 is deterministic (RFC 8032 §5.1.6), so two that are right
    agree to the byte, and one that does not is not used."""
    signer = ed25519_signer(private.private_bytes_raw())
    probe = b"signet"
    return private.sign if signer is None or signer(probe) != private.sign(probe) else signer


@dataclass(frozen=True, slots=True)
class KeySet:
    """Public keys by name: each under its thumbprint and, where given, its alias."""

    _by_kid: Mapping[str, PublicKey]

    @classmethod
    def of(cls, keys: Iterable[PublicKey]) -> KeySet:
        """The set of these keys. Raises `KeyFormatError` if two keys claim one name."""
        by_kid: dict[str, PublicKey] = {}
        for key in keys:
            for kid in (key.kid, key.alias or key.kid):
                # Equality covers the key's life as well: an alias must not outlive its key.
                if by_kid.setdefault(kid, key) != key:
                    raise KeyFormatError(f"Two keys claim the kid {kid!r}.", code="key_format")
        return cls(by_kid)

    @classmethod
    def from_jwks(cls, document: Json) -> KeySet:
        """The Ed25519 keys of a JWKS (RFC 7517 §5); other kinds of key are passed over, and so are
        keys for another use (§4.2): one that signs webhooks says nothing about receipts.

        A JWK whose `kid` is not its thumbprint is an alias. Raises `KeyFormatError`, also for a
        private key: whoever publishes one must hear of it.
        """
        listed = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(listed, list):
            raise KeyFormatError("A JWKS is an object with an array `keys`.", code="key_format")
        return cls.of(
            _from_jwk(jwk)
            for jwk in listed
            if isinstance(jwk, dict)
            and (jwk.get("kty"), jwk.get("crv")) == ("OKP", "Ed25519")
            and jwk.get("use", "sig") == "sig"
        )

    def find(self, kid: str) -> PublicKey | None:
        """The key of that name, or None."""
        return self._by_kid.get(kid)

    def jwks(self) -> dict[str, Json]:
        """The set as a JWKS document (RFC 7517 §5), ready to be published."""
        return {"keys": [key.jwk(kid=kid) for kid, key in self._by_kid.items()]}


def _from_jwk(jwk: dict[str, Json]) -> PublicKey:
    """The public key of one Ed25519 JWK (RFC 8037 §2). Raises `KeyFormatError`."""
    kid, x = jwk.get("kid"), jwk.get("x")
    if "d" in jwk:
        raise KeyFormatError(f"The JWK {kid!r} holds a private key.", code="key_format")
    if not isinstance(x, str) or not isinstance(kid, str):
        raise KeyFormatError("A JWK needs `kid` and `x`, both texts.", code="key_format")
    key = PublicKey(
        raw=from_b64url(x),
        not_before_s=_numeric_date(jwk, "nbf"),
        expires_s=_numeric_date(jwk, "exp"),
        revoked_at_s=_numeric_date(jwk, "revoked_at"),
    )
    if kid == key.kid:
        return key
    # A name in the form of a thumbprint that is not this key's own could only mislead.
    if len(kid) == len(key.kid) and _is_b64url(kid):
        raise KeyFormatError(f"The JWK {kid!r} has another thumbprint.", code="key_format")
    return replace(key, alias=kid)


def _numeric_date(jwk: dict[str, Json], name: str) -> int | None:
    value = jwk.get(name)
    if value is None or (type(value) is int and value >= 0):
        return value
    raise KeyFormatError(f"`{name}` in a JWK is a time in whole seconds.", code="key_format")


def _is_b64url(text: str) -> bool:
    try:
        return bool(from_b64url(text))
    except KeyFormatError:
        return False


def thumbprint(raw: bytes) -> str:
    """The RFC 7638 thumbprint of an Ed25519 public key (members as in RFC 8037 §2)."""
    members: dict[str, Json] = {"crv": "Ed25519", "kty": "OKP", "x": b64url(raw)}
    return b64url(hashlib.sha256(canonicalize(members)).digest())


def detach(jws: str) -> str:
    """A compact JWS without its payload (RFC 7515 appendix F): `header..signature`."""
    header, _, rest = jws.partition(".")
    return f"{header}..{rest.rpartition('.')[2]}"
