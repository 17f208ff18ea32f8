"""The registry of types, tools and mappings: named, versioned, immutable, identified by CID.

A registry is built from (file name, bytes) pairs that the caller has read:

    <type>.schema.json            the JSON Schema of a type, e.g. acme.order.v1.schema.json
    <source>--<target>.map.json   how a document of one type becomes one of another
    <tool>.tool.json              a tool definition, OpenAI's form or MCP's
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from signet.core.errors import Fault, SignetError
from signet.core.schema import Schema
from signet.core.toolcalls import EmbeddedText
from signet.core.transform import Mapped, Mapping, MappingFailed
from signet.receipts.canonical import Json


class RegistryInvalid(SignetError):
    """Some documents cannot be used; `faults` name every file and place at once."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Everything an exchange needs to know about its two types.

    In order: `schema_in.faults(payload)`; parse each of `embedded_texts(payload)` and put the
    values back by `with_parsed`; `argument_faults` of that; `source` of that is what `mapping`
    reads; `schema_out.faults` of what it made. `mapping` is None when there is nothing to map
    (validate only), and then the answer is the payload itself.
    """

    payload_type: str
    target_type: str
    schema_in: Schema
    schema_out: Schema
    mapping: Mapping | None

    def embedded_texts(self, payload: Json) -> tuple[EmbeddedText, ...]:
        """The JSON texts inside a payload that `schema_in` accepted."""
        raise NotImplementedError

    def argument_faults(self, payload: Json) -> tuple[Fault, ...]:
        """What is wrong with the tool calls' arguments, once parsed: `unknown_tool`, or schema."""
        raise NotImplementedError

    def source(self, payload: Json) -> Mapped | MappingFailed:
        """What the mapping reads: the parsed payload, or the generic tool call made of it."""
        raise NotImplementedError


class Registry:
    """All types, tools and mappings that one tenant can name. Immutable."""

    @classmethod
    def build(cls, documents: Iterable[tuple[str, bytes]]) -> Registry:
        """Compile all documents. Raises `RegistryInvalid` with every fault of every file."""
        raise NotImplementedError

    def with_documents(self, documents: Iterable[tuple[str, bytes]]) -> Registry:
        """A registry with more documents (a tenant's own) over these. Raises `RegistryInvalid`.

        A name that is taken can be given again only with the same content: versions never change.
        """
        raise NotImplementedError

    def lookup(self, payload_type: str, target_type: str) -> Route | UnknownType | UnknownMapping:
        """How a payload of one type becomes the other."""
        raise NotImplementedError
