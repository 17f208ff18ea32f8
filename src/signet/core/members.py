"""An object held against the table of members that it may have."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from signet.core.errors import Fault
from signet.receipts.canonical import Json, pointer


@dataclass(frozen=True, slots=True)
class Rule:
    """What one member must be: in words for the reader, as a test, and as JSON Schema.

    The schema is for descriptions; it may allow more than `holds`, which decides.
    """

    expected: str
    holds: Callable[[Json], bool]
    schema: Mapping[str, Json] = field(default_factory=dict[str, Json])


def text(expected: str, pattern: str | re.Pattern[str]) -> Rule:
    """Return the rule of a string that matches `pattern` as a whole."""
    compiled = re.compile(pattern)
    return Rule(
        expected,
        lambda v: isinstance(v, str) and compiled.fullmatch(v) is not None,
        {"type": "string", "pattern": f"^(?:{compiled.pattern})$"},
    )


def one_of(*choices: str) -> Rule:
    """Return the rule of a string out of a few."""
    return Rule(f"one of {', '.join(choices)}", lambda v: v in choices, {"enum": list(choices)})


def whole(low: int, high: int) -> Rule:
    """Return the rule of a whole number from `low` to `high`."""
    return Rule(
        f"a whole number from {low} to {high}",
        lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high,
        {"type": "integer", "minimum": low, "maximum": high},
    )


def or_null(rule: Rule) -> Rule:
    """Return `rule` with null allowed, which says the same as absence."""
    return Rule(
        f"{rule.expected}, or null",
        lambda v: v is None or rule.holds(v),
        {"anyOf": [dict(rule.schema), {"type": "null"}]},
    )


FLAG = Rule("true or false", lambda v: isinstance(v, bool), {"type": "boolean"})
COUNT = Rule(
    "a whole number, zero or more",
    lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= 0,
    {"type": "integer", "minimum": 0},
)


def member_faults(
    document: Mapping[str, Json],
    rules: Mapping[str, Rule],
    *,
    required: Collection[str] = (),
    under: tuple[str, ...] = (),
) -> list[Fault]:
    """Return every fault: a required member that is missing, one unknown, one malformed.

    `under` is where the object stands in the whole document.
    """
    faults = [
        Fault(pointer=pointer(*under, name), code="missing_member", detail=f"{name} is missing")
        for name in required
        if name not in document
    ]
    for name, value in document.items():
        rule = rules.get(name)
        if rule is None:
            code, detail = "unknown_member", f"not one of {', '.join(rules)}"
        elif rule.holds(value):
            continue
        else:
            code, detail = "malformed_member", f"expected {rule.expected}"
        faults.append(Fault(pointer=pointer(*under, name), code=code, detail=detail))
    return faults


def object_schema(
    rules: Mapping[str, Rule], *, required: Collection[str] = ()
) -> Mapping[str, Json]:
    """Return the JSON Schema of an object that may have these members and no others."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": {name: dict(rule.schema) for name, rule in rules.items()},
    }
