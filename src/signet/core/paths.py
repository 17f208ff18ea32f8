"""JMESPath expressions (jmespath.org, its grammar of 2014 on), compiled to closures.

The parser is the reference library's; its interpreter is not used, for three reasons: closures are
several times faster, numbers here are `Decimal`, and a tenant's expression is hostile input. The
parts of the language that can grow a document (multi-select, `map`, `merge`, ...) or make a number
that is not exact (`avg`, `to_number`, ...) are refused when the expression is compiled. What is
left only selects, so an answer is never larger than its source and costs no more than the length
of the expression times the size of the source.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, cast

from jmespath.exceptions import JMESPathError
from jmespath.parser import Parser

from signet.core.errors import SignetError
from signet.receipts.canonical import Json

Get = Callable[[Json], Json]
Token = str | int

MAX_EXPRESSION = 500

# Each node may visit every element of a payload once.
_MAX_NODES = 60


class PathInvalid(SignetError):
    """The expression is not JMESPath, or not of the part of it that is offered here."""

    code = "path_invalid"


class PathTypeError(SignetError):
    """A function met a value of a type it is not defined for."""

    code = "path_type"


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """A compiled expression. `get` raises `PathTypeError`; what is absent is None, as null is.

    `tokens` are the names and indexes where the expression is nothing but those, else None.
    `parts` counts the nodes that may each visit every value of a document; `begins` is the member
    that all of it is found in, None where it may be found elsewhere too.
    """

    expression: str
    tokens: tuple[Token, ...] | None
    parts: int
    begins: Token | None
    get: Get = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Node:
    """One node of the library's syntax tree."""

    type: str
    value: object
    children: list[object]

    def child(self, index: int) -> _Node:
        return _node(self.children[index])


def compile_path(expression: str) -> Path:
    """Compile a source expression. Raises `PathInvalid`."""
    root = _parse(expression)
    tokens = _tokens(root)
    return Path(
        expression=expression,
        tokens=tokens,
        parts=_size(root) if tokens is None else 0,
        begins=_begins(root),
        get=_compile(root) if tokens is None else _chain(tokens),
    )


def target_tokens(expression: str) -> tuple[Token, ...]:
    """The names and indexes of a target such as `Document.PmtInf[0].Dbtr`. Raises `PathInvalid`."""
    tokens = _tokens(_parse(expression))
    if not tokens or any(isinstance(token, int) and token < 0 for token in tokens):
        raise PathInvalid(f"{expression!r} is no target: names and indexes only, as in a.b[0].c.")
    return tokens


def _parse(expression: str) -> _Node:
    if len(expression) > MAX_EXPRESSION:
        raise PathInvalid(f"The expression is longer than {MAX_EXPRESSION} characters.")
    try:
        root = _node(cast("object", Parser().parse(expression).parsed))
    # The library lets an IndexError or a ValueError pass for some broken literals, and its
    # recursive descent meets Python's limit on deep nesting.
    except (JMESPathError, ValueError, IndexError, RecursionError) as error:
        raise PathInvalid(f"{expression!r} is not JMESPath: {error}"[:300]) from error
    if _size(root) > _MAX_NODES:
        raise PathInvalid(f"The expression has more than {_MAX_NODES} parts.")
    return root


def _size(root: _Node) -> int:
    waiting, count = [root], 0
    while waiting:
        count += 1
        # A slice's children are its three bounds.
        children = waiting.pop().children
        waiting.extend(_node(cast("object", c)) for c in children if isinstance(c, dict))
    return count


def _node(raw: object) -> _Node:
    tree = cast("dict[str, object]", raw)
    return _Node(
        type=cast("str", tree["type"]),
        value=tree.get("value"),
        children=cast("list[object]", tree["children"]),
    )


# --- Plain paths -----------------------------------------------------------------------------


def _tokens(node: _Node) -> tuple[Token, ...] | None:
    """The path as names and indexes, or None where it is more than that."""
    match node.type:
        case "identity" | "current":
            return ()
        case "field" | "index":
            return (cast("Token", node.value),)
        case "subexpression" | "index_expression":
            parts = [_tokens(_node(child)) for child in node.children]
            known = [part for part in parts if part is not None]
            return tuple(t for part in known for t in part) if len(known) == len(parts) else None
        case _:
            return None


def _chain(tokens: tuple[Token, ...]) -> Get:
    def get(value: Json) -> Json:
        here: Any = value
        try:
            for token in tokens:
                if isinstance(here, str):  # its characters have indexes, but it has no elements
                    return None
                here = here[token]
        except (KeyError, IndexError, TypeError):
            return None
        return here

    return get


_RELATIVE = frozenset(
    {
        *("subexpression", "index_expression", "pipe", "flatten"),
        *("projection", "value_projection", "filter_projection"),
    }
)
"""What looks at nothing but what its first part has found."""


def _begins(node: _Node) -> Token | None:
    while node.type in _RELATIVE:
        node = node.child(0)
    return cast("Token", node.value) if node.type == "field" else None


# --- Everything else -------------------------------------------------------------------------


def _compile(node: _Node) -> Get:
    tokens = _tokens(node)
    if tokens is not None:
        return _chain(tokens)
    compiler = _COMPILERS.get(node.type)
    if compiler is None:
        name = node.type.replace("_", " ")
        raise PathInvalid(f"A {name} is not offered: expressions select, `fields` construct.")
    return compiler(node)


def _pipe(node: _Node) -> Get:
    steps = [_compile(_node(child)) for child in node.children]

    def get(value: Json) -> Json:
        for step in steps:
            value = step(value)
        return value

    return get


def _literal(node: _Node) -> Get:
    literal = _exact(node.value)
    return lambda _: literal


def _exact(value: object) -> Json:
    """The literal with its fractions as decimals again: the library's JSON reader makes floats.

    A float's repr is the shortest text that means it, which is what the author must have written
    for the number to be exact (ECMA-262 §6.1.6.1.20, as RFC 8785 §3.2.2.3 uses it).
    """
    if isinstance(value, float):
        number = Decimal(repr(value))
        if not number.is_finite():
            raise PathInvalid("A literal number is not finite.")
        return number
    if isinstance(value, list):
        return [_exact(item) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        return {key: _exact(item) for key, item in cast("dict[str, object]", value).items()}
    return cast("Json", value)


def _slice(node: _Node) -> Get:
    start, stop, step = cast("list[int | None]", node.children)
    if step == 0:
        raise PathInvalid("A slice's step cannot be 0.")
    part = slice(start, stop, step)
    return lambda value: value[part] if isinstance(value, list) else None


def _projection(node: _Node) -> Get:
    base, each = _compile(node.child(0)), _compile(node.child(1))

    def get(value: Json) -> Json:
        elements = base(value)
        return _kept(map(each, elements)) if isinstance(elements, list) else None

    return get


def _value_projection(node: _Node) -> Get:
    base, each = _compile(node.child(0)), _compile(node.child(1))

    def get(value: Json) -> Json:
        members = base(value)
        return _kept(map(each, members.values())) if isinstance(members, dict) else None

    return get


def _filter_projection(node: _Node) -> Get:
    base, each, holds = (_compile(node.child(index)) for index in range(3))

    def get(value: Json) -> Json:
        elements = base(value)
        if not isinstance(elements, list):
            return None
        return _kept(each(element) for element in elements if not _is_false(holds(element)))

    return get


def _kept(values: object) -> list[Json]:
    return [value for value in cast("list[Json]", values) if value is not None]


def _flatten(node: _Node) -> Get:
    base = _compile(node.child(0))

    def get(value: Json) -> Json:
        elements = base(value)
        if not isinstance(elements, list):
            return None
        merged: list[Json] = []
        for element in elements:
            if isinstance(element, list):
                merged.extend(element)
            else:
                merged.append(element)
        return merged

    return get


def _or(node: _Node) -> Get:
    left, right = _compile(node.child(0)), _compile(node.child(1))

    def get(value: Json) -> Json:
        found = left(value)
        return right(value) if _is_false(found) else found

    return get


def _and(node: _Node) -> Get:
    left, right = _compile(node.child(0)), _compile(node.child(1))

    def get(value: Json) -> Json:
        found = left(value)
        return found if _is_false(found) else right(value)

    return get


def _not(node: _Node) -> Get:
    inner = _compile(node.child(0))
    return lambda value: _is_false(inner(value))


def _is_false(value: Json) -> bool:
    """JMESPath's own falsehood: empty or null or false. Zero is true."""
    return value is None or value is False or (isinstance(value, (str, list, dict)) and not value)


def _comparator(node: _Node) -> Get:
    left, right = _compile(node.child(0)), _compile(node.child(1))
    name = cast("str", node.value)
    if name in ("eq", "ne"):
        wanted = name == "eq"
        return lambda value: equal(left(value), right(value)) is wanted
    compare = _ORDERINGS[name]

    def get(value: Json) -> Json:
        one, other = left(value), right(value)
        # Only numbers have an order among themselves, and texts; all else compares to null.
        if (_is_number(one) and _is_number(other)) or (
            isinstance(one, str) and isinstance(other, str)
        ):
            return compare(one, other)
        return None

    return get


_ORDERINGS: dict[str, Callable[..., bool]] = {
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}


def _is_number(value: Json) -> bool:
    return isinstance(value, (int, Decimal)) and not isinstance(value, bool)


def equal(one: Json, other: Json) -> bool:
    """Whether two values are the same to JSON; to Python 1 == True as well."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def _function(node: _Node) -> Get:
    name = cast("str", node.value)
    arguments = [_compile(_node(child)) for child in node.children]
    if name == "not_null" and arguments:

        def not_null(value: Json) -> Json:
            found = (argument(value) for argument in arguments)
            return next((item for item in found if item is not None), None)

        return not_null
    known = _FUNCTIONS.get(name)
    if known is None or known[0] != len(arguments):
        offered = ", ".join(sorted((*_FUNCTIONS, "not_null")))
        raise PathInvalid(f"There is no {name}() with {len(arguments)} arguments; only {offered}.")
    call = known[1]

    def get(value: Json) -> Json:
        try:
            return call(*(argument(value) for argument in arguments))
        except TypeError as error:
            raise PathTypeError(f"{name}() is not defined for what it found.") from error

    return get


def _length(value: Json) -> int:
    if isinstance(value, (str, list, dict)):
        return len(value)
    raise TypeError


def _contains(subject: Json, wanted: Json) -> bool:
    if isinstance(subject, str):
        return isinstance(wanted, str) and wanted in subject
    if isinstance(subject, list):
        return any(equal(element, wanted) for element in subject)
    raise TypeError


def _starts_with(subject: Json, prefix: Json) -> bool:
    if isinstance(subject, str) and isinstance(prefix, str):
        return subject.startswith(prefix)
    raise TypeError


def _ends_with(subject: Json, suffix: Json) -> bool:
    if isinstance(subject, str) and isinstance(suffix, str):
        return subject.endswith(suffix)
    raise TypeError


_FUNCTIONS: dict[str, tuple[int, Callable[..., Json]]] = {
    "length": (1, _length),
    "contains": (2, _contains),
    "starts_with": (2, _starts_with),
    "ends_with": (2, _ends_with),
}

_COMPILERS: dict[str, Callable[[_Node], Get]] = {
    "subexpression": _pipe,
    "index_expression": _pipe,
    "pipe": _pipe,
    "literal": _literal,
    "slice": _slice,
    "projection": _projection,
    "value_projection": _value_projection,
    "filter_projection": _filter_projection,
    "flatten": _flatten,
    "or_expression": _or,
    "and_expression": _and,
    "not_expression": _not,
    "comparator": _comparator,
    "function_expression": _function,
}
