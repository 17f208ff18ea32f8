"""What usage costs: reserved capacity, overage tiers, the lines of an invoice.

The document is what `SP_RESERVED_CONFIG` holds. Tiers are graduated, as Stripe's `up_to`: a
`threshold` is the inclusive upper bound of its tier, cumulative, counted in units *over* the
reserve; the highest tier is open-ended; the order in the file means nothing. Prices are `Decimal`
and units are `int`: nothing on this path is ever a float, and each line is rounded once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Context, Decimal, Inexact, InvalidOperation, Overflow
from functools import cached_property
from itertools import pairwise
from types import MappingProxyType
from typing import Final, Literal, cast
from zoneinfo import ZoneInfo

from signet.core.errors import Fault, SignetError
from signet.core.ids import TENANT_ID, TenantId
from signet.core.units import UnknownCurrency, exponent
from signet.receipts.canonical import Json, canonicalize, content_id, parse, pointer
from signet.receipts.errors import ParseError

Meter = Literal["vex", "fu"]
"""VEx: one allowed exchange. FU: one token spent on a fallback repair."""
TierMode = Literal["graduated", "volume"]

METERS: Final[tuple[Meter, ...]] = ("vex", "fu")
MAX_UNITS: Final = 2**53 - 1
"""The largest count that every JSON reader keeps exact (RFC 7493 §2.2)."""
MAX_PRICE: Final = 10**9
MAX_PRICE_DECIMALS: Final = 12

# The widest product is 16 digits of units by 22 of price. A result that did not fit would raise
# `Inexact` instead of being rounded in silence.
_EXACT: Final = Context(prec=48, traps=[Inexact, InvalidOperation, Overflow])
_ROUNDED: Final = Context(prec=48, rounding=ROUND_HALF_UP, traps=[InvalidOperation, Overflow])

_DECIMAL: Final = re.compile(r"(0|[1-9][0-9]{0,15})(\.[0-9]{1,24})?")
_ITEM: Final = re.compile(r"(si|price|mtr)_[A-Za-z0-9_]{1,200}")
_CUSTOMER: Final = re.compile(r"cus_[A-Za-z0-9_]{1,200}")


class ReservedConfigInvalid(SignetError):
    """The reserved-capacity document cannot be used; `faults` name every place."""

    code = "reserved_config_invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """One price band of overage units.

    `number` counts from 1 upwards; 0 is the reserve itself. `up_to` is the inclusive cumulative
    bound, None for the open-ended highest tier. `item` is where Stripe counts the tier's units
    (`si_…`, `price_…` or `mtr_…`); None means that only the statement does.
    """

    number: int
    up_to: int | None
    price: Decimal
    item: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterPlan:
    """How one meter of one tenant is priced; `tiers` ascend and are never empty."""

    reserved: int
    reserved_item: str | None
    tiers: tuple[Tier, ...]
    mode: TierMode

    @property
    def agreed_reserve(self) -> int | None:
        """What the tenant has reserved; None where it is metered only, in a reserve without end."""
        return None if self.reserved == MAX_UNITS else self.reserved

    @property
    def bands(self) -> tuple[Tier, ...]:
        """Return the reserve as band 0, at no price, and then the tiers."""
        reserve = Tier(number=0, up_to=None, price=Decimal(0), item=self.reserved_item)
        return (reserve, *self.tiers)


@dataclass(frozen=True, kw_only=True)
class TenantPlan:
    """What one tenant has agreed to pay. `zone` is the IANA zone of its calendar months."""

    tenant: TenantId
    vex: MeterPlan
    fu: MeterPlan
    currency: str
    zone: str
    customer: str | None

    def meter(self, meter: Meter) -> MeterPlan:
        """Return the plan of one meter."""
        return self.vex if meter == "vex" else self.fu

    @cached_property
    def document(self) -> bytes:
        """The canonical bytes that load again as this same plan, however its file was written."""
        return canonicalize(_document(self))

    @cached_property
    def cid(self) -> str:
        """The hash that a billing period pins at its first unit."""
        return content_id(self.document)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of an invoice: `units` in one tier, `exact` and then rounded half up, once."""

    tier: Tier
    units: int
    exact: Decimal
    amount: Decimal


# What a total of units amounts to.


def allocate(plan: MeterPlan, total: int) -> tuple[int, ...]:
    """Split `total` units over the plan's bands: the reserve first, then each tier.

    The parts add up to `total`. In `volume` mode the whole overage lies in the one tier that its
    size reaches.
    """
    over = max(0, total - plan.reserved)
    parts = [total - over]
    reached = 0
    for tier in plan.tiers:
        bound = over if tier.up_to is None else min(over, tier.up_to)
        parts.append(bound - reached)
        reached = bound
    if plan.mode == "volume" and over:
        last = max(index for index, part in enumerate(parts) if part and index)
        parts[1:] = [over if index == last else 0 for index in range(1, len(parts))]
    return tuple(parts)


def moved(plan: MeterPlan, before: int, after: int) -> tuple[int, ...]:
    """Return how many units each band gains when a period's total goes from `before` to `after`.

    It is `allocate(after) - allocate(before)`, so the sum over any split, order, batch or
    correction of the same units is the same. A negative part takes units back.
    """
    old, new = allocate(plan, before), allocate(plan, after)
    return tuple(now - then for then, now in zip(old, new, strict=True))


def settled(plan: MeterPlan, total: int) -> MeterPlan:
    """Return the graduated plan that allocates this very total alike.

    In `volume` mode it has the one tier that the total reaches, so that units can be given to
    tiers one after the other once the total is final.
    """
    if plan.mode == "graduated":
        return plan
    parts = allocate(plan, total)[1:]
    reached = next((t for t, part in zip(plan.tiers, parts, strict=True) if part), plan.tiers[0])
    return replace(plan, tiers=(replace(reached, up_to=None),), mode="graduated")


def lines(plan: MeterPlan, total: int, currency: str) -> tuple[Line, ...]:
    """Return what `total` units of a period cost, one line for each tier that has units."""
    units = allocate(plan, total)[1:]
    return tuple(
        priced(tier, count, currency)
        for tier, count in zip(plan.tiers, units, strict=True)
        if count
    )


def priced(tier: Tier, units: int, currency: str) -> Line:
    """Return what `units` cost in one tier: exact, and rounded half up to the minor unit, once."""
    exact = _EXACT.multiply(Decimal(units), tier.price)
    amount = exact.quantize(Decimal(1).scaleb(-exponent(currency)), context=_ROUNDED)
    return Line(tier=tier, units=units, exact=exact, amount=amount)


def total_amount(of: Iterable[Line], currency: str) -> Decimal:
    """Return the sum of the rounded lines: what the invoice says."""
    amount = Decimal(0).scaleb(-exponent(currency))
    for line in of:
        amount = _EXACT.add(amount, line.amount)
    return amount


def difference(later: Decimal, earlier: Decimal) -> Decimal:
    """Return by how much an amount has grown, exactly."""
    return _EXACT.subtract(later, earlier)


def decimal_text(value: Decimal) -> str:
    """Return the plain digits of a price or an amount, never an exponent: "0.0005"."""
    return format(value, "f")


# The document.


def load_reserved(data: bytes | str) -> Mapping[TenantId, TenantPlan]:
    """Read a reserved-capacity document, as it stands in the file.

    Both published forms are read: an object of tenants, and one tenant's object with a `tenant`
    member in it. Raises `ReservedConfigInvalid` with every fault of the document at once.
    """
    try:
        document = parse(data)
    except ParseError as error:
        fault = Fault(pointer=error.pointer or "", code=error.code, detail=str(error))
        raise ReservedConfigInvalid(
            f"the reserved-capacity document is not JSON that can be trusted: {error}",
            faults=(fault,),
        ) from error
    reader = _Reader()
    plans = tuple(reader.plans(document))
    reader.refuse_shared_items(plans)
    if reader.faults:
        places = "; ".join(f"at {f.pointer or '/'}: {f.detail}" for f in reader.faults)
        raise ReservedConfigInvalid(
            f"the reserved-capacity document cannot be used: {places}",
            faults=tuple(reader.faults),
        )
    return MappingProxyType({plan.tenant: plan for _, plan in plans})


def metered_only(
    tenant: TenantId, *, vex_item: str | None, fu_item: str | None, customer: str | None = None
) -> TenantPlan:
    """Return the plan of a tenant that has no reserve: Stripe alone prices what its items count.

    Every unit lies in a reserve without end, so the statement lists it and charges nothing.
    """

    def plan(item: str | None) -> MeterPlan:
        return MeterPlan(
            reserved=MAX_UNITS, reserved_item=item, tiers=(_UNPRICED,), mode="graduated"
        )

    return TenantPlan(
        tenant=tenant,
        vex=plan(vex_item),
        fu=plan(fu_item),
        currency="USD",
        zone="UTC",
        customer=customer,
    )


def items(plan: TenantPlan) -> Iterator[str]:
    """Yield every Stripe item that a plan names."""
    for meter in METERS:
        for band in plan.meter(meter).bands:
            if band.item is not None:
                yield band.item


def resolved_table(plan: TenantPlan) -> tuple[str, ...]:
    """Return the plan's tiers as sentences, so that a start log shows how a file was understood."""
    return tuple(
        f"{plan.tenant} {meter} {_range(tier, below)} over {plan.meter(meter).reserved}: "
        f"{decimal_text(tier.price)} {plan.currency} each -> {tier.item or 'statement only'}"
        for meter in METERS
        for below, tier in pairwise(plan.meter(meter).bands)
    )


def _range(tier: Tier, below: Tier) -> str:
    first = (below.up_to or 0) + 1
    return f"units {first} to {tier.up_to}" if tier.up_to else f"units {first} and up"


# Overage that no tier prices is still counted, at nothing.
_UNPRICED: Final = Tier(number=1, up_to=None, price=Decimal(0), item=None)

_PLAN_MEMBERS: Final = frozenset(
    {
        *("tenant", "currency", "timezone", "stripe_customer", "tier_mode"),
        *(f"{meter}_{name}" for meter in METERS for name in ("reserved", "overage_tiers")),
        *(f"{meter}_reserved_item" for meter in METERS),
    }
)
_TIER_MEMBERS: Final = frozenset({"threshold", "price_per_unit", "stripe_item"})


def _document(plan: TenantPlan) -> dict[str, Json]:
    document: dict[str, Json] = {
        "tenant": plan.tenant,
        "currency": plan.currency,
        "timezone": plan.zone,
        "tier_mode": plan.vex.mode,
    }
    if plan.customer is not None:
        document["stripe_customer"] = plan.customer
    for meter in METERS:
        of = plan.meter(meter)
        document[f"{meter}_reserved"] = of.reserved
        if of.reserved_item is not None:
            document[f"{meter}_reserved_item"] = of.reserved_item
        if of.tiers != (_UNPRICED,):
            document[f"{meter}_overage_tiers"] = [_tier_document(tier, of) for tier in of.tiers]
    return document


def _tier_document(tier: Tier, of: MeterPlan) -> dict[str, Json]:
    # The highest tier's own threshold bounds nothing, so any number above the others says the same.
    open_ended = 1 + max((t.up_to or 0 for t in of.tiers), default=0)
    document: dict[str, Json] = {
        "threshold": tier.up_to or open_ended,
        "price_per_unit": decimal_text(tier.price),
    }
    if tier.item is not None:
        document["stripe_item"] = tier.item
    return document


class _Reader:
    """Reads the document and goes on after a fault, so that one look shows them all."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def fault(self, place: str, code: str, detail: str) -> None:
        self.faults.append(Fault(pointer=place, code=code, detail=detail))

    def plans(self, document: Json) -> Iterator[tuple[str, TenantPlan]]:
        """Yield each tenant's plan with the place where it stands."""
        if not isinstance(document, dict):
            self.fault("", "wrong_type", "expected an object of tenants")
        elif isinstance(document.get("tenant"), str):
            yield "", self.plan("", document, cast(str, document["tenant"]))
        else:
            for name, members in document.items():
                yield pointer(name), self.named_plan(name, members)

    def named_plan(self, name: str, members: Json) -> TenantPlan:
        place = pointer(name)
        if not isinstance(members, dict):
            self.fault(place, "wrong_type", "expected an object: the tenant's plan")
            members = {}
        if members.get("tenant", name) != name:
            self.fault(place + "/tenant", "tenant_conflict", f"expected {name!r}, as the key says")
        return self.plan(place, members, name)

    def plan(self, place: str, members: dict[str, Json], tenant: str) -> TenantPlan:
        self.known_members(place, members, _PLAN_MEMBERS)
        if not TENANT_ID.fullmatch(tenant):
            where = place if place else "/tenant"
            self.fault(where, "tenant_invalid", "expected letters, digits, dot, dash, underscore")
        mode = self.text(place, members, "tier_mode") or "graduated"
        if mode not in ("graduated", "volume"):
            self.fault(place + "/tier_mode", "wrong_value", 'expected "graduated" or "volume"')
        plan = TenantPlan(
            tenant=TenantId(tenant),
            vex=self.meter_plan(place, members, "vex", cast(TierMode, mode)),
            fu=self.meter_plan(place, members, "fu", cast(TierMode, mode)),
            currency=self.currency(place, members),
            zone=self.zone(place, members),
            customer=self.customer(place, members),
        )
        self.require_customer(place, plan)
        return plan

    def meter_plan(
        self, place: str, members: dict[str, Json], meter: Meter, mode: TierMode
    ) -> MeterPlan:
        return MeterPlan(
            reserved=self.count(place, members, f"{meter}_reserved", least=0) or 0,
            reserved_item=self.item(place, members, f"{meter}_reserved_item"),
            tiers=self.tiers(place, members, f"{meter}_overage_tiers"),
            mode=mode,
        )

    def tiers(self, place: str, members: dict[str, Json], name: str) -> tuple[Tier, ...]:
        place += pointer(name)
        entries = members.get(name, [])
        if not isinstance(entries, list):
            self.fault(place, "wrong_type", "expected a list of tiers")
            entries = []
        read: dict[int, tuple[Decimal, str | None]] = {}
        for index, entry in enumerate(entries):
            at = place + pointer(str(index))
            if not isinstance(entry, dict):
                self.fault(at, "wrong_type", "expected an object: a tier")
                continue
            self.known_members(at, entry, _TIER_MEMBERS)
            threshold = self.count(at, entry, "threshold", least=1)
            band = (self.price(at, entry), self.item(at, entry, "stripe_item"))
            if threshold is None:
                self.missing(at, entry, "threshold")
            elif threshold in read:
                where = at + "/threshold"
                self.fault(
                    where, "threshold_duplicate", f"another tier already ends at {threshold}"
                )
            else:
                read[threshold] = band
        ordered = sorted(read)
        return tuple(
            Tier(number=n, up_to=None if up_to == ordered[-1] else up_to, price=price, item=item)
            for n, up_to in enumerate(ordered, start=1)
            for price, item in (read[up_to],)
        ) or (_UNPRICED,)

    def known_members(self, place: str, members: dict[str, Json], known: frozenset[str]) -> None:
        for name in sorted(members.keys() - known):
            expected = ", ".join(sorted(known))
            self.fault(place + pointer(name), "unknown_member", f"expected one of {expected}")

    def missing(self, place: str, members: dict[str, Json], name: str) -> None:
        if name not in members:
            self.fault(place + pointer(name), "missing_member", f"{name} is required")

    def count(self, place: str, members: dict[str, Json], name: str, *, least: int) -> int | None:
        """Read a whole number; None when the member is absent or was a fault."""
        where = place + pointer(name)
        value = members.get(name, least)
        if not isinstance(value, int) or isinstance(value, bool):
            self.fault(where, "wrong_type", "expected a whole number")
        elif not least <= value <= MAX_UNITS:
            self.fault(where, "out_of_range", f"expected {least} to {MAX_UNITS}")
        elif name in members:
            return value
        return None

    def price(self, place: str, members: dict[str, Json]) -> Decimal:
        """Read an exact price; a string carries more digits than a JSON number safely does."""
        where = place + "/price_per_unit"
        value = members.get("price_per_unit", 0)
        self.missing(place, members, "price_per_unit")
        if isinstance(value, str) and _DECIMAL.fullmatch(value):
            value = Decimal(value)
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            self.fault(where, "wrong_type", 'expected a number, or its digits such as "0.008"')
        elif not 0 <= value <= MAX_PRICE:
            self.fault(where, "out_of_range", f"expected 0 to {MAX_PRICE}")
        elif _decimals(Decimal(value)) > MAX_PRICE_DECIMALS:
            self.fault(where, "out_of_range", f"expected at most {MAX_PRICE_DECIMALS} decimals")
        else:
            return _plain(Decimal(value))
        return Decimal(0)

    def text(self, place: str, members: dict[str, Json], name: str) -> str | None:
        value = members.get(name)
        if name in members and not isinstance(value, str):
            self.fault(place + pointer(name), "wrong_type", "expected a string")
        return value if isinstance(value, str) else None

    def item(self, place: str, members: dict[str, Json], name: str) -> str | None:
        value = self.text(place, members, name)
        if value is None or _ITEM.fullmatch(value):
            return value
        detail = "expected a Stripe id: si_…, price_… or mtr_…"
        self.fault(place + pointer(name), "item_invalid", detail)
        return None

    def customer(self, place: str, members: dict[str, Json]) -> str | None:
        value = self.text(place, members, "stripe_customer")
        if value is not None and not _CUSTOMER.fullmatch(value):
            self.fault(
                place + "/stripe_customer", "customer_invalid", "expected a Stripe id: cus_…"
            )
        return value

    def currency(self, place: str, members: dict[str, Json]) -> str:
        value = (self.text(place, members, "currency") or "USD").upper()
        try:
            exponent(value)
        except UnknownCurrency:
            detail = "expected an active ISO 4217 code such as USD"
            self.fault(place + "/currency", "currency_unknown", detail)
        return value

    def zone(self, place: str, members: dict[str, Json]) -> str:
        value = self.text(place, members, "timezone") or "UTC"
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            detail = "expected an IANA time zone that this machine knows, such as Europe/Berlin"
            self.fault(place + "/timezone", "timezone_unknown", detail)
        return value

    def require_customer(self, place: str, plan: TenantPlan) -> None:
        """A price or a meter belongs to no one; only a subscription item knows its customer."""
        loose = [item for item in items(plan) if not item.startswith("si_")]
        if loose and plan.customer is None:
            detail = f"stripe_customer is required with {loose[0]}"
            self.fault(place + "/stripe_customer", "missing_member", detail)

    def refuse_shared_items(self, plans: tuple[tuple[str, TenantPlan], ...]) -> None:
        """Two tiers on one item would overwrite each other's totals at Stripe."""
        seen: set[tuple[str | None, str]] = set()
        for place, plan in plans:
            for item in items(plan):
                owner = None if item.startswith("si_") else plan.customer
                if (owner, item) in seen:
                    self.fault(place, "item_duplicate", f"{item} already counts another tier")
                seen.add((owner, item))


def _decimals(value: Decimal) -> int:
    """Return how many digits stand after the point, trailing zeros left out."""
    digits = decimal_text(value).partition(".")[2]
    return len(digits.rstrip("0"))


def _plain(value: Decimal) -> Decimal:
    """Return one spelling per value, so that 0.0080 and 0.008 hash alike."""
    text = decimal_text(value)
    return Decimal(text.rstrip("0").rstrip(".") if "." in text else text)
