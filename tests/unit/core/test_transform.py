"""Mappings build exactly what they say, or say what is missing."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signet.core import transform
from signet.core.transform import (
    Fields,
    JSONata,
    Mapped,
    Mapping,
    MappingFailed,
    MappingInvalid,
)
from signet.core.units import MAX_MINOR
from signet.receipts.canonical import Json, canonicalize, content_id, parse


def mapping(document: Json) -> Mapping:
    return Mapping.compile("a.v1--b.v1", "a.v1", "b.v1", document)


def apply(fields: Json, source: Json) -> Mapped | MappingFailed:
    body = mapping({"fields": fields}).body
    assert isinstance(body, Fields)
    return body.apply(source)


def made(fields: Json, source: Json) -> Json:
    result = apply(fields, source)
    assert isinstance(result, Mapped), result
    return result.value


def failed(fields: Json, source: Json) -> list[tuple[str, str]]:
    result = apply(fields, source)
    assert isinstance(result, MappingFailed), result
    return [(fault.pointer, fault.code) for fault in result.faults]


# --- Building ---


def test_targets_build_a_tree_of_objects_and_arrays() -> None:
    """Names nest objects, indexes nest arrays, in whatever order they are written."""
    fields: Json = {
        "Doc.Rows[1].Id": "b",
        "Doc.Rows[0].Id": "a",
        'Doc."odd.name"': {"const": None},
        "Doc.List[0]": "a",
    }
    assert made(fields, {"a": "1", "b": 2}) == {
        "Doc": {"Rows": [{"Id": "1"}, {"Id": 2}], "odd.name": None, "List": ["1"]}
    }


def test_values_pass_unchanged() -> None:
    """A path copies whatever it finds: texts, decimals, whole objects."""
    source: Json = {"a": Decimal("1.10"), "o": {"x": [True, None]}, "s": " é "}
    assert made({"a": "a", "o": "o", "s": "s"}, source) == source


def test_a_missing_source_is_a_fault_with_both_places() -> None:
    """The pointer leads into the source; the fault names the target it was needed for."""
    result = apply({"Doc.Id": "order.id", "Doc.Name": "order.name"}, {"order": {"name": None}})
    assert isinstance(result, MappingFailed)
    assert [(f.pointer, f.code, f.expected) for f in result.faults] == [
        ("/order/id", "mapping_source_missing", "a value for /Doc/Id"),
        ("/order/name", "mapping_source_missing", "a value for /Doc/Name"),
    ]


def test_optional_sources_leave_their_target_out() -> None:
    """And objects and arrays in which nothing is left go with them."""
    fields: Json = {
        "Id": "id",
        "Note": {"path": "note", "optional": True},
        "Party.Name": {"path": "name", "optional": True},
        "Lines[0].Text": {"path": "text", "optional": True},
    }
    assert made(fields, {"id": 1}) == {"Id": 1}
    assert made({"Note": {"path": "note", "optional": True}}, {}) == {}


def test_defaults_stand_in_for_what_is_missing_only() -> None:
    """A wrong value is not a missing one."""
    fields: Json = {"n": {"integer": "n", "default": 7}}
    assert made(fields, {}) == {"n": 7}
    assert made(fields, {"n": "3"}) == {"n": 3}
    assert failed(fields, {"n": "x"}) == [("/n", "amount_malformed")]
    assert made({"n": {"path": "n", "default": False}}, {"n": 0}) == {"n": 0}
    wrong: Json = {"n": {"lookup": "n", "table": {"a": 1}, "default": 7}}
    assert failed(wrong, {"n": "b"}) == [("/n", "mapping_lookup_unknown")]


# --- Functions ---


@pytest.mark.parametrize(
    ("rule", "value", "result"),
    [
        ({"string": "v"}, "x", "x"),
        ({"string": "v"}, 5, "5"),
        ({"string": "v"}, Decimal("1.50"), "1.5"),
        ({"string": "v"}, Decimal("1E+2"), "100"),
        ({"string": "v"}, True, "true"),
        ({"integer": "v"}, 5, 5),
        ({"integer": "v"}, "5.00", 5),
        ({"integer": "v"}, Decimal("5.0"), 5),
        ({"number": "v"}, "5.10", Decimal("5.1")),
        ({"number": "v"}, "007", 7),
        ({"number": "v"}, "-0.0", 0),
        ({"decimal": "v"}, Decimal("12.50"), "12.5"),
        ({"decimal": "v", "places": 2}, "12.5", "12.50"),
        ({"decimal": "v", "places": 2}, -5, "-5.00"),
        ({"decimal": "v", "places": 3}, "-0.005", "-0.005"),
        ({"decimal": "v", "places": 0}, "7.0", "7"),
        ({"decimal": "v", "currency": {"const": "KWD"}}, "1.5", "1.500"),
        ({"decimal": "v", "currency": {"const": "JPY"}}, "15", "15"),
        ({"minor_units": "v", "currency": {"const": "USD"}}, Decimal("123.45"), 12345),
        ({"minor_units": "v", "currency": {"const": "USD"}}, "-0.01", -1),
        ({"date": "v"}, "2024-02-29", "2024-02-29"),
        ({"lookup": "v", "table": {"x": [1]}}, "x", [1]),
        ({"concat": ["v", {"const": "b"}]}, "a", "ab"),
        ({"concat": ["v", {"string": {"const": 5}}], "separator": "-"}, "a", "a-5"),
        ({"concat": [{"path": "w", "optional": True}, "v"], "separator": "-"}, "a", "a"),
        ({"string": {"integer": "v"}}, "5.0", "5"),
    ],
)
def test_functions_are_exact(rule: Json, value: Json, result: Json) -> None:
    """Each gives precisely this value, of precisely this type."""
    answer = made({"t": rule}, {"v": value})
    assert answer == {"t": result}
    assert isinstance(answer, dict)
    assert type(answer["t"]) is type(result)


@pytest.mark.parametrize(
    ("rule", "value", "code"),
    [
        ({"string": "v"}, [1], "mapping_source_type"),
        ({"string": "v"}, {"a": 1}, "mapping_source_type"),
        ({"string": "v"}, Decimal("1e999990"), "amount_out_of_range"),
        ({"integer": "v"}, "1.5", "amount_too_fine"),
        ({"integer": "v"}, True, "amount_malformed"),
        ({"integer": "v"}, "1e999990", "amount_out_of_range"),
        ({"integer": "v"}, str(MAX_MINOR + 1), "amount_out_of_range"),
        ({"number": "v"}, "12345678901234567.89", "number_not_exact"),
        ({"number": "v"}, "NaN", "amount_malformed"),
        ({"number": "v"}, "0x10", "amount_malformed"),
        ({"decimal": "v"}, "1e-999990", "amount_out_of_range"),
        ({"decimal": "v", "places": 2}, "1.005", "amount_too_fine"),
        ({"minor_units": "v", "currency": {"const": "USD"}}, "1.005", "amount_too_fine"),
        ({"minor_units": "v", "currency": {"const": "USD"}}, "1,000.00", "amount_malformed"),
        ({"minor_units": "v", "currency": {"const": "ZZZ"}}, "1", "currency_unknown"),
        ({"minor_units": "v", "currency": {"const": 5}}, "1", "currency_unknown"),
        ({"date": "v"}, "2023-02-29", "mapping_not_a_date"),
        ({"date": "v"}, "20240229", "mapping_not_a_date"),
        ({"date": "v"}, "2024-02-29T00:00:00Z", "mapping_not_a_date"),
        ({"date": "v"}, 20240229, "mapping_not_a_date"),
        ({"lookup": "v", "table": {"x": 1}}, "y", "mapping_lookup_unknown"),
        ({"lookup": "v", "table": {"x": 1}}, ["x"], "mapping_lookup_unknown"),
        ({"concat": ["v"]}, 5, "mapping_source_type"),
        ("length(v)", 5, "mapping_source_type"),
    ],
)
def test_what_would_not_be_exact_is_a_fault_at_its_source(
    rule: Json, value: Json, code: str
) -> None:
    """Nothing is rounded, guessed or cut; the pointer leads to what the agent sent."""
    ((pointer, found),) = failed({"t": rule}, {"v": value})
    assert found == code
    assert pointer in (
        ("/v",) if not isinstance(rule, str) and "concat" not in rule else ("", "/v")
    )


def test_each_maps_every_element() -> None:
    """An element is `item`, the whole source is `root`; faults point at the very element."""
    fields: Json = {
        "rows": {
            "each": "order.lines",
            "fields": {
                "sku": "item.sku",
                "minor": {"minor_units": "item.price", "currency": "root.order.currency"},
            },
        }
    }
    order: dict[str, Json] = {
        "currency": "EUR",
        "lines": [{"sku": "a", "price": "1.10"}, {"sku": "b", "price": 2}],
    }
    assert made(fields, {"order": order}) == {
        "rows": [{"sku": "a", "minor": 110}, {"sku": "b", "minor": 200}]
    }
    order["lines"] = [{"sku": "a", "price": 1}, {"sku": "b", "price": "1.001"}]
    assert failed(fields, {"order": order}) == [("/order/lines/1/price", "amount_too_fine")]
    order["lines"] = [{"price": 1}]
    assert failed(fields, {"order": order}) == [("/order/lines/0/sku", "mapping_source_missing")]
    order["lines"] = [{"sku": "a", "price": 1}]
    del order["currency"]
    assert failed(fields, {"order": order}) == [("/order/currency", "mapping_source_missing")]
    order["lines"] = "none"
    assert failed(fields, {"order": order}) == [("/order/lines", "mapping_source_type")]
    assert made(fields, {"order": {"lines": []}}) == {"rows": []}


def test_each_nests() -> None:
    """Inside, `root` is the element around it with its own `root`."""
    inner: Json = {"each": "item.cells", "fields": {"v": "item", "of": "root.item.id"}}
    fields: Json = {"rows": {"each": "rows", "fields": {"cells": inner}}}
    source: Json = {"rows": [{"id": "r", "cells": [1, 2]}]}
    assert made(fields, source) == {"rows": [{"cells": [{"v": 1, "of": "r"}, {"v": 2, "of": "r"}]}]}
    lacking: Json = {"rows": [{"cells": [1]}]}
    assert failed(fields, lacking) == [("/rows/0/id", "mapping_source_missing")]


def test_a_condition_says_what_the_mapping_is_for() -> None:
    """`when` is about the source; a bool is no number, a missing member is not equal."""
    compiled = mapping({"when": {"tool": "pay", "version": 1}, "fields": {"a": "a"}})
    assert compiled.condition_faults({"tool": "pay", "version": 1}) == ()
    faults = compiled.condition_faults({"tool": "steal", "version": 1})
    assert [(f.pointer, f.code) for f in faults] == [("/tool", "mapping_not_applicable")]
    assert len(compiled.condition_faults({})) == 2
    assert len(compiled.condition_faults({"tool": "pay", "version": True})) == 1
    odd = mapping({"when": {"length(tool)": 3}, "fields": {"a": "a"}})
    assert odd.condition_faults({"tool": "pay"}) == ()
    assert len(odd.condition_faults({"tool": 3})) == 1


def test_faults_are_few_even_where_everything_is_missing() -> None:
    """Two thousand fields over an empty payload make twenty faults."""
    fields: Json = {f"t{n}": f"s{n}" for n in range(2_000)}
    assert len(failed(fields, {})) == 20


@settings(deadline=None)
@given(minor=st.integers(-MAX_MINOR, MAX_MINOR), currency=st.sampled_from(["EUR", "JPY", "KWD"]))
def test_decimal_text_and_minor_units_are_inverse(minor: int, currency: str) -> None:
    """Money crosses a mapping in either form without losing a unit."""
    exponent = {"EUR": 2, "JPY": 0, "KWD": 3}[currency]
    amount: Json = Decimal(minor).scaleb(-exponent)
    text = made({"t": {"decimal": "a", "currency": "c"}}, {"a": amount, "c": currency})
    assert isinstance(text, dict)
    back = made({"m": {"minor_units": "t", "currency": "c"}}, {**text, "c": currency})
    assert back == {"m": minor}


@settings(deadline=None)
@given(number=st.decimals(allow_nan=False, allow_infinity=False, places=4, max_value=10**9))
def test_a_number_a_mapping_makes_obeys_the_rule_of_the_door(number: Decimal) -> None:
    """`number` gives what strict parsing gives for the same text, or refuses."""
    result = apply({"n": {"number": "t"}}, {"t": f"{number:f}"})
    if isinstance(result, Mapped):
        assert result.value == {"n": parse(f"{number:f}")}
        canonicalize(result.value)


# --- Registration ---


@pytest.mark.parametrize(
    ("document", "pointers"),
    [
        (None, [""]),
        ([], [""]),
        ({}, [""]),
        ({"fields": {"a": "a"}, "jsonata": "a"}, [""]),
        ({"fields": {}}, ["/fields"]),
        ({"fields": []}, ["/fields"]),
        ({"fields": {"a": "a"}, "more": 1}, ["/more"]),
        ({"fields": {"a": "a."}}, ["/fields/a"]),
        ({"fields": {"a": 5}}, ["/fields/a"]),
        ({"fields": {"a": {}}}, ["/fields/a"]),
        ({"fields": {"a": {"path": "a", "const": 1}}}, ["/fields/a"]),
        ({"fields": {"a": {"path": 5}}}, ["/fields/a/path"]),
        ({"fields": {"a": {"path": "a", "optional": 1}}}, ["/fields/a/optional"]),
        ({"fields": {"a": {"path": "a", "table": {}}}}, ["/fields/a/table"]),
        ({"fields": {"a": {"upper": "a"}}}, ["/fields/a"]),
        ({"fields": {"a": {"minor_units": "a"}}}, ["/fields/a"]),
        ({"fields": {"a": {"decimal": "a", "places": -1}}}, ["/fields/a/places"]),
        ({"fields": {"a": {"decimal": "a", "places": True}}}, ["/fields/a/places"]),
        ({"fields": {"a": {"lookup": "a"}}}, ["/fields/a/table"]),
        ({"fields": {"a": {"concat": []}}}, ["/fields/a"]),
        ({"fields": {"a": {"concat": ["a", "b."]}}}, ["/fields/a/concat/1"]),
        ({"fields": {"a": {"each": "a"}}}, ["/fields/a/fields"]),
        ({"fields": {"a": "a", "a.b": "b"}}, ["/fields/a.b"]),
        ({"fields": {"a.b": "a", "a": "b"}}, ["/fields/a"]),
        ({"fields": {"a[1]": "a"}}, ["/fields"]),
        ({"fields": {"a[0]": "a", "a.b": "b"}}, ["/fields"]),
        ({"fields": {"a[*]": "a"}}, ["/fields/a[*]"]),
        ({"fields": {"a/b": "a"}}, ["/fields/a~1b"]),
        ({"fields": {"x": "a."}, "when": {"b.": 1}}, ["/when/b.", "/fields/x"]),
        ({"fields": {"x": "a"}, "when": []}, ["/when"]),
        ({"fields": {"x": "a"}, "when": {"a": [1]}}, ["/when/a"]),
        ({"jsonata": ""}, ["/jsonata"]),
        ({"jsonata": 5}, ["/jsonata"]),
        ({"jsonata": "x" * 20_001}, ["/jsonata"]),
    ],
)
def test_a_bad_mapping_is_refused_with_every_place(document: Json, pointers: list[str]) -> None:
    """All faults at once, each with its pointer into the mapping document."""
    with pytest.raises(MappingInvalid) as refused:
        mapping(document)
    assert [fault.pointer for fault in refused.value.faults] == pointers


def test_a_mapping_of_too_many_fields_is_refused() -> None:
    """The limit counts the fields of every `each` too."""
    with pytest.raises(MappingInvalid, match="at most"):
        mapping({"fields": {f"t{n}": "s" for n in range(2_001)}})


def test_jsonata_is_kept_as_text() -> None:
    """This module runs nothing of it."""
    compiled = mapping({"jsonata": "$sum(a)", "description": "adds"})
    assert compiled.body == JSONata(expression="$sum(a)")
    assert compiled.cid == content_id(canonicalize(compiled.document))


def test_the_guide_describes_every_function() -> None:
    """And no other: its table is held against the code."""
    guide = (Path(__file__).parents[3] / "docs/guide/types-and-mappings.md").read_text()
    table = guide.split("the `fields` form")[1].split("## Mappings: JSONata")[0]
    rows = re.findall(r'^\| .*?`\{"([a-z_]+)":', table, re.MULTILINE)
    assert set(rows) == transform.OPERATIONS


# --- What a stranger's mapping may take ----------------------------------------------------------


def quick(fields: Json, source: Json) -> bool:
    body = Mapping.compile("m", "a.v1", "b.v1", {"fields": fields}, trusted=False).body
    assert isinstance(body, Fields)
    return body.is_quick(source)


def test_an_ordinary_mapping_is_quick() -> None:
    """Plain paths, lines of an order with their own and the order's members, one filter."""
    fields: Json = {
        "id": "id",
        "total": {"minor_units": "total", "currency": "currency"},
        "lines": {"each": "lines", "fields": {"sku": "item.sku", "n": "item.n"}},
        "gifts": "lines[?gift].sku",
    }
    lines: Json = [{"sku": "a", "n": n, "gift": False} for n in range(500)]
    assert quick(fields, {"id": "1", "total": "1.00", "currency": "EUR", "lines": lines})


@pytest.mark.parametrize(
    "fields",
    [
        {f"x{n}": "a[?@ == `1`]" for n in range(1_000)},
        {"x": {"each": "a", "fields": {"y": "root.a"}}},
        {"x": {"each": "a", "fields": {"y": "root.a[?@]"}}},
        {"x": {"each": "a", "fields": {"y": "@ | root.a"}}},
        {"x": {"each": "a", "fields": {"y": "item || root.a"}}},
        {"x": {"each": "a", "fields": {"y": {"const": "z" * 200_000}}}},
        {"x": {"each": "a", "fields": {"y": {"path": "b", "default": ["z"] * 2_000}}}},
        {"x": {"each": "a", "fields": {"y": {"each": "root.a", "fields": {"z": "item"}}}}},
        {"x": {"concat": ["a"] * 1_000}},
    ],
)
def test_what_could_take_long_or_grow_large_is_not(fields: Json) -> None:
    """Whatever comes once more for each element, and whatever is long in itself."""
    assert not quick(fields, {"a": list(range(2_000))})
    assert quick(fields, {"a": [1]}) or "const" in repr(fields) or "default" in repr(fields)


def test_a_large_source_is_not_quick() -> None:
    """However little is done with it: even looking at it is work."""
    assert not quick({"x": "a"}, {"a": [1] * 200_000})
    assert not quick({"x": "a"}, {"a": "x" * 10_000_000})


def test_a_stranger_s_conditions_are_plain() -> None:
    """They are held against every document in the process that serves everybody."""
    document: Json = {"when": {"a[?b]": 1}, "fields": {"x": "y"}}
    assert mapping(document).trusted
    with pytest.raises(MappingInvalid) as caught:
        Mapping.compile("m", "a.v1", "b.v1", document, trusted=False)
    assert caught.value.faults[0].pointer == "/when/a[?b]"
