"""Tool calls of every client: where things are, and how parsed values go back in."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signet.core.schema import EACH, Embedded, SchemaInvalid
from signet.core.toolcalls import (
    FORMATS,
    Tool,
    ToolInvalid,
    argument_faults,
    named_beside,
    places,
    tool_of,
    with_parsed,
)
from signet.receipts.canonical import Json, pointer

SCHEMA: Json = {"type": "object", "required": ["q"], "properties": {"q": {"type": "string"}}}

DEFINITIONS: list[Json] = [
    {"type": "function", "function": {"name": "find", "parameters": SCHEMA}},
    {"type": "function", "name": "find", "parameters": SCHEMA, "strict": True},
    {"name": "find", "parameters": SCHEMA},
    {"name": "find", "inputSchema": SCHEMA, "annotations": {"readOnlyHint": True}},
    {"name": "find", "input_schema": SCHEMA, "description": "finds"},
]

CALLS: dict[str, Json] = {
    "openai.tool_call.v1": {"id": "c", "function": {"name": "find", "arguments": {"q": 1}}},
    "anthropic.tool_use.v1": {"type": "tool_use", "name": "find", "input": {"q": 1}},
    "mcp.tool_call.v1": {"method": "tools/call", "params": {"name": "find", "arguments": {"q": 1}}},
    "signet.tool_call.v1": {"tool": "find", "arguments": {"q": 1}},
}


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_every_form_of_a_tool_definition_is_the_same_tool(definition: Json) -> None:
    """OpenAI's two, Anthropic's and MCP's all give the name and the schema of the arguments."""
    tool = Tool.compile(definition)
    assert tool.name == "find"
    assert tool.arguments.document == SCHEMA


def test_a_tool_without_parameters_takes_an_object() -> None:
    """An empty one is fine, a list is not."""
    tool = Tool.compile({"name": "ping"})
    assert tool.arguments.faults({}) == ()
    assert tool.arguments.faults([]) != ()


@pytest.mark.parametrize(
    "definition",
    [
        None,
        [],
        {},
        {"name": 5},
        {"name": ""},
        {"name": "x" * 129},
        {"type": "function", "function": None},
        {"name": "x", "parameters": SCHEMA, "inputSchema": SCHEMA},
    ],
)
def test_what_is_no_tool_definition_is_refused(definition: Json) -> None:
    """With an error of ours, whatever shape it has."""
    with pytest.raises(ToolInvalid):
        Tool.compile(definition)


def test_a_tool_with_a_bad_schema_is_refused() -> None:
    """The schema's own error says where."""
    with pytest.raises(SchemaInvalid, match="find"):
        Tool.compile({"name": "find", "parameters": {"type": "nonsense"}})


@pytest.mark.parametrize("payload_type", FORMATS)
def test_arguments_are_checked_where_each_client_puts_them(payload_type: str) -> None:
    """The fault points to the very argument in the client's own document."""
    form = FORMATS[payload_type]
    call = CALLS[payload_type]
    tools = {"find": Tool.compile(DEFINITIONS[0])}
    assert tool_of(call, form) == "find"
    (fault,) = argument_faults(call, form, tools)
    assert (fault.pointer, fault.code) == (pointer(*form.arguments, "q"), "schema_type")


@pytest.mark.parametrize("payload_type", FORMATS)
def test_an_unregistered_tool_is_unknown(payload_type: str) -> None:
    """Also where there is no name at all, or one that is no text."""
    form = FORMATS[payload_type]
    for call in (CALLS[payload_type], {}, None, {"name": 5, "tool": [], "params": 1}):
        (fault,) = argument_faults(call, form, {})
        assert (fault.pointer, fault.code) == (pointer(*form.name), "unknown_tool")


def test_an_mcp_call_may_have_no_arguments() -> None:
    """It is a call with none, which the tool's schema then judges."""
    form = FORMATS["mcp.tool_call.v1"]
    tools = {"ping": Tool.compile({"name": "ping"}), "find": Tool.compile(DEFINITIONS[0])}
    assert argument_faults({"method": "tools/call", "params": {"name": "ping"}}, form, tools) == ()
    (fault,) = argument_faults({"params": {"name": "find"}}, form, tools)
    assert fault.code == "schema_required"


def test_places_follow_the_path_as_far_as_it_goes() -> None:
    """Every element, given positions, and nothing where the payload has another shape."""
    payload: Json = {"calls": [{"a": "1"}, {"b": "2"}, {"a": "3"}, 4], "pair": ["x", "y"]}
    each = Embedded(path=("calls", EACH, "a"), schema=None)
    assert list(places(payload, each)) == [(("calls", 0, "a"), "1"), (("calls", 2, "a"), "3")]
    second = Embedded(path=("pair", 1), schema=None)
    assert list(places(payload, second)) == [(("pair", 1), "y")]
    for odd in (("pair", 2), ("calls", "a"), ("calls", EACH, 0), ("pair", "x", "y"), ("no",)):
        assert list(places(payload, Embedded(path=odd, schema=None))) == []
    assert list(places("text", Embedded(path=(), schema=None))) == [((), "text")]


def test_the_tool_is_named_beside_its_arguments() -> None:
    """As OpenAI does it, at any depth; nowhere else."""
    payload: Json = {"calls": [{"name": "find", "arguments": "{}"}], "arguments": "{}"}
    assert named_beside(payload, ("calls", 0, "arguments")) == "find"
    assert named_beside(payload, ("arguments",)) is None
    assert named_beside(payload, ("calls", 0, "name")) is None
    assert named_beside(payload, ()) is None


def test_parsed_values_go_back_to_their_places() -> None:
    """The payload itself is untouched, and what did not change is shared, not copied."""
    payload: Json = {"a/b": [{"~": "{}"}, "keep"], "same": {"x": 1}}
    before = copy.deepcopy(payload)
    changed = with_parsed(payload, {"/a~1b/0/~0": {"y": 2}})
    assert changed == {"a/b": [{"~": {"y": 2}}, "keep"], "same": {"x": 1}}
    assert payload == before
    assert isinstance(changed, dict)
    assert changed["same"] is payload["same"]
    assert with_parsed(payload, {"": 5}) == 5
    assert with_parsed(payload, {}) == payload


@pytest.mark.parametrize(
    "nowhere", ["/missing", "/list/2", "/list/x", "/list/-1", "/list/01/x", "/text/0", "/list/²"]
)
def test_a_pointer_to_nowhere_changes_nothing(nowhere: str) -> None:
    """Never an exception, never an invented member."""
    payload: Json = {"list": [1, 2], "text": "ab"}
    assert with_parsed(payload, {nowhere: "new"}) == payload


@settings(deadline=None)
@given(
    calls=st.lists(st.text(max_size=5), max_size=30),
    chosen=st.sets(st.integers(0, 29)),
)
def test_any_subset_of_texts_can_be_replaced(calls: list[str], chosen: set[int]) -> None:
    """Exactly the named places change."""
    payload: Json = {"c": [{"t": text} for text in calls]}
    changed = with_parsed(payload, {f"/c/{index}/t": [index] for index in chosen})
    assert changed == {"c": [{"t": [i] if i in chosen else text} for i, text in enumerate(calls)]}
