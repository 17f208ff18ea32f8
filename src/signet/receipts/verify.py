"""Offline verification: what a bundle, a chain, a receipt or a statement proves, step by step.

The steps are numbered as in docs/reference/receipts.md §5, and every message names its step. The
first failure ends the proof with `VerificationError`. Trust comes from the caller alone: a document
that brings its own keys proves nothing about who made it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, cast

from signet.receipts.bundle import BUNDLE_TYP, PAGE_TYP
from signet.receipts.canonical import Json, canonicalize, content_id, parse_for_verification
from signet.receipts.chain import first_break
from signet.receipts.errors import KeyFormatError, LevelNotReached, ParseError, VerificationError
from signet.receipts.keys import KeySet, PublicKey, b64url, from_b64url
from signet.receipts.receipt import RECEIPT_TYP, faults, timestamp_us
from signet.receipts.report import AnyReport, Level, Report, StatementReport, Step
from signet.receipts.statement import (
    STATEMENT_TYP,
    LineList,
    StatementError,
    check_members,
    statement_hash,
)

_ALGORITHMS = ("EdDSA", "Ed25519")  # RFC 8037 and its successor RFC 9864: the same signatures


@dataclass(slots=True)
class _Trust:
    """Which keys count. With neither pins nor a key set nothing can be more than INTEGRITY.

    `pins` are thumbprints (or aliases of keys in `jwks`); `jwks` is a key set the caller trusts.
    Pins alone take the key itself from the document, which is safe: a thumbprint is its hash. What
    the document says of that key's life is then the signer's own word.
    """

    pins: frozenset[str]
    jwks: KeySet | None
    used: dict[str, None] = field(default_factory=dict[str, None])

    @property
    def given(self) -> bool:
        """Whether the caller pinned anything at all."""
        return bool(self.pins) or self.jwks is not None

    def find(self, kid: str, carried: KeySet | None) -> PublicKey | None:
        """The key of that name, whether or not it is trusted."""
        keys = self.jwks if self.jwks is not None else carried
        return keys.find(kid) if keys is not None else None

    def covers(self, key: PublicKey) -> bool:
        """Whether the caller trusts the key."""
        if not self.pins:
            return self.jwks is not None
        # An alias is only a claim; it names a key when the caller's own key set says so.
        aliased = self.jwks is not None and key.alias in self.pins
        return key.kid in self.pins or aliased


def verify(
    data: bytes,
    *,
    trust: Collection[str] = (),
    jwks: KeySet | None = None,
    level: Level = Level.SIGNED,
) -> AnyReport:
    """Verify a document of any kind that stands alone.

    `trust` pins key thumbprints, `jwks` is a key set that the caller trusts; with both, a key must
    be in the set and pinned. Raises `VerificationError` if the proof fails, `LevelNotReached` if
    nothing is wrong but less than `level` is proven.
    """
    document = _text(data)
    check = _DOCUMENTS.get(_kind_of(document))
    if check is None:
        _fail(Step.SHAPE, "document_kind", "This kind of document is not known.", member="kind")
    return check(document, _Trust(frozenset(trust), jwks), level)


def verify_statement(
    data: bytes,
    entries: Iterable[tuple[str, int, str, int]] | None = None,
    *,
    trust: Collection[str] = (),
    jwks: KeySet | None = None,
    level: Level = Level.SIGNED,
) -> StatementReport:
    """Verify a billing statement, as `verify` does.

    With `entries`, the (meter, tier, receipt_hash, units) behind its lines in the order they are
    exported, every line is also held against the receipts that it lists.
    """
    return _verified_statement(_text(data), entries, _Trust(frozenset(trust), jwks), level)


def verify_bundle(
    data: bytes,
    *,
    trust: Collection[str] = (),
    jwks: KeySet | None = None,
    level: Level = Level.SIGNED,
) -> Report:
    """Verify an export bundle: what `verify` does, but nothing else than a bundle will do."""
    return _bundle(_text(data), _Trust(frozenset(trust), jwks), level)


def verify_pages(
    pages: Sequence[bytes],
    *,
    trust: Collection[str] = (),
    jwks: KeySet | None = None,
    level: Level = Level.SIGNED,
) -> Report:
    """Verify pages that together hold a chain from hop 1 to its head, in any order."""
    return _pages([_text(page) for page in pages], _Trust(frozenset(trust), jwks), level)


def verify_chain(
    receipts: Sequence[bytes],
    signatures: Sequence[str],
    *,
    trust: Collection[str] = (),
    jwks: KeySet | None = None,
    level: Level = Level.SIGNED,
) -> Report:
    """Verify a chain of receipts with one JWS each, compact or detached."""
    document: dict[str, Json] = {
        "chain": [_text(receipt) for receipt in receipts],
        "signatures": list(signatures),
    }
    return _chain(document, _Trust(frozenset(trust), jwks), level)


def verify_receipt(
    receipt: bytes,
    jws: str,
    *,
    trust: Collection[str] = (),
    jwks: KeySet | None = None,
    level: Level = Level.SIGNED,
) -> Report:
    """Verify one receipt and its JWS; this says nothing of the chain it belongs to."""
    document: dict[str, Json] = {"receipt": _text(receipt), "receipt_jws": jws}
    return _receipt(document, _Trust(frozenset(trust), jwks), level)


# --- the kinds of documents -----------------------------------------------------------------


def _bundle(document: Json, trust: _Trust, level: Level) -> Report:
    members = _members(document, _BUNDLE)
    receipts, signatures = _receipts(members), _signatures(members)
    _step_3_receipts(receipts)
    _step_4_hashes(receipts)
    _step_5_chain(receipts)
    _belongs_to(members, receipts)
    _step_6_content(members, "bundle_cid")
    carried = _carried_keys(members)
    previous = _previous_signatures(members, receipts)
    _step_7_receipt_signatures(receipts, signatures, trust, carried, previous)
    _step_8_document_signatures(members, "bundle", BUNDLE_TYP, trust, carried)
    return _step_9_level("bundle", receipts, trust, level, _OPERATOR_LIMIT)


def _pages(documents: Sequence[Json], trust: _Trust, level: Level) -> Report:
    pages = [_members(document, _PAGE) for document in documents]
    pages.sort(key=lambda page: cast("int", page["from_hop"]))
    receipts: list[dict[str, Json]] = []
    for page in pages:
        own = _receipts(page)
        _step_3_receipts(own)
        _step_4_hashes(own)
        if not own or page["from_hop"] != own[0]["hop"]:
            _fail(Step.CHAIN, "from_hop", "The page does not begin at its hop.", member="from_hop")
        receipts += own
    _step_5_chain(receipts)
    head = cast("dict[str, Json]", pages[-1]["head"])
    last = receipts[-1]
    if head != {"hop": last["hop"], "receipt_hash": last["receipt_hash"]}:
        _fail(
            Step.CHAIN,
            "pages_incomplete",
            f"The pages end at hop {last['hop']}, the chain at hop {head.get('hop')}.",
            member="head",
        )
    for page in pages:
        own = _receipts(page)
        _belongs_to(page, own)
        _step_6_content(page, "page_cid")
        carried = _carried_keys(page)
        _step_7_receipt_signatures(own, _signatures(page), trust, carried)
        _step_8_document_signatures(page, "page", PAGE_TYP, trust, carried)
    return _step_9_level("pages", receipts, trust, level, _OPERATOR_LIMIT)


def _chain(document: Json, trust: _Trust, level: Level) -> Report:
    members = _members(document, _CHAIN)
    receipts, signatures = _receipts(members), _signatures(members)
    _step_3_receipts(receipts)
    _step_4_hashes(receipts)
    _step_5_chain(receipts)
    if "trace_id" in members:
        _belongs_to(members, receipts)
    previous = _previous_signatures(members, receipts)
    _step_7_receipt_signatures(receipts, signatures, trust, None, previous)
    return _step_9_level("chain", receipts, trust, level, _END_LIMIT, _OPERATOR_LIMIT)


def _receipt(document: Json, trust: _Trust, level: Level) -> Report:
    members = _members(document, _RECEIPT)
    receipts = [cast("dict[str, Json]", members["receipt"])]
    _step_3_receipts(receipts)
    _step_4_hashes(receipts)
    previous = members.get("receipt_jws_previous")
    if previous is not None and not isinstance(previous, str):
        place = "receipt_jws_previous"
        _fail(Step.SHAPE, "document_member", "A signature is a text.", member=place)
    jws = cast("str", members["receipt_jws"])
    _step_7_receipt_signatures(receipts, [jws], trust, None, [previous])
    return _step_9_level("receipt", receipts, trust, level, _CHAIN_LIMIT, _OPERATOR_LIMIT)


def _statement(document: Json, trust: _Trust, level: Level) -> StatementReport:
    return _verified_statement(document, None, trust, level)


def _verified_statement(
    document: Json,
    entries: Iterable[tuple[str, int, str, int]] | None,
    trust: _Trust,
    level: Level,
) -> StatementReport:
    members = _members(document, _STATEMENT)
    _step_6_statement(members, entries)
    place = _Place(Step.DOCUMENT_SIGNATURES, None, "statement_jws")
    try:
        issued_at_us = timestamp_us(cast("str", members["issued_at"]))
    except ValueError as error:
        place.fail("issued_at", f"`issued_at` is {error}.")
    signed = {name: value for name, value in members.items() if name != "statement_jws"}
    _check_jws(
        cast("str", members["statement_jws"]),
        canonicalize(signed),
        STATEMENT_TYP,
        issued_at_us,
        trust,
        _carried_keys(members),
        place,
    )
    limits = (_LISTED_LIMIT,) if entries is None else ()
    return _step_9_statement(members, trust, level, *limits, _OPERATOR_LIMIT)


def _page_alone(document: Json, trust: _Trust, level: Level) -> NoReturn:
    _fail(
        Step.SHAPE,
        "page_alone",
        "A page alone proves nothing of its chain; give all pages together, or export a bundle.",
        member="kind",
    )


# A new kind of document is a new row here and a function above.
_DOCUMENTS: Mapping[str, Callable[[Json, _Trust, Level], AnyReport]] = {
    "statement": _statement,
    "bundle": _bundle,
    "chain": _chain,
    "receipt": _receipt,
    "page": _page_alone,
}


def _kind_of(document: Json) -> str:
    """A document says its kind; bundles and answers of an exchange are known by their members."""
    if not isinstance(document, dict):
        return ""
    kind = document.get("kind")
    if kind is not None:
        return kind if isinstance(kind, str) else ""
    if "receipt_jws" in document:
        return "receipt"
    return "bundle" if "chain" in document else ""


_OPERATOR_LIMIT = "that the holder of the key did not rewrite or cut the whole chain"
_UNPINNED_LIMIT = "who made it: no key was pinned"
_END_LIMIT = "where the chain ends: later receipts may have been left out"
_LISTED_LIMIT = "which receipts are behind its lines: their list was not given"
_CHAIN_LIMIT = "anything about the receipts before and after it"

_BUNDLE: Mapping[str, type] = {
    "trace_id": str,
    "chain": list,
    "signatures": list,
    "exported_at": str,
    "bundle_cid": str,
    "signatures_cid": str,
    "signature": str,
    "kid": str,
    "jwks": dict,
    "bundle_jws": str,
}
_PAGE: Mapping[str, type] = {
    **{name.replace("bundle_", "page_"): kind for name, kind in _BUNDLE.items()},
    "from_hop": int,
    "head": dict,
}
_CHAIN: Mapping[str, type] = {"chain": list, "signatures": list}
_RECEIPT: Mapping[str, type] = {"receipt": dict, "receipt_jws": str}
_STATEMENT: Mapping[str, type] = {
    "kind": str,
    "issued_at": str,
    "statement_hash": str,
    "jwks": dict,
    "statement_jws": str,
}


# --- the steps ------------------------------------------------------------------------------


def _text(data: bytes) -> Json:
    """Step 1."""
    try:
        return parse_for_verification(data)
    except ParseError as error:
        raise VerificationError(
            f"Step 1: {error}", step=Step.TEXT, code=error.code, member=error.pointer or None
        ) from error


def _members(document: Json, wanted: Mapping[str, type]) -> dict[str, Json]:
    """Step 2."""
    if not isinstance(document, dict):
        _fail(Step.SHAPE, "document_kind", "The document is not an object.")
    for name, kind in wanted.items():
        if type(document.get(name)) is not kind:
            _fail(
                Step.SHAPE,
                "document_member",
                f"`{name}` is missing or not of its type.",
                member=name,
            )
    return document


def _receipts(members: Mapping[str, Json]) -> list[dict[str, Json]]:
    receipts: list[dict[str, Json]] = []
    for receipt in cast("list[Json]", members["chain"]):
        if not isinstance(receipt, dict):
            _fail(Step.SHAPE, "document_member", "A receipt is an object.", member="chain")
        receipts.append(receipt)
    return receipts


def _signatures(members: Mapping[str, Json]) -> list[str]:
    signatures: list[str] = []
    for jws in cast("list[Json]", members["signatures"]):
        if not isinstance(jws, str):
            _fail(Step.SHAPE, "document_member", "A signature is a text.", member="signatures")
        signatures.append(jws)
    return signatures


def _previous_signatures(
    members: Mapping[str, Json], receipts: Sequence[Mapping[str, Json]]
) -> list[str | None]:
    """The signatures of the key before, beside the receipts of rotations; null beside others."""
    listed = members.get("signatures_previous", [None] * len(receipts))
    found: list[str | None] = []
    for jws in listed if isinstance(listed, list) else [0]:
        if jws is not None and not isinstance(jws, str):
            place = "signatures_previous"
            _fail(Step.SHAPE, "document_member", "A signature is a text.", member=place)
        found.append(jws)
    if len(found) != len(receipts):
        _fail(
            Step.RECEIPT_SIGNATURES,
            "signature_count",
            f"There are {len(receipts)} receipts, and {len(found)} signatures of keys before.",
            member="signatures_previous",
        )
    return found


def _step_3_receipts(receipts: Sequence[Mapping[str, Json]]) -> None:
    for receipt in receipts:
        for fault in faults(receipt):
            _fail(
                Step.RECEIPTS, fault.code, fault.detail, hop=_hop_of(receipt), member=fault.member
            )


def _step_4_hashes(receipts: Sequence[Mapping[str, Json]]) -> None:
    for receipt in receipts:
        hashed = {name: value for name, value in receipt.items() if name != "receipt_hash"}
        if receipt.get("receipt_hash") != content_id(canonicalize(hashed)):
            _fail(
                Step.HASHES,
                "receipt_hash",
                "The receipt does not hash to its receipt_hash: a member was changed.",
                hop=_hop_of(receipt),
                member="receipt_hash",
            )


def _step_5_chain(receipts: Sequence[Mapping[str, Json]]) -> None:
    found = first_break(receipts)
    if found is not None:
        _fail(Step.CHAIN, found.code, found.detail, hop=found.hop, member=found.member)


def _belongs_to(members: Mapping[str, Json], receipts: Sequence[Mapping[str, Json]]) -> None:
    """The end of step 5: the document speaks of the trace that its receipts belong to."""
    if members["trace_id"] != receipts[0]["trace_id"]:
        _fail(
            Step.CHAIN,
            "document_trace",
            "The document names another trace than its receipts.",
            member="trace_id",
        )


def _step_6_content(members: Mapping[str, Json], cid_name: str) -> None:
    named = {name: members[name] for name in ("trace_id", "chain", "exported_at")}
    if members[cid_name] != content_id(canonicalize(named)):
        _fail(Step.CONTENT, cid_name, "The CID is not that of the chain.", member=cid_name)
    if members["signatures_cid"] != content_id(canonicalize(members["signatures"])):
        _fail(
            Step.CONTENT,
            "signatures_cid",
            "The CID is not that of the signatures.",
            member="signatures_cid",
        )


def _step_6_statement(
    members: Mapping[str, Json], entries: Iterable[tuple[str, int, str, int]] | None
) -> None:
    """The sums are right, the hash is that of the members, and the lines are their receipts'."""
    try:
        check_members(members)
        if members["statement_hash"] != statement_hash(members):
            _fail(
                Step.CONTENT,
                "statement_hash",
                "The hash is not that of the statement.",
                member="statement_hash",
            )
        if entries is not None:
            listed = LineList(members)
            for entry in entries:
                listed.add(*entry)
            listed.check()
    except StatementError as error:
        _fail(Step.CONTENT, error.code, error.detail, member=error.pointer[1:])


def _step_7_receipt_signatures(
    receipts: Sequence[Mapping[str, Json]],
    signatures: Sequence[str],
    trust: _Trust,
    carried: KeySet | None,
    previous: Sequence[str | None] | None = None,
) -> None:
    if len(signatures) != len(receipts):
        _fail(
            Step.RECEIPT_SIGNATURES,
            "signature_count",
            f"There are {len(receipts)} receipts and {len(signatures)} signatures.",
            member="signatures",
        )
    befores = [None] * len(receipts) if previous is None else previous
    for receipt, jws, before in zip(receipts, signatures, befores, strict=True):
        if receipt["kind"] == "key":
            _step_7_rotation(receipt, before, trust, carried)
        place = _Place(Step.RECEIPT_SIGNATURES, _hop_of(receipt), "signatures")
        signer = _check_receipt_jws(jws, receipt, trust, carried, place)
        if receipt["kind"] != "key" and before is not None:
            place.fail("rotation_none", "Only a change of keys is signed by a key before.")
        if _takes_over(receipt) not in (None, signer):
            place.fail("rotation_signer", "A rotation is signed by the key that takes over.")


def _step_7_rotation(
    receipt: Mapping[str, Json], before: str | None, trust: _Trust, carried: KeySet | None
) -> None:
    """The key before vouches for the one that takes over, which is trusted from here on.

    Where the caller trusts the new key anyway, the signature of the old one must still be right.
    """
    place = _Place(Step.RECEIPT_SIGNATURES, _hop_of(receipt), "signatures_previous")
    told = cast("dict[str, Json]", receipt["key"])
    named = told.get("previous")
    if named is None and before is None:
        return
    if before is None:
        place.fail("rotation_unvouched", "The key before did not sign this rotation.")
    new = trust.find(str(told.get("kid")), carried)
    known = new is not None and trust.given and trust.covers(new)
    if known:
        ours = trust.jwks is not None and trust.jwks.find(str(named)) is not None
        found = _Trust(frozenset(), None), trust.jwks if ours else carried
    else:
        found = trust, carried
    if _check_receipt_jws(before, receipt, *found, place) != named:
        place.fail("rotation_previous", "Another key signed than the one that is named.")
    if trust.pins and not known:
        trust.pins |= {str(told.get("kid"))}


def _takes_over(receipt: Mapping[str, Json]) -> str | None:
    """The kid of the key that a rotation brings; None where the receipt is of no rotation."""
    told = receipt.get("key")
    if receipt["kind"] != "key" or not isinstance(told, dict) or told.get("event") != "rotated":
        return None
    return str(told.get("kid"))


def _check_receipt_jws(
    jws: str,
    receipt: Mapping[str, Json],
    trust: _Trust,
    carried: KeySet | None,
    place: _Place,
) -> str:
    signed_at_us = timestamp_us(cast("str", receipt["ts"]))
    return _check_jws(
        jws, canonicalize(dict(receipt)), RECEIPT_TYP, signed_at_us, trust, carried, place
    )


def _step_8_document_signatures(
    members: Mapping[str, Json], name: str, typ: str, trust: _Trust, carried: KeySet
) -> None:
    """Both signatures: the plain one over the CID, which old clients read, and the JWS."""
    place = _Place(Step.DOCUMENT_SIGNATURES, None, "signature")
    try:
        exported_at_us = timestamp_us(cast("str", members["exported_at"]))
    except ValueError as error:
        _fail(place.step, "exported_at", f"`exported_at` is {error}.", member="exported_at")
    try:
        signature = base64.b64decode(cast("str", members["signature"]), validate=True)
    except (ValueError, binascii.Error):
        _fail(place.step, "signature_form", "`signature` is not base64.", member="signature")
    cid = cast("str", members[f"{name}_cid"])
    key = _signer(cast("str", members["kid"]), exported_at_us, trust, carried, place)
    if key is not None and not key.verify(signature, cid.encode()):
        _fail(
            place.step,
            "signature_wrong",
            "The signature over the CID is wrong.",
            member="signature",
        )
    jws_name = f"{name}_jws"
    signed = {n: v for n, v in members.items() if n not in ("chain", "signatures", jws_name)}
    jws = cast("str", members[jws_name])
    place = _Place(Step.DOCUMENT_SIGNATURES, None, jws_name)
    _check_jws(jws, canonicalize(signed), typ, exported_at_us, trust, carried, place)


def _step_9_level(
    document: str,
    receipts: Sequence[Mapping[str, Json]],
    trust: _Trust,
    asked: Level,
    *limits: str,
) -> Report:
    reached = Level.SIGNED if trust.given else Level.INTEGRITY
    first, last = receipts[0], receipts[-1]
    report = Report(
        document=document,
        level=reached,
        trace_id=str(last["trace_id"]),
        tenant=str(last["tenant"]),
        hops=len(receipts),
        head=str(last["receipt_hash"]),
        first_ts=str(first["ts"]),
        last_ts=str(last["ts"]),
        signed_by=tuple(trust.used),
        limits=limits if trust.given else (_UNPINNED_LIMIT, *limits),
    )
    _require_level(report, trust, asked)
    return report


def _step_9_statement(
    members: Mapping[str, Json], trust: _Trust, asked: Level, *limits: str
) -> StatementReport:
    reached = Level.SIGNED if trust.given else Level.INTEGRITY
    report = StatementReport(
        level=reached,
        tenant=str(members["tenant"]),
        period=str(members["period"]),
        revision=cast("int", members["revision"]),
        currency=str(members["currency"]),
        total=str(members["total"]),
        lines=len(cast("list[Json]", members["lines"])),
        receipts=cast("int", members["receipts"]),
        statement_hash=str(members["statement_hash"]),
        signed_by=tuple(trust.used),
        limits=limits if trust.given else (_UNPINNED_LIMIT, *limits),
    )
    _require_level(report, trust, asked)
    return report


def _require_level(report: AnyReport, trust: _Trust, asked: Level) -> None:
    if report.level < asked:
        hint = "; pin the signer's key (trust or jwks)" if not trust.given else ""
        raise LevelNotReached(
            f"Step 9: {report.level.name} is proven, {asked.name} was asked for{hint}.",
            step=Step.LEVEL,
            report=report,
        )


# --- signatures -----------------------------------------------------------------------------


def verify_signature(
    jws: str,
    payload: bytes,
    *,
    typ: str,
    member: str,
    signed_at_us: int,
    trust: Collection[str],
    jwks: KeySet | None,
    carried: KeySet,
) -> tuple[str, ...]:
    """Check a detached JWS over a document of another kind, found in its `member`.

    Returns the thumbprints of the trusted keys among the signers; `carried` are the document's own
    keys. Raises `VerificationError`.
    """
    given = _Trust(frozenset(trust), jwks)
    place = _Place(Step.DOCUMENT_SIGNATURES, None, member)
    _check_jws(jws, payload, typ, signed_at_us, given, carried, place)
    return tuple(given.used)


@dataclass(frozen=True, slots=True)
class _Place:
    step: Step
    hop: int | None
    member: str

    def fail(self, code: str, detail: str) -> NoReturn:
        _fail(self.step, code, detail, hop=self.hop, member=self.member)


def _check_jws(
    jws: str,
    payload: bytes,
    typ: str,
    signed_at_us: int,
    trust: _Trust,
    carried: KeySet | None,
    place: _Place,
) -> str:
    """A compact or detached JWS over exactly these bytes, by a trusted key in its lifetime.

    Returns the kid that its header names.
    """
    parts = jws.split(".")
    body = b64url(payload)
    if len(parts) != 3 or parts[1] not in ("", body):
        place.fail("jws_form", "This is not a JWS over the receipt or document beside it.")
    try:
        header = parse_for_verification(from_b64url(parts[0]))
        signature = from_b64url(parts[2])
    except (KeyFormatError, ParseError) as error:
        place.fail("jws_form", f"The JWS cannot be read: {error.detail}")
    # The header is exactly ours. Anything more (`crit`, `b64`, `jwk`, `x5u`) would let the signer
    # say how to verify, and another `typ` would let one kind of document pass for another.
    if not isinstance(header, dict) or header.keys() != {"alg", "kid", "typ"}:
        place.fail("jws_header", "The JWS header has exactly the members alg, kid and typ.")
    if header["alg"] not in _ALGORITHMS:
        place.fail("jws_alg", f"The JWS algorithm is one of {', '.join(_ALGORITHMS)}.")
    if header["typ"] != typ:
        place.fail("jws_typ", f"The JWS type is {typ}.")
    key = _signer(str(header["kid"]), signed_at_us, trust, carried, place)
    if key is not None and not key.verify(signature, f"{parts[0]}.{body}".encode()):
        place.fail("signature_wrong", "The signature is wrong.")
    return str(header["kid"])


def _signer(
    kid: str, signed_at_us: int, trust: _Trust, carried: KeySet | None, place: _Place
) -> PublicKey | None:
    """The key of that name, trusted if anything is. None: no trust was given and no key is here."""
    key = trust.find(kid, carried)
    if key is None:
        if not trust.given and carried is None:
            return None
        place.fail("key_unknown", f"The key {kid!r} is not among the known keys.")
    if trust.given:
        if not trust.covers(key):
            place.fail("key_not_trusted", f"The key {kid!r} is not one that you trust.")
        trust.used[key.kid] = None
    if not key.begun_by(signed_at_us):
        place.fail("key_not_yet", f"The key {kid!r} was not in use yet.")
    if key.ended_by(signed_at_us):
        place.fail("key_ended", f"The key {kid!r} had been retired or revoked.")
    return key


def _carried_keys(members: Mapping[str, Json]) -> KeySet:
    try:
        return KeySet.from_jwks(members["jwks"])
    except KeyFormatError as error:
        _fail(Step.SHAPE, "document_member", error.detail, member="jwks")


def _hop_of(receipt: Mapping[str, Json]) -> int | None:
    hop = receipt.get("hop")
    return hop if type(hop) is int else None


def _fail(
    step: Step, code: str, detail: str, *, hop: int | None = None, member: str | None = None
) -> NoReturn:
    at_hop = f", hop {hop}" if hop is not None else ""
    at_member = f", `{member}`" if member is not None else ""
    raise VerificationError(
        f"Step {step.value}{at_hop}{at_member}: {detail}",
        step=step,
        code=code,
        hop=hop,
        member=member,
    )
