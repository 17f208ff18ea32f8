"""Schemas validate exactly, fetch nothing, and say what is wrong in few words."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signet.core.schema import EACH, FAULT_LIMIT, Schema, SchemaInvalid
from signet.receipts.canonical import Json, canonicalize, content_id, parse


def compiled(document: Json) -> Schema:
    return Schema.compile("test.v1", document)


def codes(schema: Json, value: Json) -> list[tuple[str, str]]:
    return [(fault.pointer, fault.code) for fault in compiled(schema).faults(value)]


# --- Numbers ---


@pytest.mark.parametrize(
    ("schema", "number", "valid"),
    [
        ('{"multipleOf": 0.01}', "0.07", True),
        ('{"multipleOf": 0.01}', "4.35", True),
        ('{"multipleOf": 0.01}', "1234567890.07", True),
        ('{"multipleOf": 0.01}', "4.355", False),
        ('{"multipleOf": 0.1}', "0.3", True),
        ('{"maximum": 0.1}', "0.1", True),
        ('{"exclusiveMaximum": 0.1}', "0.1", False),
        ('{"exclusiveMinimum": 0.1}', "0.1", False),
        ('{"maximum": 0.3}', "0.30000000000000004", False),
        ('{"enum": [1.1]}', "1.10", True),
        ('{"const": 1.5}', "1.50", True),
        ('{"const": 1}', "1.0", True),
        ('{"const": {"a": 1.1}}', '{"a": 1.10}', True),
        ('{"type": "integer"}', "1.0", True),
        ('{"type": "integer"}', "1e2", True),
        ('{"type": "integer"}', "1.5", False),
        ('{"type": "string"}', "1.5", False),
        ('{"uniqueItems": true}', "[1.10, 1.1]", False),
        ('{"uniqueItems": true}', "[1, true]", True),
    ],
)
def test_numbers_are_compared_as_decimals(schema: str, number: str, valid: bool) -> None:
    """Every keyword about numbers sees the number that was written, not its binary neighbour."""
    assert (compiled(parse(schema)).faults(parse(number)) == ()) is valid


@settings(deadline=None)
@given(cents=st.integers(-(10**14), 10**14))
def test_every_amount_of_cents_is_a_multiple_of_a_cent(cents: int) -> None:
    """multipleOf 0.01 holds for every two-place decimal, and for none with a third place."""
    schema = compiled(parse('{"multipleOf": 0.01}'))
    amount = Decimal(cents).scaleb(-2)
    assert schema.faults(amount) == ()
    assert schema.faults(amount + Decimal("0.001")) != ()


@pytest.mark.parametrize("number", ["1e999990", "1e-999990", "NaN", "Infinity"])
def test_extreme_decimals_are_decided_at_once(number: str) -> None:
    """No exponent is expanded, even if strict parsing were bypassed."""
    started = time.process_time()
    compiled(parse('{"type": "number", "maximum": 5, "multipleOf": 0.01}')).faults(Decimal(number))
    assert time.process_time() - started < 10


# --- Nothing is fetched ---


@pytest.fixture
def visits() -> Iterator[tuple[str, list[str]]]:
    """A loopback server and the list of what was asked of it."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"type": "string"}')

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_outside_http_reference_fetches_nothing(visits: tuple[str, list[str]]) -> None:
    """A schema that refers to the network is a registration error, whatever keyword refers."""
    base, asked = visits
    outside: list[Json] = [
        {"$ref": f"{base}/a.json"},
        {"$dynamicRef": f"{base}/a.json#x"},
        {"$schema": f"{base}/meta.json"},
        {"$id": f"{base}/root.json", "$ref": "other.json"},
        {"properties": {"a": {"items": {"$ref": f"{base}/deep.json"}}}},
        {"$defs": {"unused": {"$ref": f"{base}/unused.json"}}, "$ref": "#/$defs/unused"},
        {"$schema": "http://json-schema.org/draft-07/schema#", "$ref": f"{base}/a.json"},
    ]
    for document in outside:
        with pytest.raises(SchemaInvalid) as refused:
            compiled(document)
        assert refused.value.faults[0].code == "schema_invalid"
        assert "test.v1" in refused.value.detail
    assert asked == []


def test_an_outside_file_reference_reads_nothing(tmp_path: Path) -> None:
    """A file:// reference is refused even where the file exists and would be a fine schema."""
    target = tmp_path / "other.json"
    target.write_text('{"type": "string"}')
    with pytest.raises(SchemaInvalid):
        compiled({"$ref": target.as_uri()})


def test_references_inside_work() -> None:
    """`#/$defs`, `$anchor` and an absolute `$id` of the schema itself need no fetching."""
    inside: Json = {
        "$id": "https://schemas.example/a",
        "properties": {
            "a": {"$ref": "#/$defs/text"},
            "b": {"$ref": "#number"},
            "c": {"$ref": "https://schemas.example/a#/$defs/text"},
        },
        "$defs": {"text": {"type": "string"}, "number": {"$anchor": "number", "type": "number"}},
    }
    assert codes(inside, {"a": 1, "b": "x", "c": 1}) == [
        ("/a", "schema_type"),
        ("/b", "schema_type"),
        ("/c", "schema_type"),
    ]


# --- Registration ---


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        (None, ""),
        ([], ""),
        ("x", ""),
        ({"type": "strin"}, "/type"),
        ({"properties": {"a/b": {"minLength": -1}}}, "/properties/a~1b/minLength"),
        ({"pattern": "["}, "/pattern"),
        ({"pattern": "(.{0,900}x){5}"}, "/pattern"),
        ({"$ref": "#/$defs/nowhere"}, ""),
        ({"$schema": "https://example.com/own"}, ""),
    ],
)
def test_a_bad_schema_is_refused_with_its_place(document: Json, pointer: str) -> None:
    """The author learns which file, where in it, and why, in one short sentence."""
    with pytest.raises(SchemaInvalid) as refused:
        compiled(document)
    (fault,) = refused.value.faults
    assert fault.pointer == pointer
    assert len(fault.detail) <= 160


@pytest.mark.parametrize("depth", [1_000, 5_000])
def test_a_schema_too_deep_is_refused(depth: int) -> None:
    """The engine's depth limit and the canonical form's become our error, not a crash."""
    document: Json = True
    for _ in range(depth):
        document = {"not": document}
    with pytest.raises(SchemaInvalid):
        compiled(document)


def test_draft_07_is_honoured() -> None:
    """`items` as a list means positions in draft-07, and is not a schema in 2020-12."""
    positions: Json = {"items": [{"type": "string"}]}
    draft_07: Json = {"$schema": "http://json-schema.org/draft-07/schema#", **positions}
    assert codes(draft_07, [1]) == [("/0", "schema_type")]
    with pytest.raises(SchemaInvalid):
        compiled(positions)


def test_the_cid_is_of_the_canonical_document() -> None:
    """Spelling and member order do not matter; content does."""
    one = compiled(parse('{"type":"number","maximum":1.0}'))
    two = compiled(parse('{ "maximum": 1, "type": "number" }'))
    assert one.cid == two.cid == content_id(canonicalize(two.document))
    assert compiled(parse('{"type":"number"}')).cid != one.cid


# --- Faults ---


def test_faults_say_where_what_was_expected_and_what_was_found() -> None:
    """Pointers lead into the instance; expected is the rule in the schema's words."""
    schema: Json = {
        "type": "object",
        "additionalProperties": False,
        "required": ["id", "total"],
        "properties": {
            "id": {"type": "string", "maxLength": 3},
            "total": {"type": "integer", "minimum": 1},
            "kind": {"enum": ["a", "b"]},
            "on": {"format": "date"},
            "a/b~c": {"type": "null"},
        },
    }
    value: Json = {"id": "long", "kind": "c", "on": "2024-02-30", "a/b~c": 1, "x": 1, "y": 2}
    faults = compiled(schema).faults(value)
    assert [(f.pointer, f.code, f.expected, f.got) for f in faults] == [
        ("", "schema_required", 'required "total"', "object with 6 members"),
        ("/a~1b~0c", "schema_type", 'type ["null"]', "1"),
        ("/id", "schema_max_length", "maxLength 3", '"long"'),
        ("/kind", "schema_enum", 'enum ["a","b"]', '"c"'),
        ("/on", "schema_format", 'format "date"', '"2024-02-30"'),
        ("/x", "schema_additional_properties", None, None),
        ("/y", "schema_additional_properties", None, None),
    ]
    assert all(fault.detail.endswith(".") for fault in faults)


def test_alternatives_say_why_each_one_failed() -> None:
    """A choice that fits nowhere names the reason of every branch."""
    (fault,) = compiled({"anyOf": [{"type": "string"}, {"minimum": 5}]}).faults(1)
    assert fault.expected == (
        'anyOf: The value is not of type "string"; The value is less than the minimum of 5'
    )


def test_a_payload_is_never_repeated_back() -> None:
    """However large what is wrong, each text of a fault stays short and holds none of it."""
    secret = "s3cret" * 50_000
    schema: Json = {"properties": {"a": {"type": "integer"}, "b": {"pattern": "^x$"}}, "not": {}}
    faults = compiled(schema).faults({"a": secret, "b": secret})
    assert len(faults) == 3
    for fault in faults:
        assert "s3cret" not in repr(fault)
        assert len(repr(fault)) < 1_000


def test_long_rules_are_cut() -> None:
    """An enum of ten thousand entries does not become a message of ten thousand entries."""
    (fault,) = compiled({"enum": [f"option {n}" for n in range(10_000)]}).faults("x")
    assert len(fault.expected or "") <= 160
    assert len(fault.detail) <= 160


def test_the_order_is_the_same_every_time_and_the_limit_holds() -> None:
    """The first faults by pointer, and no more than asked for."""
    schema: Json = {"additionalProperties": {"type": "string"}}
    names = [f"m{n:03}" for n in range(100)]
    expected = [f"/{name}" for name in names[:FAULT_LIMIT]]
    for order in (names, list(reversed(names))):
        value: Json = dict.fromkeys(order, 1)
        assert [fault.pointer for fault in compiled(schema).faults(value)] == expected
    assert len(compiled(schema).faults(dict.fromkeys(names, 1), limit=3)) == 3


def test_a_megabyte_of_wrong_values_is_refused_quickly() -> None:
    """Beyond a thousand values only the first fault is told, so that nobody waits for the rest."""
    schema = compiled({"items": {"anyOf": [{"type": "string"}, {"type": "object"}]}})
    value: Json = list(range(200_000))
    started = time.process_time()
    faults = schema.faults(value)
    assert time.process_time() - started < 10
    assert len(faults) == 1


def test_a_catastrophic_pattern_gives_up() -> None:
    """Backtracking is bounded: the value is refused with a reason instead of a hung worker."""
    schema = compiled({"pattern": r"^(?=a)(a|aa)+(?<=b)$"})
    started = time.process_time()
    (fault,) = schema.faults("a" * 5_000)
    assert time.process_time() - started < 10
    assert fault.code == "schema_pattern_too_costly"


def test_a_nested_quantifier_is_linear() -> None:
    """The classic (a+)+$ has no look-around and so runs in the linear engine."""
    started = time.process_time()
    assert codes({"pattern": "(a+)+$"}, "a" * 100_000 + "b") == [("", "schema_pattern")]
    assert time.process_time() - started < 10


def test_a_lone_surrogate_is_a_fault() -> None:
    """Strict parsing refuses it; should one come another way, it is an answer and no crash."""
    assert codes({"type": "string", "maxLength": 0}, "\ud800") == [("", "schema_unreadable")]


def test_a_deep_instance_does_not_crash() -> None:
    """A recursive schema over a deep document ends with an answer."""
    value: Json = 1
    for _ in range(500):
        value = [value]
    compiled({"items": {"$ref": "#"}, "type": ["array", "integer"]}).faults(value)


def test_formats_are_asserted_and_unknown_ones_ignored() -> None:
    """`format` decides, as tools in the wild expect; a format nobody defined says nothing."""
    assert codes({"format": "email"}, "nobody") == [("", "schema_format")]
    assert codes({"format": "int32"}, "x") == []


# --- JSON inside strings ---


def places(document: Json) -> list[tuple[tuple[str | int, ...], bool]]:
    return [(here.path, here.schema is not None) for here in compiled(document).embedded]


def test_declared_json_texts_are_found() -> None:
    """Through properties, elements, positions, references and alternatives, once each."""
    text: Json = {"type": "string", "contentMediaType": "application/json"}
    document: Json = {
        "properties": {
            "a": {**text, "contentSchema": {"type": "object"}},
            "list": {"items": {"$ref": "#/$defs/call"}},
            "pair": {"prefixItems": [True, text]},
            "either": {"anyOf": [text, {"type": "null"}, text]},
            "other": {"contentMediaType": "text/html"},
        },
        "$defs": {"call": {"properties": {"arguments": text}}},
    }
    assert places(document) == [
        (("a",), True),
        (("list", EACH, "arguments"), False),
        (("pair", 1), False),
        (("either",), False),
    ]


def test_the_engine_leaves_declared_texts_alone() -> None:
    """Broken text is the repair stage's business: validation of the envelope lets it pass."""
    schema: Json = {"contentMediaType": "application/json", "contentSchema": {"type": "object"}}
    assert codes(schema, "{broken") == []


def test_a_recursive_schema_ends() -> None:
    """A reference is followed once along each way."""
    document: Json = {
        "properties": {
            "text": {"contentMediaType": "application/json"},
            "children": {"items": {"$ref": "#/$defs/node"}},
        },
        "$defs": {
            "node": {
                "properties": {
                    "text": {"contentMediaType": "application/json"},
                    "children": {"items": {"$ref": "#/$defs/node"}},
                }
            }
        },
    }
    assert places(document) == [
        (("text",), False),
        (("children", EACH, "text"), False),
    ]


def test_references_that_fan_out_are_refused() -> None:
    """Thirty doublings would be a thousand million places; the author is told at once."""
    definitions: dict[str, Json] = {
        f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}, {"$ref": f"#/$defs/d{n + 1}"}]}
        for n in range(30)
    }
    definitions["d30"] = {"contentMediaType": "application/json"}
    started = time.process_time()
    with pytest.raises(SchemaInvalid, match="too many places"):
        compiled({"$ref": "#/$defs/d0", "$defs": definitions})
    assert time.process_time() - started < 10


def test_a_bad_content_schema_is_refused_with_its_place() -> None:
    """What must be inside a text is compiled at registration too."""
    with pytest.raises(SchemaInvalid, match="v1#/a"):
        compiled(
            {
                "properties": {
                    "a": {
                        "contentMediaType": "application/json",
                        "contentSchema": {"$ref": "#/$defs/elsewhere"},
                    }
                }
            }
        )
