"""A billing statement: what a tenant's month cost, signed, down to the receipts of every line.

The document is flat JSON; prices and amounts are decimal texts, never JSON numbers. Each line has
the root of a Merkle tree (RFC 9162 §2.1.1) whose leaves are the canonical JSON of
`[receipt_hash, units]`, in the order the log took the receipts; a receipt whose units straddle two
tiers stands in both lines. `statement_hash` is over the document without `statement_hash`, `jwks`
and `statement_jws`; `statement_jws` is a detached JWS over the document without itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import ROUND_HALF_UP, Context, Decimal, Inexact, InvalidOperation, Overflow
from typing import Final, NoReturn, cast

from signet.receipts.canonical import Json, canonicalize, content_id
from signet.receipts.errors import ReceiptError
from signet.receipts.keys import SigningKey
from signet.receipts.merkle import MerkleTree

STATEMENT_TYP: Final = "signet-statement+jws"
SEALING: Final = frozenset({"statement_hash", "jwks", "statement_jws"})
"""What sealing adds to the members."""

MEMBERS: Final[Mapping[str, type | tuple[type, ...]]] = {
    "v": int,
    "kind": str,
    "iss": str,
    "tenant": str,
    "period": str,
    "timezone": str,
    "start": str,
    "end": str,
    "revision": int,
    "adjusts": (str, type(None)),
    "plan": str,
    "currency": str,
    "usage": dict,
    "lines": list,
    "total": str,
    "adjustment": str,
    "receipts": int,
    "receipts_root": str,
    "issued_at": str,
}
LINE_MEMBERS: Final[Mapping[str, type | tuple[type, ...]]] = {
    "meter": str,
    "tier": int,
    "from": int,
    "to": int,
    "units": int,
    "price": str,
    "exact": str,
    "amount": str,
    "item": (str, type(None)),
    "receipts": int,
    "root": str,
}

_DECIMAL: Final = re.compile(r"-?(0|[1-9][0-9]{0,39})(\.[0-9]{1,40})?")
_EXACT: Final = Context(prec=100, traps=[Inexact, InvalidOperation, Overflow])
_ROUNDED: Final = Context(prec=100, rounding=ROUND_HALF_UP, traps=[InvalidOperation, Overflow])


class StatementError(ReceiptError):
    """What a statement says does not hold together; `pointer` is the place.

    Codes: `statement_member`, `statement_version`, `statement_decimal`, `statement_decimals`,
    `statement_exact`, `statement_rounding`, `statement_total`, `statement_usage`,
    `statement_line_empty`, `statement_line_twice`, `statement_line_unknown`, `statement_root`,
    `statement_units`.
    """


def seal_statement(
    members: Mapping[str, Json], key: SigningKey, *, jwks: Mapping[str, Json]
) -> bytes:
    """Return the signed statement's canonical bytes. Raises `StatementError` before signing."""
    check_members(members)
    document = dict(members)
    document["statement_hash"] = statement_hash(members)
    document["jwks"] = dict(jwks)
    document["statement_jws"] = key.jws(canonicalize(document), typ=STATEMENT_TYP, detached=True)
    return canonicalize(document)


def statement_hash(members: Mapping[str, Json]) -> str:
    """Return the hash by which a later revision names the one that it adjusts."""
    return content_id(canonicalize({n: v for n, v in members.items() if n not in SEALING}))


def check_members(members: Mapping[str, Json]) -> None:
    """Check that a statement adds up. Raises `StatementError` at the first place that does not.

    Each line's exact amount is units times price, its amount is that, rounded half up once; the
    total is the sum of the lines, and the usage of a meter the sum of its lines' units.
    """
    _check_types(members, MEMBERS, "")
    if members["v"] != 1 or members["kind"] != "statement":
        _fault("statement_version", "This is not a statement of version 1.", "v")
    total = _decimal(members["total"], "total")
    decimals = _decimals(total)
    if _decimals(_decimal(members["adjustment"], "adjustment")) != decimals:
        _fault("statement_decimals", "Total and adjustment have unequal decimals.", "adjustment")
    usage: dict[str, int] = {}
    seen: set[tuple[Json, Json]] = set()
    added = Decimal(0)
    for index, entry in enumerate(cast("list[Json]", members["lines"])):
        place = f"lines/{index}"
        if not isinstance(entry, dict):
            _fault("statement_member", "A line is an object.", place)
        _check_types(entry, LINE_MEMBERS, place + "/")
        if (entry["meter"], entry["tier"]) in seen:
            _fault("statement_line_twice", "Two lines are of one tier.", place)
        seen.add((entry["meter"], entry["tier"]))
        added = _EXACT.add(added, _check_line(entry, decimals, place))
        meter = cast("str", entry["meter"])
        usage[meter] = usage.get(meter, 0) + cast("int", entry["units"])
    if added != total:
        _fault("statement_total", f"The lines add up to {added}.", "total")
    said = cast("dict[str, Json]", members["usage"])
    if {meter: units for meter, units in said.items() if units} != usage:
        _fault("statement_usage", "The usage is not that of the lines.", "usage")


def _check_line(line: Mapping[str, Json], decimals: int, place: str) -> Decimal:
    units, price = cast("int", line["units"]), _decimal(line["price"], f"{place}/price")
    if units < 1 or cast("int", line["receipts"]) < 1:
        _fault("statement_line_empty", "A line has units, from receipts.", f"{place}/units")
    exact = _EXACT.multiply(Decimal(units), price)
    if _decimal(line["exact"], f"{place}/exact") != exact:
        _fault("statement_exact", f"{units} at {price} is {exact}.", f"{place}/exact")
    amount = _decimal(line["amount"], f"{place}/amount")
    rounded = exact.quantize(Decimal(1).scaleb(-decimals), context=_ROUNDED)
    if amount != rounded or _decimals(amount) != decimals:
        _fault("statement_rounding", f"{exact} rounds to {rounded}.", f"{place}/amount")
    return amount


class LineList:
    """Holds a list of receipts against a statement's roots, one entry at a time."""

    def __init__(self, members: Mapping[str, Json]) -> None:
        """`members` have passed `check_members`."""
        lines = cast("list[dict[str, Json]]", members["lines"])
        self._lines = {(line["meter"], line["tier"]): line for line in lines}
        self._trees = {key: MerkleTree() for key in self._lines}
        self._units = dict.fromkeys(self._lines, 0)

    def add(self, meter: str, tier: int, receipt_hash: str, units: int) -> None:
        """The next entry of a line. Raises `StatementError` for a line that is not there."""
        tree = self._trees.get((meter, tier))
        if tree is None:
            _fault("statement_line_unknown", f"There is no line {meter} {tier}.", "lines")
        tree.add(leaf(receipt_hash, units))
        self._units[meter, tier] += units

    def check(self) -> None:
        """After the last entry: every line has exactly its receipts, or `StatementError`."""
        for index, (key, line) in enumerate(self._lines.items()):
            tree = self._trees[key]
            if (tree.size, tree.root_text()) != (line["receipts"], line["root"]):
                _fault("statement_root", "The receipts are not the line's.", f"lines/{index}/root")
            if self._units[key] != line["units"]:
                _fault("statement_units", "The units are not the line's.", f"lines/{index}/units")


def check_list(members: Mapping[str, Json], entries: Iterable[tuple[str, int, str, int]]) -> None:
    """Hold a whole list of (meter, tier, receipt_hash, units) against a statement."""
    listed = LineList(members)
    for entry in entries:
        listed.add(*entry)
    listed.check()


def leaf(receipt_hash: str, units: int) -> bytes:
    """Return the data of one leaf of a line's tree."""
    return canonicalize([receipt_hash, units])


def _check_types(
    members: Mapping[str, Json], wanted: Mapping[str, type | tuple[type, ...]], place: str
) -> None:
    for name, kind in wanted.items():
        value = members.get(name)
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if name not in members or type(value) not in kinds:
            _fault("statement_member", f"`{name}` is missing or not what it must be.", place + name)
    for name in sorted(members.keys() - wanted.keys() - SEALING):
        _fault("statement_member", f"`{name[:60]}` is not a member.", place + name[:60])


def _decimal(value: Json, member: str) -> Decimal:
    if not isinstance(value, str) or not _DECIMAL.fullmatch(value):
        _fault("statement_decimal", "An amount is the plain digits of a decimal.", member)
    return Decimal(value)


def _decimals(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    return -exponent if isinstance(exponent, int) else 0


def _fault(code: str, detail: str, place: str) -> NoReturn:
    raise StatementError(detail, code=code, pointer="/" + place)
