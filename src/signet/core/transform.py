"""Mappings: from one type's document to another's.

Two forms. `{"fields": {target: source}}` is compiled once to closures and runs here:

    {"fields": {
        "Document.Invoice.Id": "arguments.invoice_id",
        "Document.Invoice.TotalMinor": {"minor_units": "arguments.amount",
                                        "currency": "arguments.currency"},
        "Document.Invoice.Note": {"path": "arguments.description", "optional": true}}}

`when` says which documents the mapping is made for: expressions and the values they must have.

A target is names and indexes; a source is a JMESPath expression (`signet.core.paths`) or one of a
closed set of functions, all of them exact. A source that is absent or null is a fault unless it is
`optional` or has a `default`.

`{"jsonata": "<expression>"}` is hostile code as far as we know, so this module only holds its
text; `signet.providers.jsonata` runs it in a process that can be killed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Any, Final, TypeAlias

from signet.core import units
from signet.core.errors import Fault, SignetError
from signet.core.paths import (
    Path,
    PathInvalid,
    PathTypeError,
    Token,
    compile_path,
    equal,
    target_tokens,
)
from signet.core.schema import FAULT_LIMIT
from signet.core.values import value_class
from signet.receipts.canonical import Json, canonicalize, content_id, parse, pointer
from signet.receipts.errors import ReceiptError

MAX_JSONATA = 20_000
_MAX_FIELDS = 2_000
_QUICK_STEPS: Final = 200_000
_LARGE_SOURCE: Final = 100_000
_CHARACTERS: Final = 16
"""So many characters of text count as one value more."""


class MappingInvalid(SignetError):
    """The mapping document itself cannot be used; `faults` say where and why."""

    code = "mapping_invalid"


@value_class
class Mapped:
    """The target document."""

    value: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingFailed:
    """The source did not hold what the mapping needs. Pointers lead into the source."""

    faults: tuple[Fault, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """The declarative form, compiled."""

    _build: _Build = field(repr=False)
    _work: tuple[int, ...] = field(repr=False)
    """What it may take for a document of n values, as the factors of 1, n, n², … in a sum."""

    def apply(self, source: Json) -> Mapped | MappingFailed:
        """Build the target document from `source` (parsed strictly: int and Decimal, no float)."""
        faults: list[Fault] = []
        value = self._build(source, faults)
        if faults:
            return MappingFailed(faults=tuple(faults[:FAULT_LIMIT]))
        return Mapped(value={} if value is ABSENT else value)

    def is_quick(self, source: Json) -> bool:
        """Whether `apply` surely ends soon, with a small result; a hostile mapping's may not."""
        # Whoever is quick for a document of this size is quick for every smaller one.
        size = _size_up_to(_LARGE_SOURCE, source)
        work = sum(factor * size**power for power, factor in enumerate(self._work))
        return size <= _LARGE_SOURCE and work <= _QUICK_STEPS


@dataclass(frozen=True, slots=True, kw_only=True)
class JSONata:
    """A JSONata expression. Run it in the worker; its answer is the target document's text."""

    expression: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """A named, immutable mapping. Match on `body`: `Fields` runs here, `JSONata` in the worker."""

    name: str
    source_type: str
    target_type: str
    cid: str
    body: Fields | JSONata
    document: Json = field(repr=False)
    trusted: bool = True
    """Whether `Fields` may run here whatever the document is; else ask it `is_quick` first."""
    _conditions: tuple[tuple[Path, Json], ...] = field(repr=False, compare=False)

    @classmethod
    def compile(
        cls, name: str, source_type: str, target_type: str, document: Json, *, trusted: bool = True
    ) -> Mapping:
        """Compile a parsed mapping document. Raises `MappingInvalid` with every fault at once."""
        faults: list[Fault] = []
        compiler = _Compiler(faults, trusted=trusted)
        body, conditions = compiler.mapping(document)
        if faults or body is None:
            raise MappingInvalid(f"{name}: {faults[0].detail}", faults=tuple(faults))
        return cls(
            name=name,
            source_type=source_type,
            target_type=target_type,
            cid=content_id(canonicalize(document)),
            body=body,
            document=document,
            trusted=trusted,
            _conditions=conditions,
        )

    def condition_faults(self, source: Json) -> tuple[Fault, ...]:
        """Why this mapping is not meant for `source`: what its `when` demands and is not so."""
        return tuple(
            Fault(
                pointer=_pointer(path),
                code="mapping_not_applicable",
                detail="The mapping is not made for this document.",
                expected=f"{path.expression} = {canonicalize(wanted).decode()}"[:160],
            )
            for path, wanted in self._conditions
            if not _holds(path, wanted, source)
        )


# --- What compiled sources are ---------------------------------------------------------------


class _Absent(Enum):
    """The third thing besides a value and a fault: an optional source that is not there."""

    ABSENT = "absent"


ABSENT: Final = _Absent.ABSENT

_Value: TypeAlias = "Json | _Absent"
_Source: TypeAlias = Callable[[Json], _Value]
_Build: TypeAlias = Callable[[Json, list[Fault]], _Value]


@dataclass(frozen=True, slots=True)
class _Tree:
    """The targets of a mapping while it is compiled: names or indexes, and what is below."""

    below: dict[Token, _Tree | _Build] = field(default_factory=dict[Token, "_Tree | _Build"])


class _Failed(Exception):
    """A source has no value, and needs one. Never leaves this module."""

    def __init__(self, code: str, detail: str, *, at: str = "", missing: bool = False) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.at = at
        self.missing = missing


def _pointer(path: Path) -> str:
    """Where a path leads, as far as names and non-negative indexes say it."""
    known: list[Token] = []
    for token in path.tokens or ():
        if isinstance(token, int) and token < 0:
            break
        known.append(token)
    return pointer(*known)


def _holds(path: Path, wanted: Json, source: Json) -> bool:
    try:
        return equal(path.get(source), wanted)
    except PathTypeError:
        return False


def _read(path: Path) -> _Source:
    at = _pointer(path)
    get = path.get

    def read(source: Json) -> _Value:
        try:
            value = get(source)
        except PathTypeError as error:
            raise _Failed("mapping_source_type", error.detail, at=at) from error
        if value is None:
            detail = f"There is nothing at {path.expression}."
            raise _Failed("mapping_source_missing", detail, at=at, missing=True)
        return value

    return read


# --- The closed set of functions ----------------------------------------------------------------
# Each takes values that are present and returns one, or raises _Failed or an AmountError.


def _to_string(value: Json) -> Json:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | Decimal():
            return units.plain(units.to_decimal(value))
        case _:
            raise _Failed("mapping_source_type", "Only a string, a number or a boolean has a text.")


def _to_integer(value: Json) -> Json:
    return units.scaled(value, 0, unit="An integer")


def _to_number(value: Json) -> Json:
    """The number that a text spells, under the same rule of exactness as at the door."""
    try:
        return parse(units.plain(units.to_decimal(value)))
    except ReceiptError as error:
        raise _Failed(error.code, "No JSON number is exactly this; send it as a string.") from error


_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)


def _to_date(value: Json) -> Json:
    """A calendar date as RFC 3339 writes it (full-date), unchanged."""
    if isinstance(value, str) and _DATE.fullmatch(value):
        try:
            date.fromisoformat(value)
        except ValueError:
            pass
        else:
            return value
    raise _Failed("mapping_not_a_date", "A date is YYYY-MM-DD and must exist.")


_UNARY: dict[str, Callable[[Json], Json]] = {
    "string": _to_string,
    "integer": _to_integer,
    "number": _to_number,
    "date": _to_date,
}


def _currency(value: _Value) -> str:
    if isinstance(value, str):
        return value
    raise _Failed("currency_unknown", "A currency is a code of three letters, as a string.")


# --- Compilation ---------------------------------------------------------------------------------

OPERATIONS = frozenset(
    ("path", "const", "decimal", "minor_units", "concat", "lookup", "each", *_UNARY)
)
_ARGUMENTS = {
    "decimal": frozenset(("places", "currency")),
    "minor_units": frozenset(("currency",)),
    "concat": frozenset(("separator",)),
    "lookup": frozenset(("table",)),
    "each": frozenset(("fields",)),
}
_MODIFIERS = frozenset(("optional", "default"))


class _Compiler:
    """Turns a mapping document into closures, collecting every fault on the way."""

    def __init__(self, faults: list[Fault], *, trusted: bool) -> None:
        self._faults = faults
        self._trusted = trusted
        self._fields_seen = 0
        # How many nested `each` there are whose arrays need not lie within one another, and
        # whether any `each` is around at all.
        self._rounds = 0
        self._inside = False
        self._work = [0] * 8

    def mapping(
        self, document: Json
    ) -> tuple[Fields | JSONata | None, tuple[tuple[Path, Json], ...]]:
        if not isinstance(document, dict):
            self._fault((), "A mapping is an object with `fields` or `jsonata`.")
            return None, ()
        self._only(document, {"description", "when", "fields", "jsonata"}, ())
        conditions = self._conditions(document.get("when", {}))
        if ("fields" in document) == ("jsonata" in document):
            self._fault((), "A mapping has either `fields` or `jsonata`.")
            return None, ()
        if "fields" in document:
            build = self._fields(document["fields"], ("fields",))
            return Fields(_build=build, _work=tuple(self._work)), conditions
        expression = document["jsonata"]
        if not isinstance(expression, str) or not 0 < len(expression) <= MAX_JSONATA:
            self._fault(("jsonata",), f"An expression is text of 1 to {MAX_JSONATA} characters.")
            return None, ()
        return JSONata(expression=expression), conditions

    def _conditions(self, when: Json) -> tuple[tuple[Path, Json], ...]:
        if not isinstance(when, dict):
            self._fault(("when",), "`when` is an object of expressions and the values they have.")
            return ()
        for path, wanted in when.items():
            if isinstance(wanted, (list, dict)):
                self._fault(("when", path), "A condition compares with a text, a number or such.")
        found = [(self._path(path, ("when", path)), wanted) for path, wanted in when.items()]
        for path, _ in found:
            if path is not None and path.tokens is None and not self._trusted:
                # Conditions are held against every document, in the process that serves everybody.
                detail = "A condition of a registered mapping is names and indexes only."
                self._fault(("when", path.expression), detail)
        return tuple((path, wanted) for path, wanted in found if path is not None)

    def _fields(self, fields: Json, at: tuple[Token, ...]) -> _Build:
        """The whole tree of targets as one closure."""
        if not isinstance(fields, dict) or not fields:
            self._fault(at, "`fields` is an object of targets and their sources.")
            return _nothing
        tree = _Tree()
        for target, source in fields.items():
            self._fields_seen += 1
            if self._fields_seen > _MAX_FIELDS:
                self._fault(at, f"A mapping has at most {_MAX_FIELDS} fields.")
                return _nothing
            here = (*at, target)
            try:
                tokens = target_tokens(target)
            except PathInvalid as error:
                self._fault(here, error.detail)
                continue
            leaf = _leaf(self._source(source, here), pointer(*tokens), _place(source))
            if (names := _plain_names(source)) is not None:
                leaf = _found(names, leaf)
            if not _plant(tree, tokens, leaf):
                self._fault(here, "Another target is at this place, or above or below it.")
        return self._branch(tree, at)

    def _branch(self, tree: _Tree, at: tuple[Token, ...]) -> _Build:
        built = {
            token: self._branch(child, at) if isinstance(child, _Tree) else child
            for token, child in tree.below.items()
        }
        names = [(token, build) for token, build in built.items() if isinstance(token, str)]
        if len(names) == len(built):
            return _object(names)
        if names or sorted(map(int, built)) != list(range(len(built))):
            self._fault(at, "The indexes of an array in a target are 0, 1, 2, … without a gap.")
            return _nothing
        return _array([built[index] for index in range(len(built))])

    def _source(self, rule: Json, at: tuple[Token, ...]) -> _Source:
        """One source: an expression, or an object with one operation."""
        if isinstance(rule, str):
            return self._path_source(rule, at)
        if not isinstance(rule, dict):
            self._fault(at, "A source is an expression or an object with one operation.")
            return _never
        named = OPERATIONS & rule.keys()
        if len(named) != 1:
            offered = ", ".join(sorted(OPERATIONS))
            self._fault(at, f"A source has exactly one operation of: {offered}.")
            return _never
        (operation,) = named
        self._only(rule, {operation} | _MODIFIERS | _ARGUMENTS.get(operation, frozenset()), at)
        read = self._operation(operation, rule, at)
        if "default" in rule:
            self._count_made(rule["default"])
            return _or_else(read, rule["default"])
        optional = rule.get("optional", False)
        if not isinstance(optional, bool):
            self._fault((*at, "optional"), "`optional` is true or false.")
        return _or_else(read, ABSENT) if optional else read

    def _operation(self, operation: str, rule: dict[str, Json], at: tuple[Token, ...]) -> _Source:
        operand = rule[operation]
        inside = (*at, operation)
        if operation == "const":
            self._count_made(operand)
            return lambda _: operand
        if operation == "path":
            return self._path_source(operand, inside)
        if operation == "concat":
            return self._concat(rule, at)
        read = self._source(operand, inside)
        if operation in _UNARY:
            return _applied(read, _UNARY[operation])
        if operation == "lookup":
            return self._lookup(read, rule.get("table"), at)
        if operation == "each":
            base = operand.get("path") if isinstance(operand, dict) else operand
            path = self._path(base, inside) if isinstance(base, str) else None
            build = self._each_fields(path, rule.get("fields"), at)
            return _each(read, build, "" if path is None else _pointer(path))
        return self._money(operation, read, rule, at)

    def _each_fields(self, base: Path | None, fields: Json, at: tuple[Token, ...]) -> _Build:
        """The fields of an `each`, which are built once for each element of its array."""
        before = self._rounds, self._inside
        # The elements of arrays that lie in the elements around them are as many as there are
        # values; all others come once more for each round.
        if not self._inside or base is None or base.begins != "item":
            self._rounds += 1
        if self._rounds + 1 >= len(self._work):
            self._fault(at, "There are too many `each` inside one another.")
            return _nothing
        self._inside = True
        build = self._fields(fields, (*at, "fields"))
        self._rounds, self._inside = before
        return build

    def _count(self, path: Path) -> None:
        """Add what reading this path may take, and how large what it finds may be."""
        within = self._inside and path.begins == "item"
        self._work[self._rounds] += 1
        self._work[max(self._rounds, 1) if within else self._rounds + 1] += 1 + path.parts

    def _count_made(self, value: Json) -> None:
        """Add the size of what the mapping itself brings along."""
        self._work[self._rounds] += _size_up_to(_LARGE_SOURCE, value)

    def _money(
        self, operation: str, read: _Source, rule: dict[str, Json], at: tuple[Token, ...]
    ) -> _Source:
        """`minor_units` by currency; `decimal` by currency, by places, or as it is."""
        if "currency" in rule:
            currency = self._source(rule["currency"], (*at, "currency"))
            finish = _minor_units if operation == "minor_units" else _decimal_of_currency
            return lambda source: finish(read(source), currency(source))
        if operation == "minor_units":
            self._fault(at, "`minor_units` needs its `currency`.")
            return _never
        if "places" not in rule:
            return _applied(read, lambda value: units.plain(units.to_decimal(value)))
        places = rule["places"]
        if type(places) is not int or not 0 <= places <= 15:
            self._fault((*at, "places"), "`places` is an integer from 0 to 15.")
            return _never
        return _applied(read, lambda value: _with_places(value, places))

    def _concat(self, rule: dict[str, Json], at: tuple[Token, ...]) -> _Source:
        parts, separator = rule["concat"], rule.get("separator", "")
        if not isinstance(parts, list) or not parts or not isinstance(separator, str):
            self._fault(at, "`concat` is a list of sources, its `separator` a string.")
            return _never
        reads = [self._source(part, (*at, "concat", i)) for i, part in enumerate(parts)]

        def concat(source: Json) -> _Value:
            texts: list[str] = []
            for read in reads:
                part = read(source)
                if part is ABSENT:
                    continue
                if not isinstance(part, str):
                    raise _Failed("mapping_source_type", "Only strings are joined; see `string`.")
                texts.append(part)
            return separator.join(texts) if texts else ABSENT

        return concat

    def _lookup(self, read: _Source, table: Json, at: tuple[Token, ...]) -> _Source:
        if not isinstance(table, dict) or not table:
            self._fault((*at, "table"), "`table` is an object: the texts and what each becomes.")
            return _never
        self._count_made(table)

        def find(value: Json) -> Json:
            if isinstance(value, str) and value in table:
                return table[value]
            raise _Failed("mapping_lookup_unknown", "The table has no entry for this value.")

        return _applied(read, find)

    def _path_source(self, expression: Json, at: tuple[Token, ...]) -> _Source:
        path = self._path(expression, at)
        return _never if path is None else _read(path)

    def _path(self, expression: Json, at: tuple[Token, ...]) -> Path | None:
        if not isinstance(expression, str):
            self._fault(at, "A path is a JMESPath expression, as a string.")
            return None
        try:
            path = compile_path(expression)
        except PathInvalid as error:
            self._fault(at, error.detail)
            return None
        self._count(path)
        return path

    def _only(self, members: dict[str, Json], known: set[str], at: tuple[Token, ...]) -> None:
        for name in members.keys() - known:
            self._fault((*at, name), f"Not a member that has a meaning here: {name[:40]}.")

    def _fault(self, at: tuple[Token, ...], detail: str) -> None:
        self._faults.append(Fault(pointer=pointer(*at), code="mapping_invalid", detail=detail))


# --- The closures --------------------------------------------------------------------------------


def _never(_: Json) -> _Value:
    """Stands where compilation failed; such a mapping is never handed out."""
    return ABSENT


def _nothing(_source: Json, _faults: list[Fault]) -> _Value:
    return ABSENT


def _plant(tree: _Tree, tokens: tuple[Token, ...], leaf: _Build) -> bool:
    """Put the leaf in its place; False where something else is there."""
    *way, last = tokens
    for token in way:
        child = tree.below.setdefault(token, _Tree())
        if not isinstance(child, _Tree):
            return False
        tree = child
    return tree.below.setdefault(last, leaf) is leaf


def _size_up_to(limit: int, value: Json) -> int:
    """The size of a document in values, long texts counting as several; stops beyond `limit`."""
    size = 0
    waiting = [value]
    while waiting and size <= limit:
        here = waiting.pop()
        size += 1
        if isinstance(here, dict):
            waiting.extend(here.values())
            size += sum(map(len, here)) // _CHARACTERS
        elif isinstance(here, list):
            waiting.extend(here)
        elif isinstance(here, str):
            size += len(here) // _CHARACTERS
    return size


def _place(rule: Json) -> str:
    """Where the first thing that a source reads stands, for faults in what a function makes."""
    while isinstance(rule, dict):
        rule = next((operand for name, operand in rule.items() if name in OPERATIONS), None)
    if not isinstance(rule, str):
        return ""
    try:
        return _pointer(compile_path(rule))
    except PathInvalid:
        return ""


def _plain_names(rule: Json) -> tuple[Token, ...] | None:
    """The names and indexes of a source that is nothing but a path of those; else None."""
    expression = rule.get("path") if isinstance(rule, dict) else rule
    if not isinstance(expression, str):
        return None
    try:
        return compile_path(expression).tokens
    except PathInvalid:
        return None


def _found(names: tuple[Token, ...], otherwise: _Build) -> _Build:
    """What stands at a plain path, by one call; where there is nothing, `otherwise` has its say."""

    def build(source: Json, faults: list[Fault]) -> _Value:
        here: Any = source
        try:
            for name in names:
                if isinstance(here, str):  # its characters have indexes, but it has no elements
                    return otherwise(source, faults)
                here = here[name]
        except (KeyError, IndexError, TypeError):
            return otherwise(source, faults)
        return otherwise(source, faults) if here is None else here

    return build


def _leaf(read: _Source, target: str, place: str) -> _Build:
    def build(source: Json, faults: list[Fault]) -> _Value:
        try:
            return read(source)
        except _Failed as failed:
            code, detail, at = failed.code, failed.detail, failed.at or place
        except units.AmountError as error:
            code, detail, at = error.code, error.detail, place
        faults.append(
            Fault(pointer=at, code=code, detail=detail, expected=f"a value for {target}"[:160])
        )
        return ABSENT

    return build


def _object(members: list[tuple[str, _Build]]) -> _Build:
    def build(source: Json, faults: list[Fault]) -> _Value:
        made: dict[str, Json] = {}
        for name, member in members:
            value = member(source, faults)
            if value is not ABSENT:
                made[name] = value
        # An object whose every member is optional and absent is absent too.
        return made or ABSENT

    return build


def _array(elements: list[_Build]) -> _Build:
    def build(source: Json, faults: list[Fault]) -> _Value:
        built = (element(source, faults) for element in elements)
        return [value for value in built if value is not ABSENT] or ABSENT

    return build


def _applied(read: _Source, function: Callable[[Json], Json]) -> _Source:
    def apply(source: Json) -> _Value:
        value = read(source)
        return ABSENT if value is ABSENT else function(value)

    return apply


def _or_else(read: _Source, otherwise: _Value) -> _Source:
    def choose(source: Json) -> _Value:
        try:
            value = read(source)
        except _Failed as failed:
            if failed.missing:
                return otherwise
            raise
        return otherwise if value is ABSENT else value

    return choose


def _each(read: _Source, build: _Build, at: str) -> _Source:
    """For every element of an array one document, made of {"item": element, "root": source}."""

    def each(source: Json) -> _Value:
        elements = read(source)
        if elements is ABSENT:
            return ABSENT
        if not isinstance(elements, list):
            raise _Failed("mapping_source_type", "`each` needs an array.", at=at)
        made: list[Json] = []
        for index, element in enumerate(elements):
            faults: list[Fault] = []
            value = build({"item": element, "root": source}, faults)
            if faults:
                first = faults[0]
                _, top, rest = (*first.pointer.split("/", 2), "", "")[:3]
                below = f"/{rest}" if rest else ""
                whole = below if top == "root" else f"{at}/{index}{below}"
                raise _Failed(first.code, first.detail, at=whole)
            if value is not ABSENT:
                made.append(value)
        return made

    return each


def _minor_units(amount: _Value, currency: _Value) -> _Value:
    return ABSENT if amount is ABSENT else units.to_minor(amount, _currency(currency))


def _decimal_of_currency(amount: _Value, currency: _Value) -> _Value:
    if amount is ABSENT:
        return ABSENT
    code = _currency(currency)
    return units.with_places(units.to_minor(amount, code), units.exponent(code))


def _with_places(value: Json, places: int) -> Json:
    return units.with_places(units.scaled(value, places), places)
