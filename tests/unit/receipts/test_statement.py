"""A statement that does not add up is never signed and never accepted."""

from __future__ import annotations

from typing import Any

import pytest

from signet.receipts.canonical import canonicalize, parse
from signet.receipts.errors import LevelNotReached, VerificationError
from signet.receipts.keys import KeySet, SigningKey
from signet.receipts.merkle import MerkleTree
from signet.receipts.report import Level, StatementReport, Step
from signet.receipts.statement import (
    STATEMENT_TYP,
    StatementError,
    check_list,
    check_members,
    leaf,
    seal_statement,
    statement_hash,
)
from signet.receipts.verify import verify, verify_statement

KEY = SigningKey.generate()
HASHES = [f"sha256:{n:064x}" for n in range(4)]
ENTRIES = [
    ("vex", 0, HASHES[0], 1),
    ("vex", 1, HASHES[1], 1),
    ("fu", 0, HASHES[1], 70),
    ("fu", 1, HASHES[1], 5),
    ("fu", 1, HASHES[2], 80),
]


def root(meter: str, tier: int) -> str:
    """The root of a line's entries."""
    tree = MerkleTree()
    for of_meter, of_tier, receipt_hash, units in ENTRIES:
        if (of_meter, of_tier) == (meter, tier):
            tree.add(leaf(receipt_hash, units))
    return tree.root_text()


def line(meter: str, tier: int, units: int, price: str, exact: str, amount: str) -> dict[str, Any]:
    """One line of the statement."""
    receipts = sum(entry[:2] == (meter, tier) for entry in ENTRIES)
    return {
        "meter": meter, "tier": tier, "from": 1, "to": units, "units": units, "price": price,
        "exact": exact, "amount": amount, "item": f"si_{tier}" if tier else None,
        "receipts": receipts, "root": root(meter, tier),
    }  # fmt: skip


def members() -> dict[str, Any]:
    """A statement of two VEx and 155 fallback units."""
    return {
        "v": 1, "kind": "statement", "iss": "signet.test", "tenant": "acme",
        "period": "2026-11", "timezone": "UTC", "start": "2026-11-01T00:00:00.000000Z",
        "end": "2026-12-01T00:00:00.000000Z", "revision": 1, "adjusts": None,
        "plan": HASHES[0], "currency": "USD", "usage": {"vex": 2, "fu": 155},
        "lines": [
            line("vex", 0, 1, "0", "0", "0.00"),
            line("vex", 1, 1, "0.005", "0.005", "0.01"),
            line("fu", 0, 70, "0", "0", "0.00"),
            line("fu", 1, 85, "0.0005", "0.0425", "0.04"),
        ],
        "total": "0.05", "adjustment": "0.05", "receipts": 3, "receipts_root": HASHES[0],
        "issued_at": "2026-12-03T00:00:00.000000Z",
    }  # fmt: skip


def test_a_sound_statement_is_sealed() -> None:
    """Sealing adds its hash, its key and a signature, and the members stay as they were."""
    document = parse(seal_statement(members(), KEY, jwks={"keys": []}))
    assert isinstance(document, dict)
    assert document["statement_hash"] == statement_hash(members())
    check_members(document)
    assert {name: document[name] for name in members()} == members()


def test_the_hash_is_of_what_is_said() -> None:
    """Sealing does not change the hash, and any other member does."""
    sealed = parse(seal_statement(members(), KEY, jwks={"keys": []}))
    assert isinstance(sealed, dict)
    assert statement_hash(sealed) == statement_hash(members())
    assert statement_hash(members() | {"revision": 2}) != statement_hash(members())


def changed(path: str, value: Any) -> dict[str, Any]:
    """The statement with one member changed or added."""
    made = members()
    *way, last = path.split("/")
    place: Any = made
    for name in way:
        place = place[int(name)] if name.isdigit() else place[name]
    place[int(last) if last.isdigit() else last] = value
    return made


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        ("v", 2, "statement_version"),
        ("v", True, "statement_member"),
        ("kind", "receipt", "statement_version"),
        ("extra", 1, "statement_member"),
        ("tenant", None, "statement_member"),
        ("lines", {}, "statement_member"),
        ("lines/1", 7, "statement_member"),
        ("lines/1/extra", 7, "statement_member"),
        ("lines/1/units", 2, "statement_exact"),
        ("lines/1/units", 1.0, "statement_member"),
        ("lines/1/units", 0, "statement_line_empty"),
        ("lines/1/units", -1, "statement_line_empty"),
        ("lines/1/receipts", 0, "statement_line_empty"),
        ("lines/1/price", "0.006", "statement_exact"),
        ("lines/1/price", "1e3", "statement_decimal"),
        ("lines/1/price", "NaN", "statement_decimal"),
        ("lines/1/price", 0.005, "statement_member"),
        ("lines/1/exact", "0.0051", "statement_exact"),
        ("lines/1/amount", "0.00", "statement_rounding"),
        ("lines/1/amount", "0.010", "statement_rounding"),
        ("lines/1/tier", 0, "statement_line_twice"),
        ("lines/3/amount", "0.05", "statement_rounding"),
        ("total", "0.06", "statement_total"),
        ("total", "0.1", "statement_decimals"),
        ("adjustment", "0.050", "statement_decimals"),
        ("usage", {"vex": 3, "fu": 155}, "statement_usage"),
        ("usage", {"vex": 2}, "statement_usage"),
    ],
)
def test_what_does_not_add_up_is_refused(path: str, value: Any, code: str) -> None:
    """Every sum, product and rounding is checked, before signing and when verifying."""
    with pytest.raises(StatementError) as caught:
        check_members(changed(path, value))
    assert caught.value.code == code
    with pytest.raises(StatementError):
        seal_statement(changed(path, value), KEY, jwks={"keys": []})


def test_a_missing_member_is_refused() -> None:
    """Each member must be there."""
    for name in members():
        without = members()
        del without[name]
        with pytest.raises(StatementError):
            check_members(without)


def test_the_right_list_fits() -> None:
    """The receipts in their order make every line's root."""
    check_list(members(), ENTRIES)


@pytest.mark.parametrize(
    "entries",
    [
        ENTRIES[:-1],
        [*ENTRIES, ("fu", 1, HASHES[3], 1)],
        [*ENTRIES[:-2], ENTRIES[-1], ENTRIES[-2]],
        [*ENTRIES[:-2], ("fu", 1, HASHES[1], 6), ("fu", 1, HASHES[2], 79)],
        [*ENTRIES[:-1], ("fu", 1, HASHES[3], 80)],
        [*ENTRIES, ("fu", 2, HASHES[3], 1)],
        [],
    ],
    ids=["dropped", "added", "swapped", "moved", "replaced", "line", "none"],
)
def test_any_other_list_does_not(entries: list[tuple[str, int, str, int]]) -> None:
    """One receipt dropped, added, swapped or with other units is found."""
    with pytest.raises(StatementError):
        check_list(members(), entries)


def test_a_receipt_of_an_unknown_line_is_named() -> None:
    """A list may not hold what the statement has no line for."""
    with pytest.raises(StatementError) as caught:
        check_list(members(), [*ENTRIES, ("fu", 2, HASHES[3], 1)])
    assert caught.value.code == "statement_line_unknown"


def test_units_are_held_against_the_line() -> None:
    """A line whose units are not its receipts' is found although its root is right."""
    wrong = members()
    wrong["lines"][0]["units"] = 5
    with pytest.raises(StatementError) as caught:
        check_list(wrong, ENTRIES)
    assert caught.value.code == "statement_units"


# Verification.


def sealed(key: SigningKey = KEY, **changes: Any) -> dict[str, Any]:
    """A sealed statement with its key in it, as JSON."""
    jwks = KeySet.of([key.public]).jwks()
    document = parse(seal_statement(members() | changes, key, jwks=jwks))
    assert isinstance(document, dict)
    return document


def text(document: Any) -> bytes:
    """The document's bytes."""
    return canonicalize(document)


def test_a_pinned_key_makes_it_signed() -> None:
    """With the signer's key pinned the statement is SIGNED, and its list closes the last gap."""
    report = verify(text(sealed()), trust=[KEY.kid])
    assert isinstance(report, StatementReport)
    assert (report.level, report.tenant, report.total) == (Level.SIGNED, "acme", "0.05")
    assert any("list" in limit for limit in report.limits)
    listed = verify_statement(text(sealed()), ENTRIES, trust=[KEY.kid])
    assert not any("list" in limit for limit in listed.limits)
    assert "0.05 USD" in listed.as_text()
    assert listed.as_json()["verdict"] == "SIGNED"


def test_without_a_pin_it_is_only_whole() -> None:
    """A statement that brings its own key proves nothing about who made it."""
    with pytest.raises(LevelNotReached) as caught:
        verify(text(sealed()))
    assert caught.value.report.level is Level.INTEGRITY
    assert verify(text(sealed()), level=Level.INTEGRITY).level is Level.INTEGRITY


@pytest.mark.parametrize(
    ("path", "value", "step"),
    [
        ("total", "0.06", Step.CONTENT),
        ("lines/1/amount", "0.00", Step.CONTENT),
        ("lines/1/root", HASHES[3], Step.CONTENT),
        ("lines/1/item", "si_other", Step.CONTENT),
        ("tenant", "beta", Step.CONTENT),
        ("revision", 2, Step.CONTENT),
        ("statement_hash", HASHES[3], Step.CONTENT),
        ("jwks", 7, Step.SHAPE),
        ("jwks", {"keys": []}, Step.DOCUMENT_SIGNATURES),
        ("statement_jws", "a..b", Step.DOCUMENT_SIGNATURES),
        ("issued_at", "yesterday", Step.CONTENT),
        ("extra", 1, Step.CONTENT),
    ],
)
def test_a_changed_statement_is_refused(path: str, value: Any, step: Step) -> None:
    """Any member changed or added anywhere is found, with the step that found it."""
    document = sealed()
    *way, last = path.split("/")
    place: Any = document
    for name in way:
        place = place[int(name)] if name.isdigit() else place[name]
    place[last] = value
    with pytest.raises(VerificationError) as caught:
        verify(text(document), trust=[KEY.kid])
    assert caught.value.step is step


def test_a_signed_statement_must_add_up_too() -> None:
    """The operator's own signature, over a hash that fits, makes no wrong sum right."""
    document = sealed() | {"total": "0.06"}
    document["statement_hash"] = statement_hash(document)
    del document["statement_jws"]
    document["statement_jws"] = KEY.jws(text(document), typ=STATEMENT_TYP, detached=True)
    with pytest.raises(VerificationError) as caught:
        verify(text(document), trust=[KEY.kid])
    assert (caught.value.step, caught.value.code) == (Step.CONTENT, "statement_total")


def test_a_foreign_key_is_refused() -> None:
    """A sound statement by another key is not the pinned one's."""
    other = SigningKey.generate()
    with pytest.raises(VerificationError) as caught:
        verify(text(sealed(other)), trust=[KEY.kid])
    assert caught.value.code == "key_not_trusted"


def test_a_signature_of_another_kind_is_refused() -> None:
    """A JWS over the same bytes that says it is for something else does not pass."""
    document = sealed()
    del document["statement_jws"]
    document["statement_jws"] = KEY.jws(
        canonicalize(document), typ="signet-receipt+jws", detached=True
    )
    with pytest.raises(VerificationError) as caught:
        verify(text(document), trust=[KEY.kid])
    assert caught.value.code == "jws_typ"


def test_a_time_that_is_none_is_refused() -> None:
    """The signing time decides whether the key was alive, so it must be one."""
    with pytest.raises(VerificationError) as caught:
        verify(text(sealed(issued_at="yesterday")), trust=[KEY.kid])
    assert caught.value.code == "issued_at"


def test_another_list_is_refused() -> None:
    """A list with a receipt left out is found when it is given."""
    with pytest.raises(VerificationError) as caught:
        verify_statement(text(sealed()), ENTRIES[:-1], trust=[KEY.kid])
    assert (caught.value.step, caught.value.code) == (Step.CONTENT, "statement_root")
