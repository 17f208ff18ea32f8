"""Pricing is exact, order-free, additive, and says every fault of a bad document with its place."""

from __future__ import annotations

import ast
import json
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import signet
from signet.core.ids import TenantId
from signet.core.pricing import (
    MAX_UNITS,
    MeterPlan,
    ReservedConfigInvalid,
    Tier,
    allocate,
    decimal_text,
    lines,
    load_reserved,
    metered_only,
    moved,
    resolved_table,
    settled,
    total_amount,
)

ROOT = Path(__file__).parents[3]
EXAMPLE = (ROOT / "reserved.json.example").read_bytes()

SINGLE = b"""{
"tenant": "enterprise_customer",
"vex_reserved": 100000,
"fu_reserved": 500000,
"vex_overage_tiers": [
{"threshold": 50000, "price_per_unit": 0.005, "stripe_item": "si_tier1"}
]
}"""


def graduated(reserved: int, *tiers: tuple[int, str]) -> MeterPlan:
    """Build a plan through the door, so that these tests price what a file would."""
    document = {
        "tenant": "t",
        "vex_reserved": reserved,
        "vex_overage_tiers": [{"threshold": n, "price_per_unit": price} for n, price in tiers],
    }
    return load_reserved(json.dumps(document))[TenantId("t")].vex


def volume(reserved: int, *tiers: tuple[int, str]) -> MeterPlan:
    """The same, in volume mode."""
    plan = graduated(reserved, *tiers)
    return MeterPlan(reserved=plan.reserved, reserved_item=None, tiers=plan.tiers, mode="volume")


def tiers_document(*tiers: str) -> str:
    """One tenant with these tiers, as text, because a fault may be in how a number is spelled."""
    return '{"t": {"vex_overage_tiers": [' + ", ".join(tiers) + "]}}"


VEX = graduated(1_000_000, (100_000, "0.008"), (500_000, "0.006"))
FU = graduated(5_000_000, (1_000_000, "0.0005"))
THREE = graduated(1_000, (100, "0.01"), (200, "0.008"), (500, "0.005"))


@pytest.mark.parametrize(
    ("plan", "usage", "exact", "invoice"),
    [
        (VEX, 0, "0", "0.00"),
        (VEX, 1_000_000, "0", "0.00"),
        (VEX, 1_000_001, "0.008", "0.01"),
        (VEX, 1_100_000, "800.000", "800.00"),
        (VEX, 1_100_001, "800.006", "800.01"),
        (VEX, 1_500_000, "3200.000", "3200.00"),
        (VEX, 2_000_000, "6200.000", "6200.00"),
        (FU, 5_000_075, "0.0375", "0.04"),
        (THREE, 1_400, "2.80", "2.80"),
    ],
)
def test_worked_examples(plan: MeterPlan, usage: int, exact: str, invoice: str) -> None:
    """Every worked example of the specification comes out to the cent."""
    of = lines(plan, usage, "USD")
    assert sum((line.exact for line in of), Decimal(0)) == Decimal(exact)
    assert decimal_text(total_amount(of, "USD")) == invoice


@pytest.mark.parametrize(
    ("usage", "parts"),
    [
        (0, (0, 0, 0, 0)),
        (1_000, (1_000, 0, 0, 0)),
        (1_001, (1_000, 1, 0, 0)),
        (1_100, (1_000, 100, 0, 0)),
        (1_101, (1_000, 100, 1, 0)),
        (1_200, (1_000, 100, 100, 0)),
        (1_201, (1_000, 100, 100, 1)),
        (1_500, (1_000, 100, 100, 300)),
        (9_999, (1_000, 100, 100, 8_799)),
    ],
)
def test_a_threshold_is_the_inclusive_cumulative_bound_in_overage_units(
    usage: int, parts: tuple[int, ...]
) -> None:
    """Both neighbours of every bound lie in the right tier, and the highest tier has no end."""
    assert allocate(THREE, usage) == parts


@pytest.mark.parametrize(
    ("usage", "parts"),
    [
        (10, (10, 0, 0)),
        (11, (10, 1, 0)),
        (15, (10, 5, 0)),
        (16, (10, 0, 6)),
        (99, (10, 0, 89)),
    ],
)
def test_volume_puts_all_overage_into_the_tier_it_reaches(
    usage: int, parts: tuple[int, ...]
) -> None:
    """In volume mode one price holds for the whole overage, and the next tier takes all of it."""
    assert allocate(volume(10, (5, "0.02"), (9, "0.01")), usage) == parts


def test_each_line_is_rounded_half_up_once() -> None:
    """Half a cent goes up in each line by itself, and the invoice is the sum of rounded lines."""
    plan = graduated(0, (1, "0.005"), (2, "0.005"), (3, "0.004"))
    of = lines(plan, 3, "USD")
    assert [decimal_text(line.amount) for line in of] == ["0.01", "0.01", "0.00"]
    assert decimal_text(total_amount(of, "USD")) == "0.02"


@pytest.mark.parametrize(("currency", "amount"), [("USD", "1.24"), ("JPY", "1"), ("KWD", "1.236")])
def test_the_minor_unit_is_the_currencys_own(currency: str, amount: str) -> None:
    """Rounding stops at two decimals for dollars, none for yen, three for dinars."""
    plan = graduated(0, (1, "1.2355"))
    assert decimal_text(lines(plan, 1, currency)[0].amount) == amount


def test_the_largest_bill_is_exact() -> None:
    """The most units at the finest price lose no digit."""
    plan = graduated(0, (1, "999999999.999999999999"))
    (line,) = lines(plan, MAX_UNITS, "USD")
    assert Fraction(line.exact) == Fraction(MAX_UNITS * (10**21 - 1), 10**12)


# Laws.

bounds = st.lists(st.integers(1, 5_000), min_size=1, max_size=6, unique=True)
plans = st.builds(
    lambda reserved, of, mode: MeterPlan(
        reserved=reserved,
        reserved_item=None,
        tiers=tuple(
            Tier(
                number=n,
                up_to=None if n == len(of) else up_to,
                price=Decimal(n) / 1000,
                item=f"si_{n}",
            )
            for n, up_to in enumerate(sorted(of), start=1)
        ),
        mode=mode,
    ),
    st.integers(0, 5_000),
    bounds,
    st.sampled_from(["graduated", "volume"]),
)
totals = st.integers(0, 20_000)


@given(plans, totals)
def test_bands_add_up(plan: MeterPlan, total: int) -> None:
    """No unit is lost or counted twice, and the tiers hold exactly what passes the reserve."""
    parts = allocate(plan, total)
    assert sum(parts) == total
    assert min(parts) >= 0
    assert sum(parts[1:]) == max(0, total - plan.reserved)


@given(plans, st.lists(totals, min_size=2, max_size=12))
def test_moves_telescope(plan: MeterPlan, path: list[int]) -> None:
    """However a total wanders, ups and downs add up to the move from its first to its last."""
    steps = [moved(plan, a, b) for a, b in pairwise(path)]
    assert tuple(map(sum, zip(*steps, strict=True))) == moved(plan, path[0], path[-1])


batches = st.lists(st.integers(0, 3_000), max_size=10)


@given(plans, batches.flatmap(lambda of: st.tuples(st.just(of), st.permutations(of))))
def test_order_and_batching_do_not_matter(
    plan: MeterPlan, arrivals: tuple[list[int], list[int]]
) -> None:
    """The same units in any order and any batches give the same total in every band."""
    in_order, shuffled = arrivals
    for order in (in_order, shuffled, [sum(in_order)]):
        total, held = 0, allocate(plan, 0)
        for units in order:
            gained = moved(plan, total, total + units)
            held = tuple(a + b for a, b in zip(held, gained, strict=True))
            total += units
        assert held == allocate(plan, sum(in_order))


@given(plans, totals)
def test_a_settled_plan_says_the_same_of_its_total(plan: MeterPlan, total: int) -> None:
    """Once the total is final, volume is one tier without end, and graduated is as it was."""
    final = settled(plan, total)
    shown = {tier.number: n for tier, n in zip(final.bands, allocate(final, total), strict=True)}
    wanted = {tier.number: n for tier, n in zip(plan.bands, allocate(plan, total), strict=True)}
    assert {k: n for k, n in shown.items() if n} == {k: n for k, n in wanted.items() if n}
    assert final.mode == "graduated"


@given(plans, totals, totals)
def test_graduated_cost_is_monotone(plan: MeterPlan, one: int, other: int) -> None:
    """More usage never costs less while tiers are graduated."""
    if plan.mode == "graduated":
        less, more = sorted((one, other))
        cost = [sum(line.exact for line in lines(plan, n, "USD")) for n in (less, more)]
        assert cost[0] <= cost[1]


@given(st.permutations(range(5)))
def test_file_order_means_nothing(order: list[int]) -> None:
    """Tiers in any order load as the same plan with the same hash."""
    tiers = [{"threshold": (n + 1) * 10, "price_per_unit": f"0.{n}"} for n in range(5)]
    document = {"tenant": "t", "vex_overage_tiers": [tiers[n] for n in order]}
    plan = load_reserved(json.dumps(document))[TenantId("t")]
    assert [tier.up_to for tier in plan.vex.tiers] == [10, 20, 30, 40, None]
    sorted_plan = load_reserved(json.dumps({"tenant": "t", "vex_overage_tiers": tiers}))
    assert plan.cid == sorted_plan[TenantId("t")].cid


# The document.


def test_the_published_example_loads_unchanged() -> None:
    """The example at the root is the published one, and every number in it is read exactly."""
    (plan,) = load_reserved(EXAMPLE).values()
    assert plan.tenant == "enterprise"
    assert (plan.vex.reserved, plan.fu.reserved) == (1_000_000, 5_000_000)
    assert plan.vex.tiers == (
        Tier(number=1, up_to=100_000, price=Decimal("0.008"), item="si_ent_vex_t1"),
        Tier(number=2, up_to=None, price=Decimal("0.006"), item="si_ent_vex_t2"),
    )
    assert plan.fu.tiers == (
        Tier(number=1, up_to=None, price=Decimal("0.0005"), item="si_ent_fu_t1"),
    )
    assert (plan.currency, plan.zone, plan.customer) == ("USD", "UTC", None)


def test_the_one_tenant_form_loads_unchanged() -> None:
    """The published one-tenant form loads too; a meter without tiers counts overage at nothing."""
    (plan,) = load_reserved(SINGLE).values()
    assert plan.tenant == "enterprise_customer"
    assert plan.vex.tiers[0].price == Decimal("0.005")
    assert allocate(plan.fu, 500_007) == (500_000, 7)
    assert total_amount(lines(plan.fu, 500_007, "USD"), "USD") == 0


def test_a_tenant_may_be_called_tenant() -> None:
    """Only a string under "tenant" makes the one-tenant form."""
    plans = load_reserved(b'{"tenant": {"vex_reserved": 7}}')
    assert plans[TenantId("tenant")].vex.reserved == 7


def test_all_optional_members() -> None:
    """Currency, zone, customer, reserve items and tier mode are read."""
    (plan,) = load_reserved(
        b"""{"a": {"tenant": "a", "currency": "eur", "timezone": "Europe/Berlin",
        "stripe_customer": "cus_1", "vex_reserved_item": "price_a", "fu_reserved_item": "mtr_b",
        "tier_mode": "volume",
        "vex_overage_tiers": [{"threshold": 1, "price_per_unit": "0.10"}]}}"""
    ).values()
    assert (plan.currency, plan.zone, plan.customer) == ("EUR", "Europe/Berlin", "cus_1")
    assert (plan.vex.reserved_item, plan.fu.reserved_item) == ("price_a", "mtr_b")
    assert plan.vex.mode == plan.fu.mode == "volume"
    assert plan.vex.tiers[0].item is None


@pytest.mark.parametrize("document", [EXAMPLE, SINGLE], ids=["mapping", "single"])
def test_a_plans_document_is_the_plan(document: bytes) -> None:
    """A plan's canonical document loads again as the same plan, with the same hash."""
    for tenant, plan in load_reserved(document).items():
        again = load_reserved(plan.document)[tenant]
        assert again == plan
        assert again.cid == plan.cid


def test_spelling_does_not_change_the_hash_but_price_does() -> None:
    """0.008 and "0.0080" are one price with one hash; 0.0081 is another."""
    one, same, other = (
        load_reserved(tiers_document(f'{{"threshold": 9, "price_per_unit": {price}}}'))[
            TenantId("t")
        ].cid
        for price in ("0.008", '"0.0080"', "0.0081")
    )
    assert one == same != other


def test_a_tenant_without_reserve_is_counted_and_not_priced() -> None:
    """All units of a merely metered tenant go to its one item and cost nothing in a statement."""
    plan = metered_only(TenantId("t"), vex_item="si_a", fu_item=None)
    assert [band.item for band in plan.vex.bands] == ["si_a", None]
    assert allocate(plan.vex, 10**12) == (10**12, 0)
    assert load_reserved(plan.document)[TenantId("t")] == plan


def test_the_resolved_table_reads_as_the_file_was_understood() -> None:
    """The start log shows each tier's range, price and destination."""
    (plan,) = load_reserved(EXAMPLE).values()
    assert resolved_table(plan) == (
        "enterprise vex units 1 to 100000 over 1000000: 0.008 USD each -> si_ent_vex_t1",
        "enterprise vex units 100001 and up over 1000000: 0.006 USD each -> si_ent_vex_t2",
        "enterprise fu units 1 and up over 5000000: 0.0005 USD each -> si_ent_fu_t1",
    )


GOOD = '{"threshold": 10, "price_per_unit": 0.5}'
T0 = "/t/vex_overage_tiers/0"


@pytest.mark.parametrize(
    ("document", "place", "code"),
    [
        ("[]", "", "wrong_type"),
        ("7", "", "wrong_type"),
        ('{"t": 7}', "/t", "wrong_type"),
        ('{"t": {"x/~": 1}}', "/t/x~1~0", "unknown_member"),
        ('{"t": {"vex_reserve": 1}}', "/t/vex_reserve", "unknown_member"),
        ('{"tenant": "t", "extra": 1}', "/extra", "unknown_member"),
        ('{"tenant": "-t"}', "/tenant", "tenant_invalid"),
        ('{"_t": {}}', "/_t", "tenant_invalid"),
        ('{"t": {"tenant": "u"}}', "/t/tenant", "tenant_conflict"),
        ('{"t": {"vex_reserved": -1}}', "/t/vex_reserved", "out_of_range"),
        ('{"t": {"vex_reserved": 1e3}}', "/t/vex_reserved", "wrong_type"),
        ('{"t": {"fu_reserved": 1.5}}', "/t/fu_reserved", "wrong_type"),
        ('{"t": {"fu_reserved": "1"}}', "/t/fu_reserved", "wrong_type"),
        ('{"t": {"fu_reserved": true}}', "/t/fu_reserved", "wrong_type"),
        ('{"t": {"fu_reserved": null}}', "/t/fu_reserved", "wrong_type"),
        ('{"t": {"currency": "ZZZ"}}', "/t/currency", "currency_unknown"),
        ('{"t": {"currency": 7}}', "/t/currency", "wrong_type"),
        ('{"t": {"timezone": "Mars/Olympus"}}', "/t/timezone", "timezone_unknown"),
        ('{"t": {"timezone": "../../etc/passwd"}}', "/t/timezone", "timezone_unknown"),
        ('{"t": {"timezone": "/etc/passwd"}}', "/t/timezone", "timezone_unknown"),
        ('{"t": {"tier_mode": "package"}}', "/t/tier_mode", "wrong_value"),
        ('{"t": {"stripe_customer": "acct_1"}}', "/t/stripe_customer", "customer_invalid"),
        ('{"t": {"vex_reserved_item": "prod_1"}}', "/t/vex_reserved_item", "item_invalid"),
        ('{"t": {"vex_reserved_item": "si_a b"}}', "/t/vex_reserved_item", "item_invalid"),
        ('{"t": {"vex_reserved_item": "price_1"}}', "/t/stripe_customer", "missing_member"),
        ('{"t": {"vex_overage_tiers": {}}}', "/t/vex_overage_tiers", "wrong_type"),
        (tiers_document("7"), T0, "wrong_type"),
        (tiers_document(GOOD, GOOD), "/t/vex_overage_tiers/1/threshold", "threshold_duplicate"),
    ],
)  # fmt: skip
def test_a_bad_document_names_the_place(document: str, place: str, code: str) -> None:
    """Each fault is refused with its JSON Pointer and a stable code, and is the only one told."""
    with pytest.raises(ReservedConfigInvalid) as caught:
        load_reserved(document)
    assert [(fault.pointer, fault.code) for fault in caught.value.faults] == [(place, code)]
    assert place in str(caught.value)


@pytest.mark.parametrize(
    ("member", "value", "code"),
    [
        ("threshold", "0", "out_of_range"),
        ("threshold", "-5", "out_of_range"),
        ("threshold", "1.5", "wrong_type"),
        ("threshold", '"9"', "wrong_type"),
        ("threshold", "true", "wrong_type"),
        ("price_per_unit", "-1", "out_of_range"),
        ("price_per_unit", "1e10", "out_of_range"),
        ("price_per_unit", "1e-13", "out_of_range"),
        ("price_per_unit", "true", "wrong_type"),
        ("price_per_unit", "null", "wrong_type"),
        ("price_per_unit", '"NaN"', "wrong_type"),
        ("price_per_unit", '"1e3"', "wrong_type"),
        ("price_per_unit", '"-1"', "wrong_type"),
        ("price_per_unit", '"\u0661"', "wrong_type"),
        ("stripe_item", '"x"', "item_invalid"),
        ("stripe_item", "7", "wrong_type"),
        ("up_to", "3", "unknown_member"),
    ],
)
def test_a_bad_tier_names_the_member(member: str, value: str, code: str) -> None:
    """A threshold that is no positive whole number, or a price that is none, is refused there."""
    members = {"threshold": "9", "price_per_unit": "0.5", member: value}
    tier = ", ".join(f'"{name}": {text}' for name, text in members.items())
    with pytest.raises(ReservedConfigInvalid) as caught:
        load_reserved(tiers_document(f"{{{tier}}}"))
    (fault,) = caught.value.faults
    assert (fault.pointer, fault.code) == (f"{T0}/{member}", code)


@pytest.mark.parametrize("member", ["threshold", "price_per_unit"])
def test_a_tier_needs_its_bound_and_its_price(member: str) -> None:
    """Neither is ever guessed."""
    tier = {"threshold": 1, "price_per_unit": 2}
    del tier[member]
    with pytest.raises(ReservedConfigInvalid) as caught:
        load_reserved(tiers_document(json.dumps(tier)))
    (fault,) = caught.value.faults
    assert (fault.pointer, fault.code) == (f"{T0}/{member}", "missing_member")


@pytest.mark.parametrize(
    "document",
    [
        "",
        "{",
        '{"t": {"vex_reserved": NaN}}',
        '{"t": {"vex_reserved": Infinity}}',
        '{"t": {"vex_reserved": 1e999990}}',
        '{"t": {"vex_reserved": 1, "vex_reserved": 2}}',
        '{"t": {}} {"u": {}}',
        "[" * 100_000,
        '{"t": {"vex_reserved": 99999999999999999999}}',
        tiers_document('{"threshold": 1, "price_per_unit": 0.12345678901234567890}'),
    ],
)
def test_what_is_not_strict_json_is_refused(document: str) -> None:
    """NaN, duplicates, trailing values, depth bombs and inexact numbers never become a price."""
    with pytest.raises(ReservedConfigInvalid) as caught:
        load_reserved(document)
    assert len(caught.value.faults) == 1


def test_every_fault_is_told_at_once() -> None:
    """One look at the error shows all that must be mended, in every tenant."""
    with pytest.raises(ReservedConfigInvalid) as caught:
        load_reserved(
            """{"a": {"vex_reserved": -1, "currency": "XXZ", "nope": 1},
                "b": {"fu_overage_tiers": [{"threshold": 0, "price_per_unit": "x"}]}}"""
        )
    assert {fault.pointer for fault in caught.value.faults} == {
        "/a/vex_reserved",
        "/a/currency",
        "/a/nope",
        "/b/fu_overage_tiers/0/threshold",
        "/b/fu_overage_tiers/0/price_per_unit",
    }


@pytest.mark.parametrize(
    "document",
    [
        '{"a": {"vex_reserved_item": "si_1", "fu_reserved_item": "si_1"}}',
        '{"a": {"vex_reserved_item": "si_1"}, "b": {"fu_reserved_item": "si_1"}}',
        '{"a": {"stripe_customer": "cus_1", "vex_reserved_item": "mtr_1"},'
        ' "b": {"stripe_customer": "cus_1", "vex_reserved_item": "mtr_1"}}',
    ],
)
def test_one_item_never_counts_two_tiers(document: str) -> None:
    """Two tiers on one Stripe item would overwrite each other's totals, so they are refused."""
    with pytest.raises(ReservedConfigInvalid, match="already counts another tier"):
        load_reserved(document)


def test_one_meter_may_serve_two_customers() -> None:
    """A meter's totals are per customer, so two tenants may share it."""
    plans = load_reserved(
        '{"a": {"stripe_customer": "cus_1", "vex_reserved_item": "mtr_1"},'
        ' "b": {"stripe_customer": "cus_2", "vex_reserved_item": "mtr_1"}}'
    )
    assert len(plans) == 2


SOURCE = Path(str(signet.__file__)).parent
OF_MONEY = sorted(
    path
    for pattern in (
        "core/billing.py",
        "core/pricing.py",
        "core/units.py",
        "gateway/billing.py",
        "gateway/events.py",
        "gateway/metering.py",
        "gateway/plans.py",
        "gateway/reconciliation.py",
        "gateway/statements.py",
        "gateway/usage.py",
        "providers/stripe.py",
        "receipts/statement.py",
        "storage/billing.py",
        "storage/outbox.py",
        "storage/quota.py",
        "storage/reserved.py",
        "storage/usage.py",
        "workers/billing.py",
        "api/routes/billing.py",
        "api/routes/usage.py",
        "cli/billing.py",
        "cli/usage.py",
    )
    for path in SOURCE.glob(pattern)
)
FROM_JSON = {"stripe.py": "_whole"}
"""Functions that make a whole number of what another one's JSON parser read, or refuse."""


class WithoutSeconds(ast.NodeTransformer):
    """Takes out what says how long something may take: names in `_s`, and annotations."""

    def __init__(self, allowed: str | None) -> None:
        self.allowed = allowed

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | None:
        node.returns = None
        return None if node.name == self.allowed else self.generic_visit(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_keyword(self, node: ast.keyword) -> ast.AST | None:
        return None if (node.arg or "").endswith("_s") else self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if ast.unparse(node.target).lower().endswith("_s"):
            return None
        node.annotation = ast.Name("object")
        return self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        seconds = ast.unparse(node.targets[0]).lower().endswith("_s")
        return None if seconds else self.generic_visit(node)


@pytest.mark.parametrize("path", OF_MONEY, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_no_float_is_on_the_path(path: Path) -> None:
    """The modules of money hold no float literal, no float(), no round() and no true division."""
    tree = WithoutSeconds(FROM_JSON.get(path.name)).visit(ast.parse(path.read_text("utf-8")))
    for node in ast.walk(tree):
        at = f"line {getattr(node, 'lineno', '?')}"
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float)), at
        assert not (isinstance(node, ast.Name) and node.id in ("float", "round")), at
        assert not isinstance(node, ast.Div), at


def test_every_module_of_money_is_looked_at() -> None:
    """None of them has been renamed out of sight."""
    assert len(OF_MONEY) == 22
