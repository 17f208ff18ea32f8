"""An exported audit chain proves that nothing in it was changed, removed, added or moved."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.inprocess import signing_key

from signet.core.audit import Entry, pruned, seal_entry
from signet.core.ids import TenantId
from signet.receipts.audit import (
    COLUMNS,
    MANIFEST_KIND,
    AuditInvalid,
    AuditReport,
    csv_header,
    csv_row,
    read_csv,
    seal_manifest,
    verify_csv,
    verify_jsonl,
)
from signet.receipts.canonical import Json, canonicalize, content_id
from signet.receipts.errors import VerificationError
from signet.receipts.keys import KeySet, SigningKey
from signet.receipts.report import Level

ACME = TenantId("acme")
KEY = signing_key()
TRUST = [KEY.kid]


def entries(count: int = 5, *, first: int = 1, prev: str | None = None) -> list[bytes]:
    """A chain of entries; one that begins later is behind one that was pruned."""
    bodies: list[bytes] = []
    for seq in range(first, first + count):
        entry = Entry(
            tenant=ACME,
            ts_us=1_700_000_000_000_000 + seq,
            actor="env_1",
            action="tenant.update",
            object=f"=t{seq}",
            address="192.0.2.1" if seq % 2 else None,
            before={"a": [1, "x\r\ny"]} if seq == 3 else None,
        )
        body, prev = seal_entry(entry, seq=seq, prev_entry_hash=prev)
        bodies.append(body)
    return bodies


def manifest(bodies: Sequence[bytes], *, key: SigningKey = KEY, **changes: Json) -> bytes:
    """The signed manifest of an export of `bodies`."""
    parsed = [json.loads(body) for body in bodies]
    first, last = (parsed[0], parsed[-1]) if parsed else ({}, {})
    members: dict[str, Json] = {
        "v": 1,
        "kind": MANIFEST_KIND,
        "iss": "signet",
        "tenant": "acme",
        "exported_at": "2026-11-25T00:00:00.000000Z",
        "from": None,
        "to": None,
        "count": len(bodies),
        "first_seq": first.get("seq"),
        "last_seq": last.get("seq"),
        "first_prev_entry_hash": first.get("prev_entry_hash"),
        "last_entry_hash": last.get("entry_hash"),
        "head_seq": last.get("seq", 0),
        "head_entry_hash": last.get("entry_hash"),
        "jwks": KeySet.of([key.public]).jwks(),
    }
    return seal_manifest(members | changes, key)


def file(bodies: Sequence[bytes], **changes: Json) -> list[bytes]:
    """An export in JSON Lines."""
    return [line + b"\n" for line in (*bodies, manifest(bodies, **changes))]


def refused(lines: Sequence[bytes]) -> str:
    """The code with which a file is refused."""
    with pytest.raises((AuditInvalid, VerificationError)) as caught:
        verify_jsonl(lines, trust=TRUST)
    return caught.value.code


def test_what_was_exported_verifies() -> None:
    """The report names what was proven, and by whose key."""
    report = verify_jsonl(file(entries()), trust=TRUST)
    assert (report.level, report.whole, report.count) == (Level.SIGNED, True, 5)
    assert (report.first_seq, report.last_seq) == (1, 5)
    assert report.signed_by == (KEY.kid,)
    assert "5 entries, 1 to 5" in report.as_text()
    assert report.as_json()["verdict"] == "SIGNED"


def test_without_a_pinned_key_it_is_only_whole() -> None:
    """Nobody said whose signature counts, so none is taken for proof."""
    report = verify_jsonl(file(entries()))
    assert (report.level, report.signed_by) == (Level.INTEGRITY, ())


def test_an_empty_export_verifies() -> None:
    """Its manifest says that there was nothing."""
    report = verify_jsonl(file([]), trust=TRUST)
    assert (report.count, report.first_seq, report.last_seq) == (0, None, None)


def _flipped(lines: list[bytes]) -> None:
    lines[2] = lines[2].replace(b"env_1", b"env_2")


def _without_one(lines: list[bytes]) -> None:
    del lines[2]


def _moved(lines: list[bytes]) -> None:
    lines[1], lines[2] = lines[2], lines[1]


def _twice(lines: list[bytes]) -> None:
    lines.insert(2, lines[1])


def _cut(lines: list[bytes]) -> None:
    del lines[-2:]


def _cut_before_the_manifest(lines: list[bytes]) -> None:
    del lines[-3:-1]


def _beheaded(lines: list[bytes]) -> None:
    del lines[0]


def _spelled_otherwise(lines: list[bytes]) -> None:
    lines[0] = lines[0].replace(b":", b": ", 1)


def _broken(lines: list[bytes]) -> None:
    lines[0] = lines[0][:-3]


def _more_behind(lines: list[bytes]) -> None:
    lines.append(lines[0])


def _foreign(lines: list[bytes]) -> None:
    other = Entry(tenant=TenantId("other"), ts_us=1, actor="k", action="a")
    lines[2] = seal_entry(other, seq=3, prev_entry_hash=json.loads(lines[1])["entry_hash"]).body


def _forged(lines: list[bytes]) -> None:
    """An entry changed and hashed anew, as somebody with the file alone can do."""
    entry = json.loads(lines[2])
    entry["actor"] = "env_2"
    del entry["entry_hash"]
    entry["entry_hash"] = content_id(canonicalize(entry))
    lines[2] = canonicalize(entry) + b"\n"


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (_flipped, "entry_hash"),
        (_without_one, "entry_missing"),
        (_moved, "entries_reordered"),
        (_twice, "entry_repeated"),
        (_cut, "manifest_missing"),
        (_cut_before_the_manifest, "entries_truncated"),
        (_beheaded, "manifest_count"),
        (_spelled_otherwise, "line_malformed"),
        (_broken, "line_malformed"),
        (_more_behind, "after_manifest"),
        (_foreign, "entry_tenant"),
        (_forged, "entry_link"),
    ],
)
def test_each_harm_is_named(harm: Callable[[list[bytes]], None], code: str) -> None:
    """Whatever is done to the file is found, and said as what it is."""
    lines = file(entries())
    harm(lines)
    assert refused(lines) == code


@given(st.data())
def test_no_byte_can_be_changed(data: st.DataObject) -> None:
    """Any one byte of any line, the manifest's among them, makes the file invalid."""
    lines = file(entries(3))
    number = data.draw(st.integers(0, len(lines) - 1))
    place = data.draw(st.integers(0, len(lines[number]) - 2))
    changed = bytearray(lines[number])
    changed[place] ^= data.draw(st.integers(1, 255))
    lines[number] = bytes(changed)
    with pytest.raises((AuditInvalid, VerificationError)):
        verify_jsonl(b"".join(lines).splitlines(keepends=True), trust=TRUST)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"count": 4}, "manifest_count"),
        ({"last_seq": 4}, "manifest_member"),
        ({"first_prev_entry_hash": "x"}, "manifest_member"),
        ({"tenant": "other"}, "entry_tenant"),
        ({"head_seq": 9}, "entries_truncated"),
        ({"v": 2}, "manifest_member"),
        ({"more": 1}, "manifest_member"),
        ({"exported_at": "today"}, "manifest_member"),
    ],
)
def test_a_manifest_that_says_otherwise(changes: dict[str, Json], code: str) -> None:
    """Even a signed manifest must be that of the entries before it."""
    assert refused(file(entries(), **changes)) == code


def test_another_key_is_not_trusted() -> None:
    """A chain made anew by somebody else is not signed by the pinned key."""
    bodies = entries()
    lines = [*bodies, manifest(bodies, key=SigningKey.generate())]
    assert refused(lines) == "key_not_trusted"


def test_a_changed_manifest_is_not_signed() -> None:
    """A manifest whose text was adapted to a shortened file does not carry its signature."""
    bodies = entries()
    told = json.loads(manifest(bodies[:4]))
    told["manifest_jws"] = json.loads(manifest(bodies))["manifest_jws"]
    assert refused([*bodies[:4], canonicalize(told)]) == "signature_wrong"


class TestPruned:
    """A chain whose beginning retention has removed."""

    def kept(self) -> list[bytes]:
        """Entries 4 and 5, and the one that says that 1 to 3 were removed."""
        bodies = entries()
        anchor = pruned(ACME, 1, bodies[2], 1_700_000_000_000_009)
        last = json.loads(bodies[-1])["entry_hash"]
        return [*bodies[3:], seal_entry(anchor, seq=6, prev_entry_hash=last).body]

    def test_its_beginning_is_accounted_for(self) -> None:
        """The chain itself says what was removed, and the first entry kept follows exactly that."""
        report = verify_jsonl(file(self.kept()), trust=TRUST)
        assert (report.first_seq, report.last_seq, report.whole) == (4, 6, True)

    def test_more_removed_than_it_says(self) -> None:
        """Who removes one entry more is found out, although the manifest agrees."""
        assert refused(file(self.kept()[1:])) == "beginning_missing"

    def test_removed_without_a_word(self) -> None:
        """A beginning that is merely gone is missing."""
        assert refused(file(entries()[2:])) == "beginning_missing"

    def test_a_part_need_not_begin_at_one(self) -> None:
        """An export from a time on says so in its manifest."""
        changes: dict[str, Json] = {"from": "2023-11-14T22:13:20.000003Z"}
        assert not verify_jsonl(file(entries()[2:], **changes), trust=TRUST).whole


class TestCSV:
    """The same chain for a spreadsheet."""

    def export(self, bodies: Sequence[bytes]) -> list[bytes]:
        """The lines of a CSV file."""
        text = csv_header() + b"".join(map(csv_row, bodies))
        return text.splitlines(keepends=True)

    def verified(self, lines: Sequence[bytes], bodies: Sequence[bytes]) -> AuditReport:
        """What is proven of a CSV file with the manifest of `bodies`."""
        return verify_csv(lines, manifest(bodies) + b"\n", trust=TRUST)

    def test_every_entry_can_be_built_again(self) -> None:
        """Texts with quotes, line ends and formulas, numbers, nulls and states come back."""
        bodies = entries()
        found = [entry for _, entry in read_csv(self.export(bodies))]
        assert [canonicalize(entry) for entry in found] == bodies
        assert self.verified(self.export(bodies), bodies).level is Level.SIGNED

    def test_no_cell_is_a_formula(self) -> None:
        """What a request named is no program for whoever opens the file."""
        assert b",'=t1," in csv_row(entries(1)[0])

    def test_an_empty_export_verifies(self) -> None:
        """The header alone, and a manifest that says so."""
        assert self.verified([csv_header()], []).count == 0

    @pytest.mark.parametrize(
        ("index", "code"), [(1, "manifest_count"), (2, "entry_missing"), (-1, "entries_truncated")]
    )
    def test_a_row_less(self, index: int, code: str) -> None:
        """A row that is gone is missed."""
        whole = entries(5)
        lines = [csv_header(), *map(csv_row, whole)]
        del lines[index]
        with pytest.raises(AuditInvalid) as caught:
            self.verified(b"".join(lines).splitlines(keepends=True), whole)
        assert caught.value.code == code

    @pytest.mark.parametrize(
        "harm",
        [b"a,b\r\n", b"\xff\r\n", b'"', b"1,2,3\r\n", b"x" * (2 << 20)],
    )
    def test_what_is_no_row(self, harm: bytes) -> None:
        """Anything else than a row of ours is malformed."""
        with pytest.raises(AuditInvalid) as caught:
            self.verified([*self.export(entries(2)), harm], entries(2))
        assert caught.value.code == "line_malformed"

    def test_no_manifest(self) -> None:
        """Without one line of manifest nothing is proven."""
        for text in (b"", manifest([]) * 2, entries(1)[0]):
            with pytest.raises(AuditInvalid):
                verify_csv([csv_header()], text, trust=TRUST)


def resealed(body: bytes, **changes: Json) -> bytes:
    """An entry with other members and the hash of what it now says."""
    entry = json.loads(body) | changes
    del entry["entry_hash"]
    return canonicalize(entry | {"entry_hash": content_id(canonicalize(entry))})


@pytest.mark.parametrize(
    "changes",
    [
        {"more": 1},
        {"v": 2},
        {"seq": 0},
        {"prev_entry_hash": "sha256:" + "0" * 64},
        {"count": "1"},
        {"count": True},
        {"actor": None},
        {"address": 7},
    ],
)
def test_an_entry_of_another_form_is_refused(changes: dict[str, Json]) -> None:
    """A hash that fits does not make an entry of what is none."""
    assert refused(file([resealed(entries(1)[0], **changes)])) == "entry_member"


def test_a_line_that_is_no_object_is_malformed() -> None:
    """Canonical JSON of another kind is no entry."""
    assert refused([b"[]\n", *file(entries())]) == "line_malformed"


def test_a_manifest_of_another_form_is_refused() -> None:
    """A signed manifest has the types that it must have, in members that nothing else asks for."""
    assert refused(file(entries(), iss=7)) == "manifest_member"


def test_a_line_beyond_the_limit_is_refused() -> None:
    """What is read into memory at once is bounded, in both forms."""
    wide = [resealed(entries(1)[0], before={"a": ["x" * 100_000] * 11})]
    with pytest.raises(AuditInvalid, match="at most") as caught:
        verify_jsonl(file(wide), trust=TRUST)
    assert caught.value.code == "line_malformed"
    with pytest.raises(AuditInvalid, match="at most") as caught:
        verify_csv([csv_header(), csv_row(wide[0])], manifest(wide), trust=TRUST)
    assert caught.value.code == "line_malformed"


@pytest.mark.parametrize("number", ["１", "+1", " 1", "1_0", "0" * 17])
def test_a_number_has_one_spelling_in_a_row(number: str) -> None:
    """Python reads more forms of a number than a row may have."""
    row = csv_row(entries(1)[0]).decode("utf-8")
    assert row.startswith("1,1,")
    with pytest.raises(AuditInvalid, match="digits") as caught:
        list(read_csv([csv_header(), f"1,{number},{row[4:]}".encode()]))
    assert caught.value.code == "line_malformed"


def test_every_entry_has_the_columns() -> None:
    """The columns are the members that sealing writes."""
    assert json.loads(entries(1)[0]).keys() == COLUMNS.keys()
