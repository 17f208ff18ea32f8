"""An exported audit chain: its two forms, and the offline proof that nothing in it was changed.

An entry is a flat JSON object with every member of `COLUMNS`. `entry_hash` is SHA-256 of the JCS
(RFC 8785) of all other members, `prev_entry_hash` the hash of the entry before. An export is a
part of one chain without a gap, followed by a signed manifest: as JSON Lines the manifest is the
last line, as CSV it is a file of its own. docs/reference/audit.md describes both.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, cast

from signet.receipts.canonical import canonicalize, content_id, parse_for_verification
from signet.receipts.errors import CanonicalError, KeyFormatError, ParseError, ReceiptError
from signet.receipts.keys import KeySet, SigningKey
from signet.receipts.receipt import timestamp_us
from signet.receipts.report import Level
from signet.receipts.value import Json
from signet.receipts.verify import verify_signature

MANIFEST_TYP: Final = "signet-audit+jws"
MANIFEST_KIND: Final = "audit_manifest"
PRUNED: Final = "audit.prune"
"""The action of the entry that names the last entry before it which retention removed."""

COLUMNS: Final[Mapping[str, type]] = {
    "v": int,
    "seq": int,
    "ts": str,
    "tenant": str,
    "actor": str,
    "action": str,
    "object": str,
    "code": str,
    "count": int,
    "receipt_hash": str,
    "latency_us": int,
    "request_id": str,
    "address": str,
    "before": dict,
    "after": dict,
    "prev_entry_hash": str,
    "entry_hash": str,
}
"""The members of an entry in the order of a CSV file's columns; `dict` stands for any JSON."""

_ALWAYS: Final = frozenset({"v", "seq", "ts", "tenant", "actor", "action", "code", "count"})
_NONE: Final = type(None)
_MANIFEST: Final[Mapping[str, tuple[type, ...]]] = {
    "v": (int,),
    "kind": (str,),
    "iss": (str,),
    "tenant": (str,),
    "exported_at": (str,),
    "from": (str, _NONE),
    "to": (str, _NONE),
    "count": (int,),
    "first_seq": (int, _NONE),
    "last_seq": (int, _NONE),
    "first_prev_entry_hash": (str, _NONE),
    "last_entry_hash": (str, _NONE),
    "head_seq": (int,),
    "head_entry_hash": (str, _NONE),
    "jwks": (dict,),
    "manifest_jws": (str,),
}
_MAX_LINE_BYTES: Final = 1 << 20
_FORMULA: Final = frozenset("=+-@\t\r'")
_UNPINNED: Final = "who signed it: no key is pinned (--jwks or --trust)"
_OPERATOR: Final = "that the operator, who holds the key, did not write the whole chain anew"


class AuditInvalid(ReceiptError):
    """The export is not what it was. `line` is the line of the file, `seq` the entry's number.

    Codes: `line_malformed`, `entry_member`, `entry_hash`, `entry_tenant`, `entry_missing`,
    `entry_repeated`, `entries_reordered`, `entry_link`, `beginning_missing`, `manifest_missing`,
    `manifest_member`, `manifest_count`, `entries_truncated`, `after_manifest`, and those of a
    signature.
    """

    def __init__(
        self, detail: str, *, code: str, line: int | None = None, seq: int | None = None
    ) -> None:
        place = "" if line is None else f"line {line}: "
        super().__init__(place + detail, code=code)
        self.line = line
        self.seq = seq


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What was proven of an export."""

    level: Level
    tenant: str
    count: int
    first_seq: int | None
    last_seq: int | None
    last_entry_hash: str | None
    whole: bool
    signed_by: tuple[str, ...]
    limits: tuple[str, ...]

    def as_json(self) -> dict[str, Json]:
        """The report as `signet audit verify --json` prints it."""
        return {
            "verdict": self.level.name,
            "document": "audit",
            "tenant": self.tenant,
            "count": self.count,
            "first_seq": self.first_seq,
            "last_seq": self.last_seq,
            "last_entry_hash": self.last_entry_hash,
            "whole": self.whole,
            "signed_by": list(self.signed_by),
            "limits": list(self.limits),
        }

    def as_text(self) -> str:
        """The report for a person."""
        part = "all that was kept" if self.whole else "a part of it"
        numbers = "" if self.first_seq is None else f", {self.first_seq} to {self.last_seq}"
        lines = [
            f"{self.level.name}: audit log of tenant {self.tenant}, {part}",
            f"  {self.count} entries{numbers}",
            *([f"  last {self.last_entry_hash}"] if self.last_entry_hash else []),
            *(f"  signed by {kid}" for kid in self.signed_by),
            *(f"  not proven: {limit}" for limit in self.limits),
        ]
        return "\n".join(lines)


def seal_manifest(members: Mapping[str, Json], key: SigningKey) -> bytes:
    """Return the signed manifest's canonical bytes; `members` is everything but the signature."""
    document = dict(members)
    document["manifest_jws"] = key.jws(canonicalize(document), typ=MANIFEST_TYP, detached=True)
    return canonicalize(document)


# --- the two forms --------------------------------------------------------------------------


def csv_header() -> bytes:
    """Return the first line of a CSV file."""
    return _csv_line(list(COLUMNS))


def csv_row(body: bytes) -> bytes:
    """Return an entry as a line of CSV (RFC 4180), from which it can be built again exactly.

    A text that a spreadsheet would take for a formula has an apostrophe in front.
    """
    entry = cast("dict[str, Json]", parse_for_verification(body))
    return _csv_line([_cell(name, entry[name]) for name in COLUMNS])


def read_jsonl(lines: Iterable[bytes]) -> Iterator[tuple[int, dict[str, Json]]]:
    """Yield each line's number and object. Raises `AuditInvalid`."""
    for number, line in enumerate(lines, start=1):
        text = line.removesuffix(b"\n")
        document = _parsed(text, number)
        if not isinstance(document, dict):
            _fail("line_malformed", "This is no JSON object.", number)
        # Two spellings of one value would make a changed file pass for the one that was exported.
        if canonicalize(document) != text:
            _fail("line_malformed", "This is not the canonical form (RFC 8785).", number)
        yield number, document


def read_csv(lines: Iterable[bytes]) -> Iterator[tuple[int, dict[str, Json]]]:
    """Yield the number and the entry of each row. Raises `AuditInvalid`."""
    rows = csv.reader((_decoded(line, number) for number, line in enumerate(lines, 1)), strict=True)
    try:
        if next(rows, None) != list(COLUMNS):
            _fail("line_malformed", f"The first line is {','.join(COLUMNS)}.", 1)
        for row in rows:
            if len(row) != len(COLUMNS):
                _fail("line_malformed", f"A row has {len(COLUMNS)} cells.", rows.line_num)
            entry = {
                name: _value(kind, cell, rows.line_num)
                for (name, kind), cell in zip(COLUMNS.items(), row, strict=True)
            }
            yield rows.line_num, entry
    except csv.Error as error:
        _fail("line_malformed", f"This is not CSV: {error}.", rows.line_num)


def _csv_line(cells: Sequence[str]) -> bytes:
    written = io.StringIO()
    csv.writer(written, lineterminator="\r\n").writerow(cells)
    return written.getvalue().encode("utf-8")


def _cell(name: str, value: Json) -> str:
    if value is None:
        return ""
    if COLUMNS[name] is dict:
        return canonicalize(value).decode("utf-8")
    text = str(value)
    return f"'{text}" if text[:1] in _FORMULA else text


def _value(kind: type, cell: str, line: int) -> Json:
    if cell == "":
        return None
    if kind is int:
        if not (cell.isascii() and cell.isdigit() and len(cell) <= 16):
            _fail("line_malformed", "A number is digits.", line)
        return int(cell)
    if kind is dict:
        return _parsed(cell.encode("utf-8"), line)
    return cell.removeprefix("'")


def _decoded(line: bytes, number: int) -> str:
    if len(line) > _MAX_LINE_BYTES:
        _fail("line_malformed", f"A line has at most {_MAX_LINE_BYTES} bytes.", number)
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        _fail("line_malformed", "This is not UTF-8.", number)


def _parsed(text: bytes, line: int) -> Json:
    if len(text) > _MAX_LINE_BYTES:
        _fail("line_malformed", f"A line has at most {_MAX_LINE_BYTES} bytes.", line)
    try:
        return parse_for_verification(text)
    except ParseError as error:
        _fail("line_malformed", f"This is not I-JSON: {error.detail}", line)


# --- the proof ------------------------------------------------------------------------------


def verify_jsonl(
    lines: Iterable[bytes], *, trust: Collection[str] = (), jwks: KeySet | None = None
) -> AuditReport:
    """Verify an export in JSON Lines, reading each line once. Raises `AuditInvalid`.

    `trust` pins key thumbprints, `jwks` is a key set that the caller trusts; with neither the
    report says `INTEGRITY`.
    """
    documents = read_jsonl(lines)
    proof = _Proof()
    manifest: Mapping[str, Json] | None = None
    for number, document in documents:
        if manifest is not None:
            _fail("after_manifest", "Something stands behind the manifest.", number)
        if document.get("kind") == MANIFEST_KIND:
            manifest = document
        else:
            proof.add(number, document, documents)
    if manifest is None:
        _fail("manifest_missing", "The file ends without its manifest: its end is missing.")
    return proof.end(manifest, trust, jwks)


def verify_csv(
    lines: Iterable[bytes],
    manifest: bytes,
    *,
    trust: Collection[str] = (),
    jwks: KeySet | None = None,
) -> AuditReport:
    """Verify an export in CSV against its manifest, as `verify_jsonl` does."""
    found = [document for _, document in read_jsonl(manifest.splitlines())]
    if len(found) != 1 or found[0].get("kind") != MANIFEST_KIND:
        _fail("manifest_missing", "The manifest is one line of JSON, made by the same export.")
    proof = _Proof()
    rows = read_csv(lines)
    for number, entry in rows:
        proof.add(number, entry, rows)
    return proof.end(found[0], trust, jwks)


class _Proof:
    """Follows the chain, one entry at a time."""

    def __init__(self) -> None:
        self._count = 0
        self._first: Mapping[str, Json] | None = None
        self._last: Mapping[str, Json] | None = None
        self._anchors: dict[Json, Json] = {}

    def add(
        self,
        line: int,
        entry: Mapping[str, Json],
        rest: Iterable[tuple[int, Mapping[str, Json]]],
    ) -> None:
        """The next entry. `rest` is looked through only to say what exactly is wrong."""
        seq = _checked(line, entry)
        if self._last is not None:
            self._follows(line, seq, entry, rest)
        else:
            self._first = entry
        self._last = entry
        self._count += 1
        after = entry["after"]
        if entry["action"] == PRUNED and isinstance(after, dict):
            self._anchors[after.get("through_seq")] = after.get("entry_hash")

    def _follows(
        self,
        line: int,
        seq: int,
        entry: Mapping[str, Json],
        rest: Iterable[tuple[int, Mapping[str, Json]]],
    ) -> None:
        assert self._last is not None
        wanted = cast("int", self._last["seq"]) + 1
        if entry["tenant"] != self._last["tenant"]:
            _fail("entry_tenant", "The entry is another tenant's.", line, seq)
        if seq < wanted:
            _fail("entry_repeated", f"Entry {seq} comes behind entry {wanted - 1}.", line, seq)
        if seq > wanted:
            if any(other.get("seq") == wanted for _, other in rest):
                _fail("entries_reordered", f"Entry {seq} stands before {wanted}.", line, seq)
            missing = str(wanted) if seq == wanted + 1 else f"{wanted} to {seq - 1}"
            _fail("entry_missing", f"Entry {missing} is missing.", line, wanted)
        if entry["prev_entry_hash"] != self._last["entry_hash"]:
            _fail("entry_link", f"Entry {seq} does not follow the one before it.", line, seq)

    def end(
        self, manifest: Mapping[str, Json], trust: Collection[str], jwks: KeySet | None
    ) -> AuditReport:
        """Hold what was read against the manifest, and the manifest against its signature."""
        _check_manifest(manifest)
        signed_by = _check_signature(manifest, trust, jwks)
        first, last = self._first, self._last
        if self._count != manifest["count"]:
            code = "entries_truncated" if self._ends_early(manifest) else "manifest_count"
            detail = f"The manifest counts {manifest['count']} entries, the file {self._count}"
            _fail(code, f"{detail}.")
        said = {name: manifest[name] for name in _ENDS}
        found: dict[str, Json] = {
            "first_seq": None if first is None else first["seq"],
            "last_seq": None if last is None else last["seq"],
            "first_prev_entry_hash": None if first is None else first["prev_entry_hash"],
            "last_entry_hash": None if last is None else last["entry_hash"],
        }
        for name in _ENDS:
            if said[name] != found[name]:
                _fail("manifest_member", f"`{name}` is not that of the entries.")
        if last is not None and last["tenant"] != manifest["tenant"]:
            _fail("entry_tenant", "The entries are another tenant's than the manifest's.")
        whole = self._check_whole(manifest)
        trusted = bool(trust) or jwks is not None
        return AuditReport(
            level=Level.SIGNED if trusted else Level.INTEGRITY,
            tenant=str(manifest["tenant"]),
            count=self._count,
            first_seq=cast("int | None", found["first_seq"]),
            last_seq=cast("int | None", found["last_seq"]),
            last_entry_hash=cast("str | None", found["last_entry_hash"]),
            whole=whole,
            signed_by=signed_by,
            limits=(_OPERATOR,) if trusted else (_UNPINNED, _OPERATOR),
        )

    def _ends_early(self, manifest: Mapping[str, Json]) -> bool:
        reached = None if self._last is None else self._last["seq"]
        return reached != manifest["last_seq"] and (
            self._first is None or self._first["seq"] == manifest["first_seq"]
        )

    def _check_whole(self, manifest: Mapping[str, Json]) -> bool:
        """Whether this is all that was kept. Without a `from` the beginning must be accounted for:
        it is entry 1, or retention removed what came before and an entry of the chain says so."""
        if manifest["from"] is None and self._first is not None and self._first["seq"] != 1:
            before = cast("int", self._first["seq"]) - 1
            if self._anchors.get(before) != self._first["prev_entry_hash"]:
                _fail("beginning_missing", f"Entries 1 to {before} are missing; none was pruned.")
        if manifest["to"] is None and (manifest["last_seq"] or 0) != manifest["head_seq"]:
            _fail("entries_truncated", f"The chain goes on to entry {manifest['head_seq']}.")
        return manifest["from"] is None and manifest["to"] is None


_ENDS: Final = ("first_seq", "last_seq", "first_prev_entry_hash", "last_entry_hash")


def _checked(line: int, entry: Mapping[str, Json]) -> int:
    """The number of an entry that is well formed and hashes to its hash."""
    if entry.keys() != COLUMNS.keys():
        wrong = min(entry.keys() ^ COLUMNS.keys())
        _fail("entry_member", f"`{wrong[:60]}` is missing or unknown.", line)
    for name, kind in COLUMNS.items():
        value = entry[name]
        absent = value is None and name not in _ALWAYS
        if not absent and kind is not dict and type(value) is not kind:
            _fail("entry_member", f"`{name}` is not what it must be.", line)
    seq = cast("int", entry["seq"])
    if entry["v"] != 1 or seq < 1 or (seq == 1) is not (entry["prev_entry_hash"] is None):
        _fail("entry_member", "`v`, `seq` or `prev_entry_hash` is not what it must be.", line)
    try:
        hashed = canonicalize({n: v for n, v in entry.items() if n != "entry_hash"})
    except CanonicalError as error:
        _fail("entry_member", error.detail, line)
    if content_id(hashed) != entry["entry_hash"]:
        _fail("entry_hash", f"Entry {seq} was changed: it does not hash to its hash.", line, seq)
    return seq


def _check_manifest(manifest: Mapping[str, Json]) -> None:
    if manifest.keys() != _MANIFEST.keys():
        wrong = min(manifest.keys() ^ _MANIFEST.keys())
        _fail("manifest_member", f"`{wrong[:60]}` of the manifest is missing or unknown.")
    for name, kinds in _MANIFEST.items():
        if type(manifest[name]) not in kinds:
            _fail("manifest_member", f"`{name}` of the manifest is not what it must be.")
    if manifest["v"] != 1:
        _fail("manifest_member", "This manifest is of another version.")


def _check_signature(
    manifest: Mapping[str, Json], trust: Collection[str], jwks: KeySet | None
) -> tuple[str, ...]:
    try:
        carried = KeySet.from_jwks(manifest["jwks"])
        signed_at_us = timestamp_us(cast("str", manifest["exported_at"]))
    except (KeyFormatError, ValueError) as error:
        _fail("manifest_member", f"The manifest's keys or time cannot be read: {error}")
    signed = {name: value for name, value in manifest.items() if name != "manifest_jws"}
    return verify_signature(
        cast("str", manifest["manifest_jws"]),
        canonicalize(signed),
        typ=MANIFEST_TYP,
        member="manifest_jws",
        signed_at_us=signed_at_us,
        trust=trust,
        jwks=jwks,
        carried=carried,
    )


def _fail(code: str, detail: str, line: int | None = None, seq: int | None = None) -> NoReturn:
    raise AuditInvalid(detail, code=code, line=line, seq=seq)
