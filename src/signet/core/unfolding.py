"""How much work a JSON Schema can make of one value, so that a stranger's schema is bounded.

References turn a schema into a graph, and a validator walks it once for each way that leads to a
place. A few lines of `anyOf` that refer to themselves make 2^depth ways (a payload of fourteen
levels then takes seconds), and no validator has a bound of its own. So, before one is asked, the
ways are counted: for every place of the value, how often each sub-schema is applied there. That is
the number of runs of an automaton over the path to the place, and costs no more than the value's
size times the sub-schemas that are in use at once, however many the ways are.

Where it is not known exactly (patterns, `unevaluated…`), it is counted as more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Final
from urllib.parse import unquote

from signet.core.errors import Fault
from signet.receipts.canonical import Json, pointer

MAX_STEPS: Final = 2_000_000
"""What one validation may take: about 30 ns each, and 1 µs each to count them."""
LISTED_STEPS: Final = 20_000
"""Up to here every fault is told: a listed one costs up to 0.1 ms."""
_LISTED_WAYS: Final = 4
_MAX_AT_ONE_PLACE: Final = 10_000

_IN_PLACE: Final = ("not", "if", "then", "else")
_IN_PLACE_LISTS: Final = ("allOf", "anyOf", "oneOf")
_IN_PLACE_MAPS: Final = ("dependentSchemas", "dependencies")
_OF_MEMBERS: Final = ("additionalProperties", "unevaluatedProperties")
_OF_ELEMENTS: Final = ("items", "additionalItems", "contains", "unevaluatedItems")
_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
_VALUES: Final = ("enum", "const", "required", "dependentRequired")


@dataclass(slots=True)
class _Node:
    """One sub-schema: what it costs by itself, and where it leads. Numbers are other nodes."""

    weight: int = 1
    here: list[int] = field(default_factory=list[int])
    member: dict[str, int] = field(default_factory=dict[str, int])
    any_member: list[int] = field(default_factory=list[int])
    names: list[int] = field(default_factory=list[int])
    element: dict[int, int] = field(default_factory=dict[int, int])
    any_element: list[int] = field(default_factory=list[int])
    again: bool = False
    """`unevaluated…`: the engine asks the sub-schemas here once more for each member."""

    def below(self) -> Iterator[int]:
        yield from self.member.values()
        yield from self.any_member
        yield from self.names
        yield from self.element.values()
        yield from self.any_element


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfolding:
    """The graph of one schema."""

    _nodes: tuple[_Node, ...]
    _rank: tuple[int, ...]
    """Of each node: nodes that it leads to in place have a higher one."""
    _size: int | None
    """Steps for one place at most, where no way leads back; else None."""

    def steps(self, value: Json) -> Steps | None:
        """Return what validating `value` takes; None when that is more than `MAX_STEPS`."""
        if self._size is not None and not larger_than(value, LISTED_STEPS // self._size):
            return Steps(listed=True)
        total = once = 0
        waiting: list[tuple[Json, dict[int, int]]] = [(value, {0: 1})]
        while waiting:
            here, asked = waiting.pop()
            inside = len(here) if isinstance(here, (dict, list)) else 0
            asked = self._closed(asked, inside)
            for number, ways in asked.items():
                weight = self._nodes[number].weight
                once += weight
                total += ways * weight
            if total > MAX_STEPS:
                return None
            if isinstance(here, dict):
                waiting.extend(self._members(here, asked))
            elif isinstance(here, list):
                waiting.extend(self._elements(here, asked))
        return Steps(listed=total <= min(LISTED_STEPS, _LISTED_WAYS * once))

    def _closed(self, asked: Mapping[int, int], inside: int) -> dict[int, int]:
        """Add what is applied at the same place, each with the number of its ways."""
        closed = dict(asked)
        waiting = [(self._rank[number], number) for number in closed]
        heapify(waiting)
        while waiting:
            _, number = heappop(waiting)
            node = self._nodes[number]
            ways = closed[number] * (inside + 1 if node.again else 1)
            for target in node.here:
                if target not in closed:
                    closed[target] = 0
                    heappush(waiting, (self._rank[target], target))
                closed[target] += ways
        return closed

    def _members(
        self, here: dict[str, Json], asked: Mapping[int, int]
    ) -> Iterator[tuple[Json, dict[int, int]]]:
        leading = [
            (node, count)
            for number, count in asked.items()
            if (node := self._nodes[number]).member or node.any_member or node.names
        ]
        if not leading:
            return
        for name, child in here.items():
            below: dict[int, int] = {}
            of_name: dict[int, int] = {}
            for node, count in leading:
                targets = node.any_member
                if name in node.member:
                    targets = (node.member[name], *targets)
                for target in targets:
                    below[target] = below.get(target, 0) + count
                for target in node.names:
                    of_name[target] = of_name.get(target, 0) + count
            if below:
                yield child, below
            if of_name:
                yield name, of_name

    def _elements(
        self, here: list[Json], asked: Mapping[int, int]
    ) -> Iterator[tuple[Json, dict[int, int]]]:
        leading = [
            (node, count)
            for number, count in asked.items()
            if (node := self._nodes[number]).element or node.any_element
        ]
        if not leading:
            return
        for index, child in enumerate(here):
            below: dict[int, int] = {}
            for node, count in leading:
                targets = node.any_element
                if index in node.element:
                    targets = (node.element[index], *targets)
                for target in targets:
                    below[target] = below.get(target, 0) + count
            if below:
                yield child, below


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """A validation that can be afforded; `listed` where all its faults can be told as well."""

    listed: bool


def unfold(document: Json) -> Unfolding | tuple[Fault, ...]:
    """Return the graph of a schema, or why a stranger's schema may not be like this."""
    graph = _Graph(document)
    graph.read()
    if graph.faults:
        return tuple(graph.faults)
    rank = _ranks(graph.nodes)
    if rank is None:
        return (_fault("", "schema_endless", "A reference leads back to where it stands."),)
    if _most_at_one_place(graph.nodes, rank) > _MAX_AT_ONE_PLACE:
        detail = f"It makes more than {_MAX_AT_ONE_PLACE} checks of one value."
        return (_fault("", "schema_too_costly", detail),)
    return Unfolding(_nodes=tuple(graph.nodes), _rank=tuple(rank), _size=_unfolded(graph.nodes))


class _Graph:
    """Reads a schema document into nodes; node 0 is the whole."""

    def __init__(self, document: Json) -> None:
        self.nodes: list[_Node] = []
        self.faults: list[Fault] = []
        self._document = document
        self._known: dict[int, int] = {}
        self._waiting: list[tuple[int, Json, tuple[str | int, ...]]] = []
        self._anchors: dict[str, list[Json]] = {}
        identifier = document.get("$id") if isinstance(document, dict) else None
        self._id = identifier.rstrip("#") if isinstance(identifier, str) else ""

    def read(self) -> None:
        self._find_anchors()
        self._node(self._document, ())
        while self._waiting:
            number, schema, at = self._waiting.pop()
            if isinstance(schema, dict):
                self._read(self.nodes[number], schema, at)

    def _node(self, schema: Json, at: tuple[str | int, ...]) -> int:
        """The number of a sub-schema; the same one wherever it is referred to from."""
        number = self._known.get(id(schema)) if isinstance(schema, dict) else None
        if number is None:
            number = len(self.nodes)
            self.nodes.append(_Node())
            if isinstance(schema, dict):
                self._known[id(schema)] = number
                self._waiting.append((number, schema, at))
        return number

    def _read(self, node: _Node, schema: dict[str, Json], at: tuple[str | int, ...]) -> None:
        node.weight += len(schema) + sum(_values_in(schema.get(name)) for name in _VALUES)
        if at and isinstance(schema.get("$id"), str) and not str(schema["$id"]).startswith("#"):
            self._fault((*at, "$id"), "schema_nested_id", "Only the whole schema has an `$id`.")
        node.here += [self._node(schema[name], (*at, name)) for name in _IN_PLACE if name in schema]
        for keyword in _IN_PLACE_LISTS:
            node.here += [self._node(s, (*at, keyword, i)) for i, s in _listed(schema, keyword)]
        for keyword in _IN_PLACE_MAPS:
            node.here += [
                self._node(s, (*at, keyword, name))
                for name, s in _mapped(schema, keyword)
                if not isinstance(s, list)
            ]
        for keyword in _REFERENCES:
            if isinstance(reference := schema.get(keyword), str):
                node.here += self._resolved(reference, (*at, keyword))
        for name, sub in _mapped(schema, "properties"):
            node.member[name] = self._node(sub, (*at, "properties", name))
        for name, sub in _mapped(schema, "patternProperties"):
            node.any_member.append(self._node(sub, (*at, "patternProperties", name)))
        for keyword in _OF_MEMBERS:
            if keyword in schema:
                node.any_member.append(self._node(schema[keyword], (*at, keyword)))
        if "propertyNames" in schema:
            node.names.append(self._node(schema["propertyNames"], (*at, "propertyNames")))
        for keyword in ("prefixItems", "items"):
            for index, sub in _listed(schema, keyword):
                node.element[index] = self._node(sub, (*at, keyword, index))
        for keyword in _OF_ELEMENTS:
            if keyword in schema and not isinstance(schema[keyword], list):
                node.any_element.append(self._node(schema[keyword], (*at, keyword)))
        node.again = "unevaluatedProperties" in schema or "unevaluatedItems" in schema

    def _resolved(self, reference: str, at: tuple[str | int, ...]) -> list[int]:
        document, _, fragment = reference.partition("#")
        if document not in ("", self._id):
            detail = "A registered schema refers to its own parts only, as in #/$defs/name."
            self._fault(at, "schema_reference_outside", detail)
            return []
        fragment = unquote(fragment)
        if fragment and not fragment.startswith("/"):
            return [self._node(schema, at) for schema in self._anchors.get(fragment, ())]
        here: Json = self._document
        way: list[str | int] = []
        for token in fragment.split("/")[1:]:
            token = token.replace("~1", "/").replace("~0", "~")
            way.append(token)
            if isinstance(here, dict) and token in here:
                here = here[token]
            elif isinstance(here, list) and token.isdecimal() and int(token) < len(here):
                here = here[int(token)]
            else:
                self._fault(at, "schema_invalid", "The reference leads nowhere.")
                return []
        return [self._node(here, tuple(way))]

    def _find_anchors(self) -> None:
        waiting: list[Json] = [self._document]
        while waiting:
            here = waiting.pop()
            if isinstance(here, list):
                waiting.extend(here)
            elif isinstance(here, dict):
                waiting.extend(here.values())
                old = here.get("$id")  # draft-07: an `$id` that is a fragment is an anchor
                names = [here.get("$anchor"), here.get("$dynamicAnchor")]
                names += [old[1:]] if isinstance(old, str) and old.startswith("#") else []
                for name in names:
                    if isinstance(name, str):
                        self._anchors.setdefault(name, []).append(here)

    def _fault(self, at: tuple[str | int, ...], code: str, detail: str) -> None:
        self.faults.append(_fault(pointer(*at), code, detail))


def _ranks(nodes: list[_Node]) -> list[int] | None:
    """A topological order of what is applied in place; None where it goes round in a circle."""
    leading = [0] * len(nodes)
    for node in nodes:
        for target in node.here:
            leading[target] += 1
    ready = [number for number, count in enumerate(leading) if not count]
    rank = [0] * len(nodes)
    placed = 0
    while ready:
        number = ready.pop()
        rank[number] = placed
        placed += 1
        for target in nodes[number].here:
            leading[target] -= 1
            if not leading[target]:
                ready.append(target)
    return rank if placed == len(nodes) else None


def _most_at_one_place(nodes: list[_Node], rank: list[int]) -> int:
    sizes = [0] * len(nodes)
    for number in sorted(range(len(nodes)), key=rank.__getitem__, reverse=True):
        sizes[number] = 1 + sum(sizes[target] for target in nodes[number].here)
    return max(sizes)


def _unfolded(nodes: list[_Node]) -> int | None:
    """The weight of the whole tree of ways; None where it has no end, or none worth knowing."""
    leading = [0] * len(nodes)
    for node in nodes:
        for target in (*node.here, *node.below()):
            leading[target] += 1
    ready = [number for number, count in enumerate(leading) if not count]
    ways = [0] * len(nodes)
    ways[0] = 1
    total = placed = 0
    while ready:
        number = ready.pop()
        node = nodes[number]
        placed += 1
        total += ways[number] * node.weight
        if total > LISTED_STEPS or node.again:
            return None
        for target in (*node.here, *node.below()):
            ways[target] += ways[number]
            leading[target] -= 1
            if not leading[target]:
                ready.append(target)
    return total if placed == len(nodes) else None


def larger_than(value: Json, limit: int) -> bool:
    """Whether the document holds more than `limit` values; stops counting there."""
    waiting: list[Json] = [value]
    for _ in range(limit):
        if not waiting:
            return False
        here = waiting.pop()
        inside = here.values() if isinstance(here, dict) else here if isinstance(here, list) else ()
        if len(inside) > limit:
            return True
        waiting.extend(inside)
    return bool(waiting)


def _listed(schema: dict[str, Json], keyword: str) -> Iterator[tuple[int, Json]]:
    subs = schema.get(keyword)
    return enumerate(subs if isinstance(subs, list) else ())


def _mapped(schema: dict[str, Json], keyword: str) -> Iterator[tuple[str, Json]]:
    subs = schema.get(keyword)
    yield from subs.items() if isinstance(subs, dict) else ()


def _values_in(value: Json) -> int:
    """How many values a document holds, itself included; none where there is none."""
    count = 0
    waiting: list[Json] = [value] if isinstance(value, (dict, list)) else []
    while waiting:
        here = waiting.pop()
        count += 1
        inside = here.values() if isinstance(here, dict) else here if isinstance(here, list) else ()
        waiting.extend(inside)
    return count


def _fault(at: str, code: str, detail: str) -> Fault:
    return Fault(pointer=at, code=code, detail=detail)
