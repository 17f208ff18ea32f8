"""Tool calls as OpenAI, Anthropic and MCP clients emit them.

Where the tool's name and its arguments are, and which arguments are JSON inside a string. Parsing
(and repairing) such text is the gateway's stage; this module finds it and puts the value back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from signet.core.errors import Fault, SignetError
from signet.core.schema import EACH, Embedded, Schema
from signet.core.values import value_class
from signet.receipts.canonical import Json, pointer

# What every tool call of whatever client becomes: {"tool", "arguments", "call_id"?}. A mapping
# from this type serves all clients at once.
GENERIC = "signet.tool_call.v1"

Step: TypeAlias = "str | int"


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """Where a client puts the tool's name and its arguments."""

    name: tuple[str, ...]
    arguments: tuple[str, ...]


FORMATS: Mapping[str, Format] = {
    # https://platform.openai.com/docs/guides/function-calling: the arguments are JSON in a string.
    "openai.tool_call.v1": Format(name=("function", "name"), arguments=("function", "arguments")),
    # https://docs.anthropic.com/en/docs/agents-and-tools/tool-use: a content block.
    "anthropic.tool_use.v1": Format(name=("name",), arguments=("input",)),
    # https://modelcontextprotocol.io/specification: the params of a tools/call request.
    "mcp.tool_call.v1": Format(name=("params", "name"), arguments=("params", "arguments")),
    GENERIC: Format(name=("tool",), arguments=("arguments",)),
}


class ToolInvalid(SignetError):
    """The tool definition cannot be used."""

    code = "tool_invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A registered tool: its name, the schema of its arguments, and the definition as it came."""

    name: str
    arguments: Schema
    document: Json = field(default=None, repr=False, compare=False)

    @classmethod
    def compile(cls, document: Json, *, trusted: bool = True) -> Tool:
        """Compile a definition in OpenAI's, Anthropic's or MCP's form.

        Raises `ToolInvalid`, or `SchemaInvalid` when its schema cannot be used.
        """
        here = document
        if isinstance(here, dict) and here.get("type") == "function" and "function" in here:
            here = here["function"]
        if not isinstance(here, dict) or not isinstance(name := here.get("name"), str):
            raise ToolInvalid("A tool definition is an object with the tool's `name`.")
        if not 0 < len(name) <= 128:
            raise ToolInvalid("A tool's name has 1 to 128 characters.")
        schemas = [
            here[key] for key in ("parameters", "inputSchema", "input_schema") if key in here
        ]
        if len(schemas) > 1:
            raise ToolInvalid(f"{name}: more than one of parameters, inputSchema, input_schema.")
        # A function without parameters takes an object all the same, as a rule an empty one.
        schema: Json = schemas[0] if schemas else {"type": "object"}
        arguments = Schema.compile(name, schema, trusted=trusted)
        return cls(name=name, arguments=arguments, document=document)


@value_class
class EmbeddedText:
    """JSON carried as a string: the text at `pointer`, and what its value must satisfy if known."""

    pointer: str
    text: str
    tool: str | None
    schema: Schema | None


def tool_of(payload: Json, form: Format) -> str | None:
    """The name of the tool that is called; None where there is none."""
    name = _at(payload, form.name)
    return name if isinstance(name, str) else None


def argument_faults(payload: Json, form: Format, tools: Mapping[str, Tool]) -> tuple[Fault, ...]:
    """What is wrong with a tool call's arguments, which have been parsed where they were text."""
    name = tool_of(payload, form)
    tool = None if name is None else tools.get(name)
    if tool is None:
        return (
            Fault(
                pointer=pointer(*form.name),
                code="unknown_tool",
                detail="No tool of this name is registered.",
                got=None if name is None else name[:80],
            ),
        )
    arguments = _at(payload, form.arguments)
    # MCP allows a call without arguments; it is one with none.
    return rebased(tool.arguments.faults({} if arguments is None else arguments), form.arguments)


def rebased(faults: tuple[Fault, ...], path: tuple[Step, ...]) -> tuple[Fault, ...]:
    """The faults of a part, with pointers into the whole."""
    prefix = pointer(*path)
    return tuple(
        Fault(
            pointer=prefix + fault.pointer,
            code=fault.code,
            detail=fault.detail,
            expected=fault.expected,
            got=fault.got,
        )
        for fault in faults
    )


def places(payload: Json, embedded: Embedded) -> Sequence[tuple[tuple[Step, ...], Json]]:
    """Every place of the payload that `embedded` describes, with the value there."""
    found: list[tuple[tuple[Step, ...], Json]] = [((), payload)]
    for step in embedded.path:
        if isinstance(step, str):
            found = [
                ((*way, step), value[step])
                for way, value in found
                if isinstance(value, dict) and step in value
            ]
        else:
            chosen = slice(None) if step == EACH else slice(step, step + 1)
            found = [
                ((*way, index), value[index])
                for way, value in found
                if isinstance(value, list)
                for index in range(len(value))[chosen]
            ]
    return found


def named_beside(payload: Json, place: tuple[Step, ...]) -> str | None:
    """The tool whose arguments are at `place`, where it is named beside them as OpenAI does."""
    if not place or place[-1] != "arguments":
        return None
    name = _at(payload, (*place[:-1], "name"))
    return name if isinstance(name, str) else None


def _at(value: Json, path: tuple[Step, ...]) -> Json:
    for token in path:
        if isinstance(value, dict) and isinstance(token, str):
            value = value.get(token)
        elif isinstance(value, list) and isinstance(token, int) and token < len(value):
            value = value[token]
        else:
            return None
    return value


# --- Putting values back -------------------------------------------------------------------------


class _Change:
    """What becomes of one place: something `new`, or changes further down."""

    __slots__ = ("below", "new")

    def __init__(self) -> None:
        self.new: Json | _Change = self  # stands for "nothing": null is a value
        self.below: dict[str, _Change] = {}


def with_parsed(payload: Json, values: Mapping[str, Json]) -> Json:
    """A copy of `payload` in which the value at each pointer is replaced; the rest is shared.

    A pointer that leads nowhere changes nothing.
    """
    if len(values) == 1:
        ((at, value),) = values.items()
        return _replaced(payload, _names(at), value)
    root = _Change()
    for at, value in values.items():
        change = root
        for name in _names(at):
            below = change.below.get(name)
            if below is None:
                below = change.below[name] = _Change()
            change = below
        change.new = value
    return _changed(payload, root)


def _names(at: str) -> list[str]:
    """The names that a JSON Pointer consists of."""
    names = at.split("/")[1:]
    if "~" in at:
        return [name.replace("~1", "/").replace("~0", "~") for name in names]
    return names


def _replaced(payload: Json, way: list[str], new: Json) -> Json:
    """As `_changed` for one place: nearly every payload has one text in it."""
    if not way:
        return new
    root = here = _copied(payload)
    for name in way[:-1]:
        if isinstance(here, dict) and name in here:
            below = here[name] = _copied(here[name])
        elif isinstance(here, list) and name.isdecimal() and int(name) < len(here):
            below = here[int(name)] = _copied(here[int(name)])
        else:
            return payload
        here = below
    last = way[-1]
    if isinstance(here, dict) and last in here:
        here[last] = new
    elif isinstance(here, list) and last.isdecimal() and int(last) < len(here):
        here[int(last)] = new
    return root


def _copied(value: Json) -> Json:
    return value.copy() if isinstance(value, (dict, list)) else value


def _changed(value: Json, change: _Change) -> Json:
    if not isinstance(change.new, _Change):
        return change.new
    if isinstance(value, dict):
        members = value.copy()
        for name, below in change.below.items():
            if name in value:
                members[name] = _changed(value[name], below)
        return members
    if isinstance(value, list):
        elements = value.copy()
        for index, below in change.below.items():
            if index.isdecimal() and int(index) < len(value):
                elements[int(index)] = _changed(value[int(index)], below)
        return elements
    return value
