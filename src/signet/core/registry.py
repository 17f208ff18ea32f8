"""The registry of types, tools and mappings: named, versioned, immutable, identified by CID.

A registry is built from (file name, bytes) pairs that the caller has read:

    <type>.schema.json            the JSON Schema of a type, e.g. acme.order.v1.schema.json
    <source>--<target>.map.json   how a document of one type becomes one of another
    <name>.tool.json              a tool definition, in OpenAI's, Anthropic's or MCP's form
    <name>.tools.json             a list of tool definitions, as a client or server publishes it

A type's name ends in its version, `.v1`. A published version never changes: what is different gets
a new name.

Documents that came through the API are laid over those: global ones, then a tenant's own. They are
a stranger's, so their work is bounded. A tool is registered under its name with a version
(`place_order.v2`), and a call, which names no version, is held against the newest that is not
deprecated.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from signet.core import members, toolcalls
from signet.core.errors import Fault, SignetError
from signet.core.schema import FAULT_LIMIT, Schema
from signet.core.toolcalls import EmbeddedText, Tool
from signet.core.transform import Fields, Mapped, MappingFailed
from signet.core.transform import Mapping as TypeMapping
from signet.core.values import value_class
from signet.receipts.canonical import Json, canonicalize, content_id, parse, pointer
from signet.receipts.errors import ReceiptError

DOCUMENT_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,260}")
"""What the name of a document can consist of, whatever its kind."""
# No double dash inside a name: it stands between source and target in a mapping's file name.
_TYPE_NAME = re.compile(r"(?!.*--)[A-Za-z0-9][A-Za-z0-9._-]{0,118}\.v[0-9]{1,4}", re.ASCII)


_TOOL_NAME = re.compile(r"(?P<tool>[A-Za-z0-9_][A-Za-z0-9._-]{0,118})\.v[0-9]{1,4}", re.ASCII)
_RESERVED = "signet."


class Kind(StrEnum):
    """What a document of the registry is."""

    TYPE = "type"
    MAPPING = "mapping"
    TOOL = "tool"


class Origin(StrEnum):
    """Where a document came from: with the gateway, from `SP_REGISTRY_DIR`, through the API."""

    BUILT_IN = "built_in"
    OPERATOR = "operator"
    GLOBAL = "global"
    TENANT = "tenant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deprecation:
    """Said of a version that still serves: since when, and what to use instead."""

    since_us: int
    detail: str | None = None
    successor: str | None = None


REMARK_MEMBERS: Final[Mapping[str, members.Rule]] = MappingProxyType(
    {
        "detail": members.or_null(
            members.text("a text of at most 500 characters", r"[^\x00-\x1f\x7f]{0,500}")
        ),
        "successor": members.or_null(members.text("a name", DOCUMENT_NAME)),
    }
)
"""What may be said of a version with its deprecation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosted:
    """A document that came through the API, as it is stored."""

    kind: Kind
    name: str
    document: Json
    created_us: int
    deprecated: Deprecation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One document as the registry lists it. `shadows`: what has the same name, and is hidden."""

    kind: Kind
    name: str
    cid: str
    origin: Origin
    document: Json = field(repr=False)
    created_us: int | None = None
    deprecated: Deprecation | None = None
    shadows: Origin | None = None


EntryKey = tuple[Kind, str]


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
    deprecated: tuple[Entry, ...] = ()
    _tools: Mapping[str, Tool] = field(repr=False, compare=False)

    def embedded_texts(self, payload: Json) -> tuple[EmbeddedText, ...]:
        """The JSON texts inside a payload that `schema_in` accepted, in the order they stand."""
        found: list[EmbeddedText] = []
        for embedded in self.schema_in.embedded:
            for place, text in toolcalls.places(payload, embedded):
                if isinstance(text, str):
                    tool = toolcalls.named_beside(payload, place)
                    schema = embedded.schema or self._schema_of(tool)
                    at = pointer(*place)
                    found.append(EmbeddedText(pointer=at, text=text, tool=tool, schema=schema))
        return tuple(found)

    def argument_faults(self, payload: Json) -> tuple[Fault, ...]:
        """What is wrong inside texts and tool calls, once parsed: `unknown_tool`, or the schema."""
        faults: list[Fault] = []
        for embedded in self.schema_in.embedded:
            if embedded.schema is not None:
                for place, value in toolcalls.places(payload, embedded):
                    if inside := embedded.schema.faults(value):
                        faults += toolcalls.rebased(inside, place)
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
    entries: Mapping[EntryKey, Entry] = field(default_factory=dict[EntryKey, Entry], repr=False)
    deprecated: Mapping[EntryKey, Entry] = field(default_factory=dict[EntryKey, Entry], repr=False)
    """Those of the entries that are; what a tool call means is under the tool's own name."""

    @classmethod
    def build(
        cls, documents: Iterable[tuple[str, bytes]], origin: Origin = Origin.OPERATOR
    ) -> Registry:
        """Compile all documents. Raises `RegistryInvalid` with every fault of every file."""
        return cls(schemas={}, tools={}, mappings={}).with_documents(documents, origin)

    def with_documents(
        self, documents: Iterable[tuple[str, bytes]], origin: Origin = Origin.OPERATOR
    ) -> Registry:
        """A registry with more documents over these. Raises `RegistryInvalid`.

        A name that is taken can be given again only with the same content: versions never change.
        """
        builder = _Builder(self, origin)
        for name, data in documents:
            builder.add(name, data)
        return builder.finish()

    def with_hosted(
        self, documents: Iterable[Hosted], origin: Origin, *, types: Iterable[str] = ()
    ) -> tuple[Registry, Mapping[EntryKey, tuple[Fault, ...]]]:
        """A registry with documents of the API over these, and what is wrong with which of them.

        One that cannot be used is left out. One whose name is taken below hides what is there:
        whoever gave the name first keeps its meaning. `types` are further names that a mapping may
        lead from and to.
        """
        builder = _HostedBuilder(self, origin, frozenset(types))
        # A mapping needs its types; of tools, the last one of a name is in force.
        order = {Kind.TYPE: 0, Kind.TOOL: 1, Kind.MAPPING: 2}
        for hosted in sorted(documents, key=lambda h: (order[h.kind], *_precedence(h))):
            builder.add(hosted)
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
            deprecated=self._deprecated_on(payload_type, target_type, mapping)
            if self.deprecated
            else (),
            _tools=self.tools,
        )

    def named(self, kind: Kind, name: str) -> Entry | None:
        """The document of this name; of a tool any version, for they share the name called."""
        found = self.entries.get((kind, name))
        if found is not None or kind is not Kind.TOOL:
            return found
        tool = name.rpartition(".v")[0]
        return next(
            (
                entry
                for (of_kind, other), entry in self.entries.items()
                if of_kind is Kind.TOOL and tool in (other, other.rpartition(".v")[0])
            ),
            None,
        )

    def deprecated_tool(self, payload_type: str, payload: Json) -> Entry | None:
        """The tool that a payload calls, where the version in force is deprecated."""
        form = toolcalls.FORMATS.get(payload_type)
        name = None if form is None else toolcalls.tool_of(payload, form)
        return None if name is None else self.deprecated.get((Kind.TOOL, name))

    def _deprecated_on(
        self, payload_type: str, target_type: str, mapping: TypeMapping | None
    ) -> tuple[Entry, ...]:
        keys = [(Kind.TYPE, payload_type), (Kind.TYPE, target_type)]
        if mapping is not None:
            keys.append((Kind.MAPPING, mapping.name))
        found = (self.deprecated.get(key) for key in dict.fromkeys(keys))
        return tuple(entry for entry in found if entry is not None)


def name_faults(kind: Kind, name: str) -> tuple[Fault, ...]:
    """Why a document of the API may not have this name; nothing when it may."""
    if kind is Kind.MAPPING:
        source, _, target = name.partition("--")
        well = _TYPE_NAME.fullmatch(source) and _TYPE_NAME.fullmatch(target) and source != target
        example = "acme.order.v1--acme.invoice.v1"
    elif kind is Kind.TYPE:
        well, example = _TYPE_NAME.fullmatch(name), "acme.order.v1"
    else:
        well, example = _TOOL_NAME.fullmatch(name), "place_order.v1"
    if not well:
        detail = f"A {kind} has a name such as {example}."
    elif kind is Kind.TYPE and name.startswith(_RESERVED):
        detail = f"Names that begin with {_RESERVED} are the gateway's own."
    else:
        return ()
    return (Fault(pointer="", code="registry_name_invalid", detail=detail),)


def _precedence(hosted: Hosted) -> tuple[bool, int, str]:
    """The order in which documents are laid: what comes later is in force before the others."""
    version = hosted.name.rpartition(".v")[2]
    return hosted.deprecated is None, int(version) if version.isdecimal() else 0, hosted.name


class _Builder:
    """Collects compiled documents, and every fault of every file."""

    def __init__(self, base: Registry, origin: Origin) -> None:
        self._base = base
        self._origin = origin
        self._entries = dict(base.entries)
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
        return replace(
            self._base,
            schemas=self._schemas,
            tools=self._tools,
            mappings=self._mappings,
            entries=self._entries,
        )

    def _list(self, kind: Kind, name: str, document: Json) -> None:
        entry = Entry(
            kind=kind,
            name=name,
            cid=content_id(canonicalize(document)),
            origin=self._origin,
            document=document,
        )
        self._entries.setdefault((kind, name), entry)

    def _add_schema(self, name: str, document: Json) -> None:
        if not _TYPE_NAME.fullmatch(name):
            raise RegistryInvalid(f"{name[:80]!r} is no type name such as acme.order.v1.")
        schema = Schema.compile(name, document)
        _refuse_change(name, self._schemas.setdefault(name, schema).cid, schema.cid)
        self._list(Kind.TYPE, name, document)

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
        self._list(Kind.MAPPING, name, document)

    def _add_tool(self, document: Json) -> None:
        tool = Tool.compile(document)
        known = self._tools.setdefault(tool.name, tool)
        _refuse_change(f"tool {tool.name}", known.arguments.cid, tool.arguments.cid)
        self._list(Kind.TOOL, tool.name, document)

    def _fault(self, file: str, at: str, code: str, detail: str) -> None:
        self._faults.append(Fault(pointer=f"{file[:200]}#{at}", code=code, detail=detail))


class _HostedBuilder:
    """Compiles what came through the API, each document by itself."""

    def __init__(self, base: Registry, origin: Origin, types: frozenset[str]) -> None:
        self._base = base
        self._origin = origin
        self._types = types
        self._entries = dict(base.entries)
        self._schemas = dict(base.schemas)
        self._tools = dict(base.tools)
        self._mappings = dict(base.mappings)
        self._deprecated = dict(base.deprecated)
        self._faults: dict[EntryKey, tuple[Fault, ...]] = {}

    def add(self, hosted: Hosted) -> None:
        """Compile one document and put it in its place; remember what is wrong with it."""
        key = (hosted.kind, hosted.name)
        faults = name_faults(hosted.kind, hosted.name)
        if not faults:
            try:
                faults = self._compile(hosted)
            except SignetError as error:
                whole = Fault(pointer="", code=error.code, detail=error.detail)
                faults = error.faults or (whole,)
        if faults:
            self._faults[key] = faults[:FAULT_LIMIT]
            return
        hidden = self._base.named(hosted.kind, hosted.name)
        entry = Entry(
            kind=hosted.kind,
            name=hosted.name,
            cid=content_id(canonicalize(hosted.document)),
            origin=self._origin,
            document=hosted.document,
            created_us=hosted.created_us,
            deprecated=hosted.deprecated,
            shadows=None if hidden is None else hidden.origin,
        )
        self._entries[key] = entry
        named = key
        if hosted.kind is Kind.TOOL:
            named = (Kind.TOOL, hosted.name.rpartition(".v")[0])
        self._deprecated.pop(named, None)
        if hosted.deprecated is not None:
            self._deprecated[named] = entry

    def finish(self) -> tuple[Registry, Mapping[EntryKey, tuple[Fault, ...]]]:
        """Hand out the registry, and the faults of what is not in it."""
        registry = Registry(
            schemas=self._schemas,
            tools=self._tools,
            mappings=self._mappings,
            entries=self._entries,
            deprecated=self._deprecated,
        )
        return registry, self._faults

    def _compile(self, hosted: Hosted) -> tuple[Fault, ...]:
        name, document = hosted.name, hosted.document
        match hosted.kind:
            case Kind.TYPE:
                self._schemas[name] = Schema.compile(name, document, trusted=False)
            case Kind.TOOL:
                tool = Tool.compile(document, trusted=False)
                if tool.name != name.rpartition(".v")[0]:
                    detail = f"{name} is a version of the tool {name.rpartition('.v')[0]}."
                    got = tool.name[:80]
                    return (Fault(pointer="", code="tool_invalid", detail=detail, got=got),)
                self._tools[tool.name] = tool
            case Kind.MAPPING:
                source, _, target = name.partition("--")
                unknown = [
                    Fault(pointer="", code="unknown_type", detail=f"There is no type {end}.")
                    for end in (source, target)
                    if end not in self._schemas and end not in self._types
                ]
                if unknown:
                    return tuple(unknown)
                mapping = TypeMapping.compile(name, source, target, document, trusted=False)
                self._mappings[source, target] = mapping
        return ()


def _refuse_change(name: str, known_cid: str, new_cid: str) -> None:
    if known_cid != new_cid:
        raise RegistryInvalid(f"{name} is registered with other content; use a new name.")
