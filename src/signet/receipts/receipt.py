"""One receipt: its members, its hash, its signature (docs/reference/receipts.md §2 and §3).

A receipt is sealed once, whole: canonical bytes, hash and signature come out together, and the
bytes are what is stored, sent and verified. Nothing is ever added to a sealed receipt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from operator import itemgetter
from typing import Literal, NamedTuple, get_args

from signet.receipts.canonical import Json, content_id, pointer, simple_bytes
from signet.receipts.errors import CanonicalError, SealError
from signet.receipts.ijson import MAX_SAFE_INTEGER
from signet.receipts.keys import SigningKey

Kind = Literal["exchange", "delivery", "resolution", "key"]
Outcome = Literal["allowed", "denied", "failed", "unknown"]

RECEIPT_TYP = "signet-receipt+jws"
# Where the lives of the signing keys are told, in receipts of kind `key`.
KEY_TENANT = "_system"
KEY_TRACE = "signet.keys"
KINDS: tuple[str, ...] = get_args(Kind)
OUTCOMES: tuple[str, ...] = get_args(Outcome)

# Members that every receipt has, whatever its kind; `receipt_hash` is added by `seal`.
_EVERY = frozenset(
    {"v", "iss", "trace_id", "hop", "prev_receipt_hash", "ts", "tenant", "kind", "algo", "nonce"}
)
_OF_AN_EXCHANGE = frozenset({"outcome", "reason", "idempotency_key_hash"})
_OPTIONAL = frozenset(
    {
        "cid",
        "request_cid",
        "canon_profile",
        "unicode",
        "nfc_changed",
        "payload_type",
        "target_type",
        "schema_in",
        "schema_out",
        "map",
        "policy",
        "repair",
        "forwarded",
        "fu_tokens",
        "vex_units",
    }
)
REQUIRED: Mapping[str, frozenset[str]] = {
    "exchange": _EVERY
    | _OF_AN_EXCHANGE
    | {"request_cid", "canon_profile", "payload_type", "target_type", "fu_tokens", "vex_units"},
    "delivery": _EVERY | _OF_AN_EXCHANGE | {"forwarded"},
    "resolution": _EVERY | _OF_AN_EXCHANGE,
    "key": _EVERY | {"key"},
}
KNOWN: Mapping[str, frozenset[str]] = {
    kind: required if kind == "key" else required | _OPTIONAL for kind, required in REQUIRED.items()
}


@dataclass(frozen=True, slots=True)
class SealedReceipt:
    """A signed receipt: the bytes to store and send, their name, their proof.

    `canonical` is JCS of the receipt including `receipt_hash`; `jws` is a compact JWS over
    exactly these bytes.
    """

    canonical: bytes
    receipt_hash: str
    jws: str


def seal(members: Mapping[str, Json], key: SigningKey) -> SealedReceipt:
    """Canonicalise, hash and sign a receipt. `members` is everything but `receipt_hash`.

    Raises `SealError` if a member is missing, unknown or malformed (`canon` and `receipt_hash`
    are unknown here), and for floats, Decimals, integers beyond ±(2^53−1) and names that are
    not ASCII, at any depth: so that the simplest verifier agrees with the strictest.
    """
    if not is_usual(members):
        _refuse(members)
    try:
        # What has no fault has no float and only ASCII names.
        whole = {**members}
        whole["receipt_hash"] = receipt_hash = content_id(simple_bytes(whole))
        canonical = simple_bytes(whole)
    except CanonicalError as error:
        raise SealError(error.detail, code="not_plain", pointer=error.pointer) from error
    return SealedReceipt(canonical, receipt_hash, key.jws(canonical, typ=RECEIPT_TYP))


def _refuse(members: Mapping[str, Json]) -> None:
    """Raise what is wrong with these members, if something is."""
    for fault in faults(members):
        raise SealError(fault.detail, code=fault.code, pointer=fault.pointer)
    unknown = members.keys() - KNOWN[str(members["kind"])]
    if unknown:
        name = min(unknown, key=str)
        raise SealError(
            f"A receipt of this kind has no member {name!r}.",
            code="member_unknown",
            pointer=pointer(name),
        )


def timestamp(time_us: int) -> str:
    """Microseconds UTC as the receipt writes them: `2026-01-31T09:00:00.000001Z` (RFC 3339)."""
    second, rest_us = divmod(time_us, 1_000_000)
    return f"{_second(second)}.{rest_us:06d}Z"


@lru_cache(maxsize=4)  # the present second is asked for again and again
def _second(time_s: int) -> str:
    return (_EPOCH + timedelta(seconds=time_s)).strftime("%Y-%m-%dT%H:%M:%S")


def timestamp_us(text: str) -> int:
    """The microseconds UTC of a receipt's timestamp. Raises `ValueError` for any other form."""
    if _TIMESTAMP.fullmatch(text) is None:
        raise ValueError("not an RFC 3339 timestamp in UTC with microseconds")
    moment = datetime.fromisoformat(text.removesuffix("Z") + "+00:00")
    return (moment - _EPOCH) // timedelta(microseconds=1)


# --- what a receipt is ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MemberFault:
    """Why something is not a receipt, and where."""

    code: Literal["member_missing", "member_invalid", "not_plain"]
    pointer: str
    detail: str

    @property
    def member(self) -> str:
        """The top-level member that is at fault."""
        return self.pointer.split("/")[1]


def faults(members: Mapping[str, Json]) -> Iterator[MemberFault]:
    """What keeps these members from being a receipt: the rules that sealer and verifier share.

    Members that are not known are no fault here: a later version may add some, and the hash
    covers them.
    """
    kind = members.get("kind")
    if not isinstance(kind, str) or kind not in REQUIRED:
        yield MemberFault("member_invalid", "/kind", f"`kind` is one of {', '.join(KINDS)}.")
        return
    missing = REQUIRED[kind] - members.keys()
    if missing:
        name = min(missing)
        yield MemberFault("member_missing", pointer(name), f"The member {name!r} is missing.")
        return
    for name, value in members.items():
        # Most members are texts with a pattern, and asking it here is half of asking the rule.
        if type(value) is str and (matches := _PATTERNS.get(name)) is not None and matches(value):
            continue
        rule = _RULES.get(name)
        if rule is not None and not rule[0](value):
            yield MemberFault("member_invalid", pointer(name), f"`{name}` must be {rule[1]}.")
    if (members["hop"] == 1) is not (members["prev_receipt_hash"] is None):
        yield MemberFault(
            "member_invalid",
            "/prev_receipt_hash",
            "`prev_receipt_hash` is null at hop 1, and only there.",
        )
    # `canon` would be taken by other verifiers for the canonical payload text and hashed as that.
    if "canon" in members:
        yield MemberFault("member_invalid", "/canon", "A receipt has no member `canon`.")
    yield from _not_plain(members)


def _not_plain(members: Mapping[str, Json]) -> Iterator[MemberFault]:
    """Whatever two correct JSON implementations could read or sort differently."""
    if _is_simple(dict(members)):
        return
    found: list[tuple[tuple[str | int, ...], Json]] = [
        ((name,), member) for name, member in members.items()
    ]
    for path, value in found:
        if not all(token.isascii() for token in path if isinstance(token, str)):
            yield MemberFault("not_plain", pointer(*path), "Names in a receipt are ASCII.")
        elif isinstance(value, dict):
            found.extend(((*path, name), member) for name, member in value.items())
        elif isinstance(value, list):
            found.extend(((*path, index), item) for index, item in enumerate(value))
        elif isinstance(value, float | Decimal):
            yield MemberFault("not_plain", pointer(*path), "Numbers in a receipt are integers.")
        elif not _is_leaf(value):
            yield MemberFault("not_plain", pointer(*path), "A receipt holds nothing but JSON.")
        elif isinstance(value, int) and not -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
            yield MemberFault(
                "not_plain", pointer(*path), "Integers in a receipt are within ±(2^53−1)."
            )


def _is_leaf(value: object) -> bool:
    return value is None or isinstance(value, (str, int))


_SIMPLE = frozenset({str, bool, type(None)})


def _is_simple(container: Json) -> bool:
    """The same question answered without places, which is the whole answer nearly always."""
    found = [container]
    for container in found:
        if isinstance(container, dict):
            if not "".join(container).isascii():
                return False
            values = container.values()
        elif isinstance(container, list):
            values = container
        else:
            return False
        for value in values:
            kind = type(value)
            if kind in _SIMPLE:
                continue
            if kind is dict or kind is list:
                found.append(value)
            elif not isinstance(value, int) or not -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
                return False
    return True


# --- the same for who seals: all texts at one stroke ------------------------------------------


class _Form(NamedTuple):
    """What receipts of one kind with members of the same names have in common.

    `text` is matched by the texts that `texts_of` takes out of the members, one to a line.
    `others` are the members that are no texts, with their rules.
    """

    texts_of: Callable[[Mapping[str, Json]], tuple[str, ...]]
    text: re.Pattern[str]
    others: tuple[tuple[str, Callable[[Json], bool]], ...]


@lru_cache(maxsize=64)  # what is sealed has few forms; nobody else is asked for one
def _form(kind: str, *names: str) -> _Form | None:
    """The form of such a receipt; None: there can be none."""
    known = KNOWN.get(kind)
    if known is None or not REQUIRED[kind] <= set(names) <= known:
        return None
    texts = [name for name in names if name in _TEXTS and name != "prev_receipt_hash"]
    return _Form(
        itemgetter(*texts),
        # No text of a receipt has a line break in it, so none can pass for two.
        re.compile("\n".join(f"(?:{_TEXTS[name]})" for name in texts)),
        tuple((name, _RULES[name][0]) for name in names if name not in {*texts, "kind"}),
    )


def is_usual(members: Mapping[str, Json]) -> bool:
    """Whether `faults` would find none, nor is a member unknown. False only says: look closely."""
    kind = members.get("kind")
    form = _form(kind, *members) if type(kind) is str else None
    if form is None:
        return False
    try:
        texts = "\n".join(form.texts_of(members))
    except TypeError:  # one of them is no text
        return False
    if form.text.fullmatch(texts) is None:
        return False
    others: list[Json] = []
    for name, holds in form.others:
        value = members[name]
        if not holds(value):
            return False
        others.append(value)
    first = members["hop"] == 1
    return first is (members["prev_receipt_hash"] is None) and _is_simple(others)


# --- the rules of the single members --------------------------------------------------------

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = len("2026-01-31T09:00:00")
_TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")


def _text(name: str) -> Callable[[Json], bool]:
    matches = _PATTERNS[name]
    return lambda value: isinstance(value, str) and matches(value) is not None


def _at_least(least: int) -> Callable[[Json], bool]:
    return lambda value: type(value) is int and value >= least


def _is_timestamp(value: Json) -> bool:
    return (
        isinstance(value, str)
        and _TIMESTAMP.fullmatch(value) is not None
        and _is_second(value[:_SECOND])
    )


@lru_cache(maxsize=4)  # as above
def _is_second(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).year >= _EPOCH.year
    except ValueError:
        return False


def _is_hash_or_null(value: Json) -> bool:
    return value is None or _is_hash(value)


def _is_object(value: Json) -> bool:
    return isinstance(value, dict)


_ANY_NAME = r"[^\x00-\x1f]{1,512}"
_ANY_HASH = "sha256:[0-9a-f]{64}"
_TEXTS: Mapping[str, str] = {
    "iss": _ANY_NAME,
    "trace_id": r"[A-Za-z0-9._:-]{1,128}",
    "prev_receipt_hash": _ANY_HASH,
    # A leading underscore is reserved for ourselves, such as the key log in `_system`.
    "tenant": r"_?[A-Za-z0-9][A-Za-z0-9._-]{0,62}",
    "outcome": "|".join(OUTCOMES),
    "reason": _ANY_NAME,
    "cid": _ANY_HASH,
    "request_cid": _ANY_HASH,
    "canon_profile": r"jcs|nfc\+jcs",
    "unicode": _ANY_NAME,
    "algo": "sha256",
    "payload_type": _ANY_NAME,
    "target_type": _ANY_NAME,
    "schema_in": _ANY_HASH,
    "schema_out": _ANY_HASH,
    "map": _ANY_HASH,
    "idempotency_key_hash": "[0-9a-f]{64}",
    "nonce": "[0-9a-f]{32}",
}
_PATTERNS: Mapping[str, Callable[[str], object]] = {
    name: re.compile(pattern).fullmatch for name, pattern in _TEXTS.items()
}
_is_hash = _text("cid")
_HASH = (_is_hash, '"sha256:" and 64 lowercase hex digits')
_NAME = (_text("iss"), "a text of 1 to 512 characters without control characters")
_COUNT = (_at_least(0), "an integer, 0 or more")
_OBJECT = (_is_object, "an object")

_RULES: Mapping[str, tuple[Callable[[Json], bool], str]] = {
    "v": (lambda value: type(value) is int and value == 1, "1"),
    "iss": _NAME,
    "trace_id": (_text("trace_id"), "1 to 128 of A–Z a–z 0–9 . _ : -"),
    "hop": (_at_least(1), "an integer, 1 or more"),
    "prev_receipt_hash": (_is_hash_or_null, "null or a receipt hash"),
    "ts": (_is_timestamp, "an RFC 3339 time in UTC with microseconds"),
    "tenant": (_text("tenant"), "a tenant id"),
    "outcome": (_text("outcome"), f"one of {', '.join(OUTCOMES)}"),
    "reason": _NAME,
    "cid": _HASH,
    "request_cid": _HASH,
    "canon_profile": (_text("canon_profile"), "jcs or nfc+jcs"),
    "unicode": _NAME,
    "nfc_changed": (lambda value: isinstance(value, list), "an array"),
    "algo": (_text("algo"), "sha256"),
    "payload_type": _NAME,
    "target_type": _NAME,
    "schema_in": _HASH,
    "schema_out": _HASH,
    "map": _HASH,
    "policy": _OBJECT,
    "repair": _OBJECT,
    "forwarded": _OBJECT,
    "key": _OBJECT,
    "fu_tokens": _COUNT,
    "vex_units": _COUNT,
    "idempotency_key_hash": (_text("idempotency_key_hash"), "64 lowercase hex digits"),
    "nonce": (_text("nonce"), "32 lowercase hex digits"),
}
