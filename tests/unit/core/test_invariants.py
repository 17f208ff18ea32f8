"""The guard against a model that mends the syntax and changes the meaning."""

from __future__ import annotations

import pytest

from signet.core.invariants import violations
from signet.receipts.canonical import Json

BROKEN = (
    '{\'id\': "INV-1", amount: 123.45, "currency": "USD", "paid": False, '
    '"customer": {"name": "Acme", "due": "2024-01-31"}, '
    'items: [{"sku": "A", "qty": 1}, {"sku": "B", "qty": -2}] note: \'x y\',}'
)
GOOD = (
    '{"items":[{"sku":"A","qty":1},{"sku":"B","qty":-2}],"id":"INV-1","amount":123.45,'
    '"paid":false,"currency":"USD","note":"x y","customer":{"due":"2024-01-31","name":"Acme"}}'
)


def found(original: str, repaired: str, schema: Json | None = None) -> set[tuple[str, str]]:
    """The code and pointer of every violation."""
    return {(fault.code, fault.pointer) for fault in violations(original, repaired, schema=schema)}


def test_a_faithful_answer_passes_whatever_the_order_of_its_members() -> None:
    """Structured output is written in the schema's order; that changes nothing."""
    assert violations(BROKEN, GOOD) == ()


@pytest.mark.parametrize(
    ("change", "code", "pointer"),
    [
        (("123.45", "124.45"), "semantic_violation_amount", "/amount"),
        (("123.45", "123.5"), "semantic_violation_amount", "/amount"),
        (("123.45", "123.450"), "semantic_violation_amount", "/amount"),
        (("123.45", "-123.45"), "semantic_violation_amount", "/amount"),
        (("123.45", '"123.45"'), "semantic_violation_amount", "/amount"),
        (("-2", "2"), "semantic_violation_amount", "/items/1/qty"),
        (('"USD"', '"EUR"'), "semantic_violation_currency", "/currency"),
        (('"USD"', '"usd"'), "semantic_violation_currency", "/currency"),
        (('"INV-1"', '"INV-01"'), "semantic_violation_identifier", "/id"),
        (("2024-01-31", "2024-31-01"), "semantic_violation_date", "/customer/due"),
        (("2024-01-31", "31 January 2024"), "semantic_violation_date", "/customer/due"),
        (("false", "true"), "semantic_violation", "/paid"),
        (("false", "null"), "semantic_violation", "/paid"),
        (('"x y"', '"x  y"'), "semantic_violation", "/note"),
        (('"note"', '"memo"'), "semantic_violation", "/memo"),
        (('"currency":"USD",', ""), "semantic_violation_currency", "/currency"),
        (('"id":"INV-1",', '"id":"INV-1","dry_run":true,'), "semantic_violation", "/dry_run"),
        (('"qty":1}', '"qty":1,"price":5}'), "semantic_violation_amount", "/items/0/price"),
        (
            ('{"sku":"B","qty":-2}', '{"sku":"A","qty":-2}'),
            *("semantic_violation_identifier", "/items/1/sku"),
        ),
        ((',{"sku":"B","qty":-2}', ""), "semantic_violation_identifier", "/sku"),
    ],
)
def test_a_changed_answer_is_a_violation_with_its_pointer(
    change: tuple[str, str], code: str, pointer: str
) -> None:
    """Changed, rounded, reformatted, renamed, dropped, invented: each is found and placed."""
    assert change[0] in GOOD
    assert (code, pointer) in found(BROKEN, GOOD.replace(*change))


def test_two_values_cannot_change_places() -> None:
    """Both ends of a swap are named."""
    swapped = GOOD.replace('"due":"2024-01-31","name":"Acme"', '"due":"Acme","name":"2024-01-31"')
    assert found(BROKEN, swapped) >= {
        ("semantic_violation_date", "/customer/due"),
        ("semantic_violation", "/customer/name"),
    }


def test_elements_keep_their_order() -> None:
    """An array is a sequence: consistent reordering is still a change."""
    first, second = '{"sku":"A","qty":1}', '{"sku":"B","qty":-2}'
    answer = GOOD.replace(f"{first},{second}", f"{second},{first}")
    assert ("semantic_violation_identifier", "/items/0/sku") in found(BROKEN, answer)


def test_a_member_cannot_move_into_another_object() -> None:
    """The brackets of the original say what belongs where."""
    original = "{'a': {'x': 1}, 'b': {'y': 2, 'x': 3}}"
    assert violations(original, '{"a": {"x": 1}, "b": {"y": 2, "x": 3}}') == ()
    assert found(original, '{"a": {"x": 3}, "b": {"y": 2, "x": 1}}')
    assert found(original, '{"a": {"x": 1, "y": 2}, "b": {"x": 3}}')
    assert found(original, '{"a": {"x": 1}, "b": {"y": 2}, "x": 3}')


@pytest.mark.parametrize(
    ("original", "answer"),
    [
        ('{"amount": 12345', '{"amount": 12345}'),
        ('{"amount": 12345\n', '{"amount": 12345}'),
        ('{"name": "Ac', '{"name": "Ac"}'),
        ('{"name": "Ac', '{"name": "Acme"}'),
        ('{"a": 5 * 3}', '{"a": 15}'),
        ('{"a": 5 * 3}', '{"a": 5}'),
        ('{"a": 7 // 2\n}', '{"a": 7}'),
        ('{"a": 10%}', '{"a": 10}'),
        ('{"a": 10%}', '{"a": 0.1}'),
        ('{"a": (100)}', '{"a": 100}'),
        ('{"a": (100)}', '{"a": -100}'),
        ('{"a": 1 234.50}', '{"a": 1234.50}'),
        ('{"a": 1,234.50}', '{"a": 1234.50}'),
        ('{"a": NaN}', '{"a": null}'),
        ('{"a": undefined}', "{}"),
        ('{"a": 1, "a": 2}', '{"a": 2}'),
        ('{"a": 1} {"a": 2}', '{"a": 1}'),
        ('{"when": 10:30}', '{"when": "10:30:00"}'),
        ('{"a": Decimal("1.5")}', '{"a": "1.5"}'),
        ('{"a": "x", "b": "y"', '{"a": "x\\", \\"b\\": \\"y"}'),
        ('"amount": 5, "currency": "EUR"}', '{"currency": "EUR"}'),
        ('{"a": null}', '{"a": ""}'),
        ('{"a": "null"}', '{"a": null}'),
        ('{"a": {"x": 1, "b": 2}', '{"a": {"x": 1}, "b": 2}'),
        ('{"a": {"x": 1, "b": "c"}', '{"a": {"x": 1, "b": "c"}}'),
        ("hello", '{"a": 1}'),
        ("", "{}"),
        ("5", "[5]"),
        ('currency: EUR\n{"amount": 5}', '{"amount": 5}'),
        ('{"amount": 100} USD', '{"amount": 100}'),
        ("{\"to\": 'x'} amount=5", '{"to": "x"}'),
        ('<parameter=a>5</parameter>{"b": 1}', '{"b": 1}'),
        ('f({"a": 1}, 2)', '{"a": 1}'),
        ('-{"a": 5}', '{"a": 5}'),
        ('{"a": 5} * 2', '{"a": 5}'),
        ('Do not use {"a": 5}', '{"a": 5}'),
        ('{"a": >5}', '{"a": 5}'),
        ('{"a": =5}', '{"a": 5}'),
        ('{"a": =>5}', '{"a": 5}'),
        ('{"a": 5 <USD>}', '{"a": 5}'),
        ("{'a': 'C:\\new'}", '{"a": "C:\\\\new"}'),
    ],
)
def test_what_nobody_can_know_a_model_cannot_know_either(original: str, answer: str) -> None:
    """A plausible guess is a violation like any other."""
    assert violations(original, answer)


@pytest.mark.parametrize(
    ("original", "answer"),
    [
        ('{"a": "he said "hi" to me", "b": 1}', '{"a": "he said \\"hi\\" to me", "b": 1}'),
        ('{"re": "\\d+"}', '{"re": "\\\\d+"}'),
        ('{"date": 2024-01-15}', '{"date": "2024-01-15"}'),
        ('{"status": active}', '{"status": "active"}'),
        ('"amount": 5, "currency": "EUR"', '{"amount": 5, "currency": "EUR"}'),
        ('{"p": 10%}', '{"p": "10%"}'),
    ],
)
def test_a_model_may_mend_what_can_be_checked(original: str, answer: str) -> None:
    """The guard is no stricter than it must be: what stands there as it was is accepted."""
    assert violations(original, answer) == ()


def test_a_type_changes_only_where_the_schema_asks() -> None:
    """The same digits as another type are another value, unless the schema says so."""
    schema: Json = {"type": "object", "properties": {"n": {"type": "integer"}}}
    assert violations('{"n": "12",}', '{"n": 12}', schema=schema) == ()
    assert violations('{"n": "12",}', '{"n": 12}')
    assert violations('{"n": 12,}', '{"n": "12"}')
    assert violations('{"n": "12.0",}', '{"n": 12}', schema=schema)


@pytest.mark.parametrize(
    ("name", "annotation", "code"),
    [
        ("x", {"format": "date"}, "semantic_violation_date"),
        ("x", {"format": "uuid"}, "semantic_violation_identifier"),
        ("x", {"x-signet-subject": "amount"}, "semantic_violation_amount"),
        ("totalPrice", {}, "semantic_violation_amount"),
        ("currency_code", {"x-signet-subject": "currency"}, "semantic_violation_currency"),
        ("createdAt", {}, "semantic_violation_date"),
        ("IBAN", {}, "semantic_violation_identifier"),
        ("colour", {}, "semantic_violation_required"),
    ],
)
def test_the_subject_is_known_from_the_schema_or_the_name(
    name: str, annotation: dict[str, Json], code: str
) -> None:
    """The schema's own annotation first, then its format, then the member's name."""
    schema: Json = {
        "type": "object",
        "required": [name],
        "properties": {name: {"type": "string", **annotation}},
    }
    faults = violations(f"{{{name}: 'a',}}", f'{{"{name}": "b"}}', schema=schema)
    assert [(fault.code, fault.pointer) for fault in faults] == [(code, f"/{name}")]
    assert (faults[0].expected, faults[0].got) == ("a", "b")


def test_an_answer_that_is_not_exact_json_is_a_violation() -> None:
    """Nothing is compared with a text that the strict parser does not read."""
    assert found("{'a': 1}", "{'a': 1}") == {("semantic_violation", "")}


def test_the_number_of_faults_is_bounded() -> None:
    """An answer that has nothing to do with the original does not flood the reader."""
    original = "{" + ", ".join(f"'k{i}': {i}" for i in range(100)) + "}"
    answer = "{" + ", ".join(f'"k{i}": {i + 1}' for i in range(100)) + "}"
    assert len(violations(original, answer, limit=7)) == 7
    assert all(len(fault.got or "") <= 80 for fault in violations(original, answer))
