"""JSON Schema validation: 2020-12, and draft-07 where `$schema` says so.

The engine is `jsonschema-rs`, always offline: a schema whose `$ref` leads outside itself is a
registration error and nothing is fetched. Numbers are compared as decimals, so 0.07 is a multiple
of 0.01. `format` is asserted.

A string that carries JSON is declared by the standard's own words (JSON Schema Validation §8):
`contentMediaType: application/json`, and `contentSchema` for what must be inside. The engine takes
both as annotations; `Schema.embedded` lists the places, and whoever parses the text checks it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import cast

import jsonschema_rs

from signet.core.errors import Fault, SignetError
from signet.core.unfolding import Unfolding, larger_than, unfold
from signet.receipts.canonical import Json, canonicalize, content_id, pointer
from signet.receipts.errors import ReceiptError

FAULT_LIMIT = 20

_TEXT_LIMIT = 160
_GOT_LIMIT = 40

# A backtracking pattern gives up after this many steps (well under a millisecond) and the value is
# refused; a pattern without look-around runs in linear time. The size limit refuses patterns such
# as (.{0,900}x){5}, which are linear with a factor of seconds per megabyte.
_PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=10_000, size_limit=1 << 20)

# Listing every fault costs about 15 µs for each value that is wrong, before the limit applies.
# A payload with more values than this is told its first fault only, so that a megabyte of wrong
# values cannot hold the process for seconds.
_LISTING_LIMIT = 1_000


class SchemaInvalid(SignetError):
    """The schema document itself cannot be used; `faults` say where and why."""

    code = "schema_invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """A place where documents carry JSON as text.

    `path` are member names and array indexes; `EACH` stands for every element of an array.
    `schema` is what the parsed value must satisfy, where `contentSchema` says it.
    """

    path: tuple[str | int, ...]
    schema: Schema | None


EACH = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """A compiled, immutable schema. Compile once, validate from any thread."""

    name: str
    cid: str
    document: Json = field(repr=False)
    embedded: tuple[Embedded, ...] = field(repr=False, compare=False)
    _validator: jsonschema_rs.Validator = field(repr=False, compare=False)
    _unfolding: Unfolding | None = field(default=None, repr=False, compare=False)

    @classmethod
    def compile(cls, name: str, document: Json, *, trusted: bool = True) -> Schema:
        """Compile a parsed schema document. Raises `SchemaInvalid`.

        One that is not `trusted` is refused where it could make too much work, and its steps are
        counted before each validation that could be long.
        """
        if not isinstance(document, (dict, bool)):
            raise _invalid(name, "", "A schema is an object, true or false.")
        unfolding = None if trusted else unfold(document)
        if isinstance(unfolding, tuple):
            raise SchemaInvalid(f"{name}: {unfolding[0].detail}", faults=unfolding)
        try:
            validator = jsonschema_rs.validator_for(
                document,
                validate_formats=True,
                pattern_options=_PATTERNS,
                # The reader gets the place and the rule; what stands there may be a secret.
                mask="The value",
                offline=True,
            )
        except jsonschema_rs.ValidationError as error:
            raise _invalid(name, pointer(*error.instance_path), error.message) from error
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            raise _invalid(name, "", str(error)) from error
        try:
            canonical = canonicalize(document)
        except ReceiptError as error:
            raise _invalid(name, error.pointer, error.detail) from error
        carries_text = b'"contentMediaType"' in canonical
        return cls(
            name=name,
            cid=content_id(canonical),
            document=document,
            embedded=tuple(_embedded(name, document, trusted)) if carries_text else (),
            _validator=validator,
            _unfolding=unfolding,
        )

    def faults(self, value: Json, *, limit: int = FAULT_LIMIT) -> tuple[Fault, ...]:
        """What is wrong with `value`: nothing when it is valid, at most `limit` faults otherwise.

        Pointers lead into `value`; texts are short and never hold the whole payload; the order is
        the same on every run. A payload of more than 1,000 values is told its first fault only.
        """
        steps = self._unfolding and self._unfolding.steps(value)
        if self._unfolding is not None and steps is None:
            return (_TOO_COSTLY,)
        try:
            if self._validator.is_valid(value):
                return ()
            if steps is not None and not steps.listed:
                return (_NOT_LISTED,)
            if larger_than(value, _LISTING_LIMIT):
                self._validator.validate(value)
            faults = {fault for e in self._validator.iter_errors(value) for fault in _of(e, value)}
        except jsonschema_rs.ValidationError as error:
            faults = set(_of(error, value))
        except ValueError as error:
            # A lone surrogate, which strict parsing refuses, or a key that is no string.
            detail = f"The value cannot be read as JSON: {error}"[:_TEXT_LIMIT]
            faults = {Fault(pointer="", code="schema_unreadable", detail=detail)}
        return tuple(sorted(faults, key=_order)[:limit])


_TOO_COSTLY = Fault(
    pointer="",
    code="schema_too_costly",
    detail="The schema needs too many steps to decide about this value.",
)
_NOT_LISTED = Fault(
    pointer="",
    code="schema_not_listed",
    detail="The value does not fit, and the schema is too intricate to say where.",
)


def _order(fault: Fault) -> tuple[str, str, str]:
    return fault.pointer, fault.code, fault.detail


def _of(error: jsonschema_rs.ValidationError, value: Json) -> Iterator[Fault]:
    """The faults that one error of the engine tells: one for each unexpected member."""
    kind = error.kind
    path = error.instance_path
    details = cast("dict[str, Json]", kind.as_dict())
    if isinstance(kind, _COSTLY):
        yield Fault(
            pointer=pointer(*path),
            code="schema_pattern_too_costly",
            detail="The pattern needs too many steps to decide about this value.",
        )
        return
    code = "schema_" + re.sub("[A-Z]", lambda letter: "_" + letter[0].lower(), kind.name)
    unexpected = details.get("unexpected")
    if isinstance(unexpected, list):
        for member in unexpected[:FAULT_LIMIT]:
            yield Fault(
                pointer=pointer(*path, cast("str | int", member)),
                code=code,
                detail="The schema does not allow this member.",
            )
        return
    yield Fault(
        pointer=pointer(*path),
        code=code,
        detail=_short(error.message + "."),
        expected=_expected(kind.name, details),
        got=_got(value, path),
    )


_COSTLY = (
    jsonschema_rs.ValidationErrorKind.BacktrackLimitExceeded,
    jsonschema_rs.ValidationErrorKind.RegexEngineFailure,
)


def _expected(keyword: str, details: dict[str, Json]) -> str:
    """The rule in its schema's words: `maxLength 5`; for alternatives, why each one failed."""
    if "context" in details:
        branches = cast("list[list[jsonschema_rs.ValidationError]]", details["context"])
        reasons = [branch[0].message for branch in branches if branch]
        return _short(f"{keyword}: " + "; ".join(reasons))
    values = [canonicalize(rule).decode() for rule in details.values() if _is_json(rule)]
    return _short(" ".join([keyword, *values]))


def _is_json(value: object) -> bool:
    return isinstance(value, (str, bool, int, float, Decimal, list, dict)) or value is None


def _got(value: Json, path: list[str | int]) -> str:
    """What stands at `path`, in a few characters."""
    for token in path:
        if isinstance(value, dict):
            value = value[str(token)]
        elif isinstance(value, list):
            value = value[int(token)]
    if isinstance(value, dict):
        return f"object with {len(value)} members"
    if isinstance(value, list):
        return f"array with {len(value)} elements"
    if isinstance(value, str):
        return f'"{value}"' if len(value) <= _GOT_LIMIT else f"string of {len(value)} characters"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)[:_GOT_LIMIT]


def _short(text: str) -> str:
    return text if len(text) <= _TEXT_LIMIT else text[: _TEXT_LIMIT - 1] + "…"


def _invalid(name: str, at: str, detail: str) -> SchemaInvalid:
    detail = _short(detail)
    fault = Fault(pointer=at, code="schema_invalid", detail=detail)
    return SchemaInvalid(f"{name}: {detail}", faults=(fault,))


# --- JSON inside strings ---------------------------------------------------------------------


# A schema whose references fan out has exponentially many places; no honest one has as many.
_MAX_PLACES = 20_000


def _embedded(name: str, document: Json, trusted: bool) -> Iterator[Embedded]:
    """Every declared place of JSON text, once each, in the schema's order."""
    seen: set[tuple[str | int, ...]] = set()
    for count, (path, here) in enumerate(_places(document, document, (), frozenset())):
        if count > _MAX_PLACES:
            raise _invalid(name, "", "Its references unfold into too many places.")
        if here.get("contentMediaType") != "application/json" or path in seen:
            continue
        seen.add(path)
        inside = here.get("contentSchema")
        at = f"{name}#{pointer(*path)}"
        schema = None if inside is None else Schema.compile(at, inside, trusted=trusted)
        yield Embedded(path=path, schema=schema)


def _places(
    root: Json, here: Json, path: tuple[str | int, ...], followed: frozenset[str]
) -> Iterator[tuple[tuple[str | int, ...], dict[str, Json]]]:
    """Every sub-schema with the place in a document that it describes.

    References within the document are followed once along each way, so a recursive type ends.
    """
    if not isinstance(here, dict):
        return
    yield path, here
    reference = here.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/") and reference not in followed:
        yield from _places(root, _resolve(root, reference), path, followed | {reference})
    for keyword in ("allOf", "anyOf", "oneOf"):
        branches = here.get(keyword)
        for branch in branches if isinstance(branches, list) else ():
            yield from _places(root, branch, path, followed)
    members = here.get("properties")
    for member, schema in members.items() if isinstance(members, dict) else ():
        yield from _places(root, schema, (*path, member), followed)
    elements = here.get("prefixItems")
    for index, schema in enumerate(elements if isinstance(elements, list) else ()):
        yield from _places(root, schema, (*path, index), followed)
    yield from _places(root, here.get("items"), (*path, EACH), followed)


def _resolve(root: Json, reference: str) -> Json:
    """The sub-schema at a local JSON Pointer reference; the engine has checked that it exists."""
    here = root
    for token in reference[2:].split("/"):
        token = token.replace("~1", "/").replace("~0", "~")
        if isinstance(here, dict):
            here = here.get(token)
        elif isinstance(here, list) and token.isdecimal() and int(token) < len(here):
            here = here[int(token)]
        else:
            return None
    return here
