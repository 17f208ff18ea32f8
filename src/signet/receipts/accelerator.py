"""orjson and libsodium, if they are installed and behave; the library is exact without them.

What we rely on is tried before it is used: a future orjson that escapes, sorts or refuses otherwise
is then not used, instead of quietly changing hashes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar

from signet.receipts.value import Json

try:
    import orjson
except ImportError:  # pragma: no cover - the base install of the verifier
    orjson = None


_T = TypeVar("_T")
_SIGNATURE_BYTES = 64


@dataclass(frozen=True, slots=True)
class Accelerator:
    """`loads` raises ValueError, `echo` and `sorted_dumps` raise TypeError, and nothing else.

    `loads` reads what is JSON (RFC 8259) and keeps one of several equal names; `echo` writes a
    value back compactly; `sorted_dumps` writes it with names in the order of their UTF-8 bytes,
    and asks its second argument for the `fragment` that stands for a foreign value. Both refuse
    integers beyond ±(2^53−1).
    """

    loads: Callable[[bytes], Json]
    echo: Callable[[Json], bytes]
    sorted_dumps: Callable[[Json, Callable[[object], object]], bytes]
    fragment: Callable[[str], object]


def find() -> Accelerator | None:
    """The accelerator, if orjson is there and passes the self-test."""
    if orjson is None:
        return None
    dumps, loads = orjson.dumps, orjson.loads
    strict = (
        orjson.OPT_STRICT_INTEGER
        | orjson.OPT_PASSTHROUGH_SUBCLASS
        | orjson.OPT_PASSTHROUGH_DATACLASS
        | orjson.OPT_PASSTHROUGH_DATETIME
    )
    in_order = strict | orjson.OPT_SORT_KEYS

    def echo(value: Json) -> bytes:
        return dumps(value, None, strict)

    def sorted_dumps(value: Json, foreign: Callable[[object], object]) -> bytes:
        return dumps(value, foreign, in_order)

    found = Accelerator(loads, echo, sorted_dumps, orjson.Fragment)
    return found if behaves(found) else None


def behaves(candidate: Accelerator) -> bool:
    """The self-test: writing is JCS for what we give it to write, reading is strict."""
    try:
        return _writes_jcs(candidate) and _reads_strictly(candidate)
    except Exception:  # whatever it is, it is not what the callers are prepared for
        return False


def _writes_jcs(candidate: Accelerator) -> bool:
    value: Json = {"b": [True, None, 2**53 - 1, Decimal("1.50")], "a": 'é€😀\u2028\x7f\x1f\b\t"\\/'}
    text = '{"a":"é€😀\u2028\x7f\\u001f\\b\\t\\"\\\\/","b":[true,null,9007199254740991,1.5]}'
    refused: tuple[Json, ...] = (2**53, -(2**53), "\ud800", {"\ud800": 1}, _nested(255))
    return (
        candidate.sorted_dumps(value, lambda _: candidate.fragment("1.5")) == text.encode()
        and candidate.echo({"b": [1], "a": ":"}) == b'{"b":[1],"a":":"}'
        and candidate.echo(_nested(254)) == b"[" * 254 + b"]" * 254
        and all(_refuses(candidate.echo, value, TypeError) for value in refused)
    )


def _reads_strictly(candidate: Accelerator) -> bool:
    refused = (b"[NaN]", b'"\\ud800"', b"[1]x", b'"\t"', b"[01]", b"[1.]", b'"\xff"', b"[1e999]")
    return candidate.loads(b' {"a":[1,-0.5,"\\u00e9"]} ') == {"a": [1, -0.5, "é"]} and all(
        _refuses(candidate.loads, text, ValueError) for text in refused
    )


def _nested(depth: int) -> Json:
    value: Json = []
    for _ in range(depth - 1):
        value = [value]
    return value


def _refuses(call: Callable[[_T], object], argument: _T, error: type[Exception]) -> bool:
    try:
        call(argument)
    except error:
        return True
    return False


ACCELERATOR = find()


def ed25519_signer(seed: bytes) -> Callable[[bytes], bytes] | None:
    """libsodium's Ed25519 with this seed, if PyNaCl is there: two thirds of OpenSSL's time.

    Imported here, when somebody is going to sign: who only verifies need not load it.
    """
    try:
        from nacl import bindings
    except ImportError:  # pragma: no cover - the base install of the verifier
        return None
    _, secret = bindings.crypto_sign_seed_keypair(seed)
    return lambda message: bindings.crypto_sign(message, secret)[:_SIGNATURE_BYTES]
