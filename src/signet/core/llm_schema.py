"""Whether a JSON Schema can be given to a service's strict mode as it is.

Strict structured output (OpenAI's form, which others follow) knows a part of JSON Schema: every
object closed, every member required, no `allOf`, `not` or conditionals. A schema outside that part
is not bent into it: a member made required would be invented, an object made closed would lose
members. It is sent without strictness instead, and the answer is validated here.
"""

from __future__ import annotations

from signet.receipts.canonical import Json

_MAX_DEPTH = 10
_MAX_PROPERTIES = 1000
_ANNOTATIONS = frozenset(
    {"$schema", "$id", "$comment", "title", "examples", "default", "deprecated", "readOnly"}
)
_KEPT = frozenset(
    {
        *("type", "enum", "const", "description", "$ref", "anyOf", "$defs"),
        *("properties", "required", "additionalProperties", "items"),
        *("pattern", "format", "multipleOf", "minItems", "maxItems"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    }
)
_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
)


def strict_schema(schema: Json) -> dict[str, Json] | None:
    """`schema` without its annotations if strict mode means the same by it, else None."""
    if not isinstance(schema, dict) or schema.get("type") != "object" or "anyOf" in schema:
        return None
    try:
        return _strict(schema, 0, [_MAX_PROPERTIES])
    except _NotStrict:
        return None


class _NotStrict(Exception):
    """Some part of the schema has no exact counterpart."""


def _strict(schema: Json, depth: int, budget: list[int]) -> dict[str, Json]:
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        raise _NotStrict
    kept: dict[str, Json] = {}
    for keyword, value in schema.items():
        if keyword in _ANNOTATIONS or keyword.startswith("x-"):
            continue
        if keyword not in _KEPT or (keyword == "format" and value not in _FORMATS):
            raise _NotStrict
        kept[keyword] = _strict_keyword(keyword, value, depth, budget)
    if not kept.keys() & {"type", "enum", "const", "$ref", "anyOf"}:
        raise _NotStrict  # strict mode has no "anything"
    if "properties" in kept or _is(schema, "object"):
        _require_closed(kept, budget)
    if _is(schema, "array") and "items" not in kept:
        raise _NotStrict
    return kept


def _strict_keyword(keyword: str, value: Json, depth: int, budget: list[int]) -> Json:
    if keyword in ("properties", "$defs"):
        if not isinstance(value, dict):
            raise _NotStrict
        return {name: _strict(item, depth + 1, budget) for name, item in value.items()}
    if keyword == "anyOf":
        if not isinstance(value, list):
            raise _NotStrict
        return [_strict(item, depth + 1, budget) for item in value]
    if keyword == "items":
        return _strict(value, depth + 1, budget)
    return value


def _require_closed(kept: dict[str, Json], budget: list[int]) -> None:
    properties, required = kept.get("properties"), kept.get("required")
    if kept.get("additionalProperties") is not False:
        raise _NotStrict
    if not isinstance(properties, dict) or not isinstance(required, list):
        raise _NotStrict
    if set(properties) != {name for name in required if isinstance(name, str)}:
        raise _NotStrict
    budget[0] -= len(properties)
    if budget[0] < 0:
        raise _NotStrict


def _is(schema: dict[str, Json], name: str) -> bool:
    named = schema.get("type")
    return name in named if isinstance(named, list) else named == name
