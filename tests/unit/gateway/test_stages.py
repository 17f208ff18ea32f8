"""The stages, one by one; tests/api plays them together."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from decimal import Decimal

import pytest
from tests.unit.gateway.calls import sheet

from signet.core.transform import JSONata, Mapped, Mapping, MappingFailed
from signet.egress import Policy
from signet.gateway import stages
from signet.gateway.ports import MappingStopped
from signet.gateway.stages import Sheet
from signet.receipts.canonical import Json

pytestmark = pytest.mark.anyio


@dataclass
class Runner:
    """Answers what it is told to."""

    answer: Mapped | MappingFailed | MappingStopped
    asked: list[tuple[str, Json]] = field(default_factory=list)

    async def run(self, mapping: Mapping, source: Json) -> Mapped | MappingFailed | MappingStopped:
        """Keep the question."""
        assert isinstance(mapping.body, JSONata)
        self.asked.append((mapping.body.expression, source))
        return self.answer


def _routed(payload: Json, *types: str, **members: object) -> Sheet:
    made = sheet(payload, *types, **members)
    assert stages.find_route(made) is None
    return made


def test_sanitise_composes_and_remembers() -> None:
    """NFC is an input step, its changes named."""
    made = sheet({"sku": "e\u0301"})
    assert stages.sanitise(made) is None
    assert made.payload == {"sku": "\u00e9"}
    assert made.members["nfc_changed"] == ["/sku"]


def test_sanitise_takes_the_word_of_the_text() -> None:
    """Of a body whose text told that it is in NFC, the receipt says the same as of any other."""
    looked, told = sheet({"sku": "e"}), sheet({"sku": "e"})
    told.call.is_normal = True  # type: ignore[misc]
    assert stages.sanitise(looked) is None
    assert stages.sanitise(told) is None
    assert (told.payload, told.members) == (looked.payload, looked.members)


def test_sanitise_leaves_the_plain_profile_alone() -> None:
    """With `jcs` nothing is touched and nothing noted."""
    made = sheet({"sku": "e\u0301"}, canon_profile="jcs")
    assert stages.sanitise(made) is None
    assert made.payload == {"sku": "e\u0301"}
    assert made.members == {}


def test_sanitise_refuses_names_that_meet() -> None:
    """Two names that are one in NFC have no answer."""
    refusal = stages.sanitise(sheet({"e\u0301": 1, "\u00e9": 2}))
    assert refusal is not None
    assert refusal.code == "unicode_invalid"
    assert refusal.faults[0].pointer == "/payload/\u00e9"


def test_a_route_is_noted_by_its_documents() -> None:
    """The receipt names schemas and mapping by content."""
    made = _routed({}, "order.v1", "line.v1")
    assert made.members.keys() == {"schema_in", "schema_out", "map"}
    assert _routed({}).members.keys() == {"schema_in", "schema_out"}


@pytest.mark.parametrize(
    ("types", "code"),
    [
        (("x.v1", "order.v1"), "unknown_type"),
        (("order.v1", "x.v1"), "unknown_type"),
        (("order.v1", "anything.v1"), "unknown_mapping"),
    ],
)
def test_what_is_not_registered_is_refused(types: tuple[str, str], code: str) -> None:
    """Types and mappings are known or the exchange ends."""
    refusal = stages.find_route(sheet({}, *types))
    assert refusal is not None
    assert refusal.code == code


def test_pointers_lead_into_the_request() -> None:
    """A fault of the payload stands below `/payload`, one of the result below `/normalized`."""
    refusal = stages.check_input(_routed({"sku": 1}))
    assert refusal is not None
    assert refusal.faults[0].pointer == "/payload/sku"
    made = _routed({"sku": "A"}, "order.v1", "line.v1")
    made.result = {}
    refusal = stages.check_output(made)
    assert refusal is not None
    assert refusal.faults[0].pointer.startswith("/normalized")


def test_validate_only_has_no_output_to_check() -> None:
    """The payload was held against the same schema already."""
    made = _routed({"sku": "A"})
    made.result = {"nonsense": True}
    assert stages.check_output(made) is None


def test_texts_are_read_in_place() -> None:
    """What is strict JSON becomes its value, what can be mended is, and the rest is left."""
    payload: Json = {"texts": ['{"a":1.10}', "{'a':1}", "1 234", "null"]}
    made = _routed(payload, "texts.v1", "texts.v1")
    stages.read_arguments(made, 64)
    assert made.parsed == {"texts": [{"a": Decimal("1.10")}, {"a": 1}, "1 234", None]}
    assert made.payload == {"texts": ['{"a":1.10}', '{"a":1}', "1 234", "null"]}
    assert [broken.embedded.pointer for broken in made.broken] == ["/texts/2"]
    repair = made.members["repair"]
    assert isinstance(repair, dict)
    assert repair["method"] == "heuristic"


def test_many_texts_take_time_in_proportion() -> None:
    """100,000 texts of one payload are put back at once, and few of many repairs are listed."""
    made = _routed({"texts": ["1"] * 100_000}, "texts.v1", "texts.v1")
    started = time.process_time()
    stages.read_arguments(made, 64)
    assert time.process_time() - started < 30
    assert made.parsed == {"texts": [1] * 100_000}
    made = _routed({"texts": ["{'a':1}"] * 300}, "texts.v1", "texts.v1")
    stages.read_arguments(made, 64)
    assert len(json.dumps(made.members["repair"])) < 20_000


async def test_a_mapping_of_fields_needs_no_runner() -> None:
    """It is applied here, to what was parsed."""
    made = _routed({"sku": "A"}, "order.v1", "line.v1")
    made.parsed = {"sku": "B"}
    runner = Runner(MappingStopped(detail="never"))
    assert await stages.map_payload(made, runner) is None
    assert made.result == {"article": "B"}
    assert runner.asked == []


async def test_a_jsonata_mapping_is_run_elsewhere() -> None:
    """The runner gets expression and source, and its answer is the result or the refusal."""
    for answer, code in (
        (Mapped(value={"sku": "A"}), None),
        (MappingFailed(faults=()), "mapping_failed"),
        (MappingStopped(detail="too long"), "mapping_stopped"),
    ):
        made = _routed({"article": "A"}, "line.v1", "order.v1")
        made.parsed = made.payload
        runner = Runner(answer)
        refusal = await stages.map_payload(made, runner)
        assert (refusal.code if refusal else None) == code
        assert runner.asked == [('{"sku": article}', {"article": "A"})]


def test_settling_fixes_the_canonical_bytes() -> None:
    """The result is in the tenant's profile, and what has no exact form is refused."""
    made = sheet({})
    made.result = {"b": "e\u0301", "a": Decimal("1.0")}
    assert stages.settle(made) is None
    assert made.normalized == '{"a":1,"b":"\u00e9"}'.encode()
    made.result = {"a": Decimal("12345678901234567.89")}
    refusal = stages.settle(made)
    assert refusal is not None
    assert (refusal.code, refusal.faults[0].pointer) == ("mapping_failed", "/normalized/a")


def test_without_a_forward_the_policy_allows() -> None:
    """The receipt still names the policy in force."""
    policy = Policy()
    made = sheet({})
    assert stages.decide(made, policy) is None
    assert made.policy is not None
    assert (made.policy.allowed, made.policy.policy_hash) == (True, policy.hash)
    made = sheet({}, forward_url="https://a.example/")
    assert stages.decide(made, policy) is None
    assert made.policy is None
    refusal = stages.decide(sheet({}, delivery="queued"), policy)
    assert refusal is not None
    assert refusal.code == "delivery_unavailable"
