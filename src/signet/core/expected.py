"""What a JSON Schema asks for at one place, read leniently and in bounded time.

This is no validator (`signet.core.schema` is): it answers the few questions a repair may ask, and
answers "nothing known" wherever the schema is not plain. Unknown means that nothing is coerced.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from signet.receipts.canonical import Json

_MAX_BRANCHES = 64  # alternatives looked at per place; beyond it nothing is known
_ALL_TYPES = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})


@dataclass(frozen=True, slots=True)
class Expected:
    """One place of a schema document: the plain schemas that may apply there."""

    document: Json
    branches: tuple[dict[str, Json], ...]

    @classmethod
    def at_root(cls, document: Json | None) -> Expected:
        """The root of `document`, or a place where nothing is known."""
        return cls._of(document, [] if document is None else [document])

    @classmethod
    def _of(cls, document: Json, schemas: list[Json]) -> Expected:
        branches = list(_plain(document, schemas))
        return cls(document, tuple(branches) if len(branches) <= _MAX_BRANCHES else ())

    @property
    def types(self) -> frozenset[str] | None:
        """The JSON Schema types that can be meant here; None when nothing is known."""
        found: set[str] = set()
        for branch in self.branches:
            named = _types_of(branch)
            if named is None:
                return None
            found |= named
        return frozenset(found) if found else None

    @property
    def words(self) -> frozenset[str]:
        """The strings that `enum` and `const` list here."""
        found: set[str] = set()
        for branch in self.branches:
            options = branch.get("enum")
            found.update(_strings(options if isinstance(options, list) else [branch.get("const")]))
        return frozenset(found)

    @property
    def required(self) -> frozenset[str]:
        """The member names that every branch requires."""
        required: set[str] | None = None
        for branch in self.branches:
            names = branch.get("required")
            listed = set(_strings(names)) if isinstance(names, list) else set[str]()
            required = listed if required is None else required & listed
        return frozenset(required or ())

    def texts(self, keyword: str) -> frozenset[str]:
        """The string values that `keyword` (`format`, `title`, …) has here."""
        return frozenset(
            value for branch in self.branches if isinstance(value := branch.get(keyword), str)
        )

    def declares(self, name: str) -> bool:
        """Whether some branch lists `name` under `properties`."""
        return any(name in _members(branch, "properties") for branch in self.branches)

    def member(self, name: str) -> Expected:
        """The place of the member `name`."""
        if not self.branches:
            return NOTHING
        schemas: list[Json] = []
        for branch in self.branches:
            properties = _members(branch, "properties")
            if name in properties:
                schemas.append(properties[name])
            elif isinstance(extra := branch.get("additionalProperties"), dict):
                schemas.append(extra)
        return self._of(self.document, schemas)

    def item(self, index: int) -> Expected:
        """The place of the element `index`."""
        if not self.branches:
            return NOTHING
        schemas: list[Json] = []
        for branch in self.branches:
            prefix = branch.get("prefixItems")
            if isinstance(prefix, list) and index < len(prefix):
                schemas.append(prefix[index])
            elif isinstance(items := branch.get("items"), dict):
                schemas.append(items)
        return self._of(self.document, schemas)


NOTHING = Expected(None, ())


def _plain(document: Json, schemas: list[Json]) -> Iterator[dict[str, Json]]:
    """Every schema behind local references, `anyOf`, `oneOf` and `allOf`, at most a bounded few."""
    pending = list(reversed(schemas))
    budget = 2 * _MAX_BRANCHES
    while pending and budget:
        budget -= 1
        schema = pending.pop()
        if not isinstance(schema, dict):
            continue
        reference = schema.get("$ref")
        if isinstance(reference, str):
            pending.append(_resolve(document, reference))
        for keyword in ("anyOf", "oneOf", "allOf"):
            options = schema.get(keyword)
            if isinstance(options, list):
                pending.extend(reversed(options))
        if _says_something(schema):
            yield schema


def _says_something(schema: dict[str, Json]) -> bool:
    keywords = ("type", "enum", "const", "properties", "items", "prefixItems", "required")
    return any(keyword in schema for keyword in keywords)


def _resolve(document: Json, reference: str) -> Json:
    """The schema at a local JSON Pointer fragment; None for any other reference."""
    if not reference.startswith("#"):
        return None
    place = document
    for token in reference[1:].split("/")[1:]:
        if not isinstance(place, dict):
            return None
        place = place.get(token.replace("~1", "/").replace("~0", "~"))
    return place


def _types_of(branch: dict[str, Json]) -> frozenset[str] | None:
    named = branch.get("type")
    if isinstance(named, str):
        return frozenset({named}) & _ALL_TYPES
    if isinstance(named, list):
        return frozenset(_strings(named)) & _ALL_TYPES
    options = branch.get("enum") if "enum" in branch else None
    if options is None and "const" in branch:
        options = [branch["const"]]
    if isinstance(options, list):
        return frozenset(_type_name(option) for option in options)
    if "properties" in branch or "required" in branch:
        return frozenset({"object"})
    if "items" in branch or "prefixItems" in branch:
        return frozenset({"array"})
    return None


def _type_name(value: Json) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list):
        return "array"
    return "object" if isinstance(value, dict) else "number"


def _strings(values: list[Json]) -> list[str]:
    return [value for value in values if isinstance(value, str)]


def _members(branch: dict[str, Json], keyword: str) -> dict[str, Json]:
    found = branch.get(keyword)
    return found if isinstance(found, dict) else {}
