"""The registry of types, tools and mappings: named, versioned, immutable, identified by CID.

A registry is built from (file name, bytes) pairs that the caller has read:

    <type>.schema.json            the JSON Schema of a type, e.g. acme.order.v1.schema.json
    <source>--<target>.map.json   how a document of one type becomes one of another
    <name>.tool.json              a tool definition, in OpenAI's, Anthropic's or MCP's form
    <name>.tools.json             a list of tool definitions, as a client or server publishes it

A type's name ends in its version, `.v1`. A published version never changes: what is different gets
a new name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from signet.core import toolcalls
from signet.core.errors import Fault, SignetError
from signet.core.schema import FAULT_LIMIT, Schema
from signet.core.toolcalls import EmbeddedText, Tool
from signet.core.transform import Fields, Mapped, MappingFailed
from signet.core.transform import Mapping as TypeMapping
from signet.core.values import value_class
from signet.receipts.canonical import Json, parse, pointer
from signet.receipts.errors import ReceiptError

# No double dash inside a name: it stands between source and target in a mapping's file name.
_TYPE_NAME = re.compile(r"(?!.*--)[A-Za-z0-9][A-Za-z0-9._-]{0,118}\.v[0-9]{1,4}", re.ASCII)


class RegistryInvalid(SignetError):
    """Some documents cannot be used; `faults` name every one at once.

    A fault's pointer is `<file name>#<JSON Pointer into that file>`.
    """

    code = "registry_invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownType:
    """No such type is registered."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownMapping:
    """Both types exist, but nothing leads from one to the other."""

    payload_type: str
    target_type: str


@value_class
class Route:
    """Everything an exchange needs to know about its two types.

    In order: `schema_in.faults(payload)`; parse each of `embedded_texts(payload)` and put the
    values back by `toolcalls.with_parsed`; `argument_faults` of that; `source` of that is what
    `mapping` reads; `schema_out.faults` of what it made. `mapping` is None when there is nothing
    to map (validate only), and then the answer is the payload itself.

    `normalizer` is set when the mapping is made for the generic tool call: `source` applies it.
    """

    payload_type: str
    target_type: str
    schema_in: Schema
    schema_out: Schema
    mapping: TypeMapping | None
    normalizer: TypeMapping | None = None
    _tools: Mapping[str, Tool] = field(repr=False, compare=False)

    def embedded_texts(self, payload: Json) -> tuple[EmbeddedText, ...]:
        """The JSON texts inside a payload that `schema_in` accepted, in the order they stand."""
        return tuple(
            EmbeddedText(
                pointer=pointer(*place),
                text=text,
                tool=(tool := toolcalls.named_beside(payload, place)),
                schema=embedded.schema or self._schema_of(tool),
            )
            for embedded in self.schema_in.embedded
            for place, text in toolcalls.places(payload, embedded)
            if isinstance(text, str)
        )

    def argument_faults(self, payload: Json) -> tuple[Fault, ...]:
        """What is wrong inside texts and tool calls, once parsed: `unknown_tool`, or the schema."""
        faults = [
            fault
            for embedded in self.schema_in.embedded
            if embedded.schema is not None
            for place, value in toolcalls.places(payload, embedded)
            for fault in toolcalls.rebased(embedded.schema.faults(value), place)
        ]
        form = toolcalls.FORMATS.get(self.payload_type)
        if form is not None:
            faults.extend(toolcalls.argument_faults(payload, form, self._tools))
        return tuple(faults[:FAULT_LIMIT])

    def source(self, payload: Json) -> Mapped | MappingFailed:
        """What the mapping reads: the parsed payload, or the generic tool call made of it."""
        if self.normalizer is not None:
            assert isinstance(self.normalizer.body, Fields)
            made = self.normalizer.body.apply(payload)
            if isinstance(made, MappingFailed):
                return made
            payload = made.value
        faults = () if self.mapping is None else self.mapping.condition_faults(payload)
        return MappingFailed(faults=faults) if faults else Mapped(value=payload)

    def _schema_of(self, tool: str | None) -> Schema | None:
        found = self._tools.get(tool or "") if self.payload_type in toolcalls.FORMATS else None
        return None if found is None else found.arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """All types, tools and mappings that one tenant can name. Immutable.

    Build one of what is built in and of the operator's directory, and lay each tenant's own
    documents over it by `with_documents`: what they share is shared in memory too.
    """

    schemas: Mapping[str, Schema]
    tools: Mapping[str, Tool]
    mappings: Mapping[tuple[str, str], TypeMapping]

    @classmethod
    def build(cls, documents: Iterable[tuple[str, bytes]]) -> Registry:
        """Compile all documents. Raises `RegistryInvalid` with every fault of every file."""
        return cls(schemas={}, tools={}, mappings={}).with_documents(documents)

    def with_documents(self, documents: Iterable[tuple[str, bytes]]) -> Registry:
        """A registry with more documents over these. Raises `RegistryInvalid`.

        A name that is taken can be given again only with the same content: versions never change.
        """
        builder = _Builder(self)
        for name, data in documents:
            builder.add(name, data)
        return builder.finish()

    def lookup(self, payload_type: str, target_type: str) -> Route | UnknownType | UnknownMapping:
        """How a payload of one type becomes the other.

        A tool call that has no mapping of its own to the target takes the one from the generic
        tool call, after becoming one.
        """
        schema_in, schema_out = self.schemas.get(payload_type), self.schemas.get(target_type)
        if schema_in is None:
            return UnknownType(name=payload_type)
        if schema_out is None:
            return UnknownType(name=target_type)
        mapping = self.mappings.get((payload_type, target_type))
        normalizer = None
        if mapping is None and payload_type != target_type:
            mapping = self.mappings.get((toolcalls.GENERIC, target_type))
            normalizer = self.mappings.get((payload_type, toolcalls.GENERIC))
            known = payload_type in toolcalls.FORMATS
            if mapping is None or normalizer is None or not known:
                return UnknownMapping(payload_type=payload_type, target_type=target_type)
        return Route(
            payload_type=payload_type,
            target_type=target_type,
            schema_in=schema_in,
            schema_out=schema_out,
            mapping=mapping,
            normalizer=normalizer,
            _tools=self.tools,
        )


class _Builder:
    """Collects compiled documents, and every fault of every file."""

    def __init__(self, base: Registry) -> None:
        self._schemas = dict(base.schemas)
        self._tools = dict(base.tools)
        self._mappings = dict(base.mappings)
        self._mapping_files: dict[str, TypeMapping] = {}
        self._faults: list[Fault] = []

    def add(self, file: str, data: bytes) -> None:
        """Compile one file; what is wrong with it is remembered, not raised."""
        try:
            document = parse(data)
            if file.endswith(".schema.json"):
                self._add_schema(file.removesuffix(".schema.json"), document)
            elif file.endswith(".map.json"):
                self._add_mapping(file, document)
            elif file.endswith(".tool.json"):
                self._add_tool(document)
            elif file.endswith(".tools.json"):
                if not isinstance(document, list):
                    raise toolcalls.ToolInvalid("A list of tool definitions is an array.")
                for definition in document:
                    self._add_tool(definition)
            else:
                raise RegistryInvalid("The name ends in .schema.json, .map.json, .tool(s).json.")
        except ReceiptError as error:
            self._fault(file, error.pointer, error.code, error.detail)
        except SignetError as error:
            for fault in error.faults:
                self._fault(file, fault.pointer, fault.code, fault.detail)
            if not error.faults:
                self._fault(file, "", error.code, error.detail)

    def finish(self) -> Registry:
        """Check what holds between files, then hand out the registry."""
        for file, mapping in self._mapping_files.items():
            for name in (mapping.source_type, mapping.target_type):
                if name not in self._schemas:
                    self._fault(file, "", "unknown_type", f"There is no type {name}.")
        if self._faults:
            faults = sorted(self._faults, key=lambda fault: (fault.pointer, fault.detail))
            first = f"{faults[0].pointer}: {faults[0].detail}"
            raise RegistryInvalid(f"{len(faults)} faults; {first}", faults=tuple(faults))
        return Registry(schemas=self._schemas, tools=self._tools, mappings=self._mappings)

    def _add_schema(self, name: str, document: Json) -> None:
        if not _TYPE_NAME.fullmatch(name):
            raise RegistryInvalid(f"{name[:80]!r} is no type name such as acme.order.v1.")
        schema = Schema.compile(name, document)
        _refuse_change(name, self._schemas.setdefault(name, schema).cid, schema.cid)

    def _add_mapping(self, file: str, document: Json) -> None:
        name = file.removesuffix(".map.json")
        source, separator, target = name.partition("--")
        if not separator or not _TYPE_NAME.fullmatch(source) or not _TYPE_NAME.fullmatch(target):
            raise RegistryInvalid(
                "A mapping's file is named <source type>--<target type>.map.json."
            )
        if source == target:
            raise RegistryInvalid("A type needs no mapping to itself: that is validation.")
        mapping = TypeMapping.compile(name, source, target, document)
        self._mapping_files[file] = mapping
        _refuse_change(name, self._mappings.setdefault((source, target), mapping).cid, mapping.cid)

    def _add_tool(self, document: Json) -> None:
        tool = Tool.compile(document)
        known = self._tools.setdefault(tool.name, tool)
        _refuse_change(f"tool {tool.name}", known.arguments.cid, tool.arguments.cid)

    def _fault(self, file: str, at: str, code: str, detail: str) -> None:
        self._faults.append(Fault(pointer=f"{file[:200]}#{at}", code=code, detail=detail))


def _refuse_change(name: str, known_cid: str, new_cid: str) -> None:
    if known_cid != new_cid:
        raise RegistryInvalid(f"{name} is registered with other content; use a new name.")
