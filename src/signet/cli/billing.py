"""`signet billing`: what a month would cost, closing it, the counts, what Stripe refused.

Every action works on the database of the settings, beside running gateways. Nothing here counts
receipts: the gateways do, under the plans that they have in force.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, cast

from signet.app import HeldKeys, open_keys
from signet.app.billing import configured_plans, configured_statements, open_billing
from signet.app.keyring import live_keyring
from signet.cli.arguments import new_command
from signet.cli.database import existing_database
from signet.cli.exits import CommandFailed, Exit
from signet.cli.tables import table
from signet.core.ids import TENANT_ID, TenantId
from signet.gateway.statements import Statements, UsageUnsettled, current_period
from signet.receipts.canonical import Json, canonicalize, parse
from signet.receipts.receipt import timestamp
from signet.settings import Settings, read_settings
from signet.storage import billing, outbox
from signet.storage.billing import StoredPeriod
from signet.storage.database import Database
from signet.storage.outbox import StoppedLane, StoredWindow
from signet.storage.tx import Tx
from signet.telemetry.metrics import Metrics
from signet.workers.ownership import this_process

if TYPE_CHECKING:
    from signet.cli.arguments import Subparsers

_MOST: Final = 10_000
_MONTH: Final = re.compile(r"20[0-9]{2}-(0[1-9]|1[0-2])")
_ALL_DAYS_US: Final = 90 * 24 * 3_600_000_000
"""How long after a month's end a close still looks for late units."""

Ending = Literal["closed", "nothing new", "still being counted", "counts differ"]


class Closed(NamedTuple):
    """How closing one month ended; `document` is its newest statement."""

    tenant: str
    period: str
    ending: Ending
    document: bytes | None


def add_parser(subparsers: Subparsers) -> None:
    """Add `billing` to the command's sub-commands."""
    parser = new_command(
        subparsers,
        "billing",
        line="preview and close months, compare counts, send again",
        description="Work on the billing of the deployment that the settings name: its database,"
        " its reserved capacity, its Stripe account. Gateways may run on.",
        examples="""  signet billing preview acme
  signet billing close --period 2026-10
  signet billing reconcile
  signet billing dlq list""",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    preview = new_command(
        actions,
        "preview",
        line="what a tenant's statement would say now",
        description="Show what a tenant's statement would say now. Nothing is signed or kept.",
    )
    preview.add_argument("tenant", metavar="TENANT", type=_tenant, help="the tenant's id")
    preview.add_argument(
        "--period", type=_month, metavar="MONTH", help="such as 2026-10 (default: this month)"
    )
    close = new_command(
        actions,
        "close",
        line="sign the statements of months that are over",
        description="Sign and keep the statement of every month whose grace has passed, or with"
        " --period of that month at once. A month that was closed before gets a further revision"
        " if anything was counted since. Exits 1 when a statement could not be made yet.",
    )
    close.add_argument("--tenant", type=_tenant, metavar="TENANT", help="only this tenant's")
    close.add_argument("--period", type=_month, metavar="MONTH", help="only this month")
    close.add_argument("--early", action="store_true", help="also a --period that is not over yet")
    reconcile = new_command(
        actions,
        "reconcile",
        line="compare receipts, counts, windows and Stripe",
        description="Compare what the receipts say with what was counted, what is told to Stripe,"
        " and what Stripe holds. What the receipts can mend is mended. Exits 1 when anything"
        " differed.",
    )
    dlq = new_command(
        actions,
        "dlq",
        line="what Stripe refused: list it, send it again",
        description="Show what Stripe refused or is held back, and the lanes that are stopped; or"
        " send refused windows again and let stopped lanes go on, once the cause is mended.",
    )
    which = dlq.add_subparsers(dest="which", required=True, metavar="ACTION")
    shown = new_command(
        which,
        "list",
        line="show what waits for an operator",
        description="Show the windows that Stripe refused or that are held back, and the lanes that"
        " are stopped, each with its reason.",
    )
    again = new_command(
        which,
        "replay",
        line="send what was refused again",
        description="Send refused windows again as new versions, and let every stopped lane go on,"
        " once the cause is mended.",
    )
    again.add_argument("--tenant", type=_tenant, metavar="TENANT", help="only this tenant's")
    for command in (preview, close, reconcile, shown, again):
        command.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Carry the action out."""
    action = _ACTIONS[args.action if args.action != "dlq" else f"dlq {args.which}"]
    return asyncio.run(_on_database(action, args))


async def _on_database(action: Action, args: argparse.Namespace) -> int:
    settings = read_settings(os.environ).settings
    async with existing_database(settings) as database:
        return await action(settings, database, args)


# Preview and close.


async def _preview(settings: Settings, database: Database, args: argparse.Namespace) -> int:
    tenant: TenantId = args.tenant
    plans = await configured_plans(settings, database=database, clock=_now_us)
    period: str = args.period or current_period(plans.plan_of(tenant), _now_us())
    statements = await _statements(settings, database)
    members = await statements.preview(tenant, period)
    if args.json:
        print(canonicalize(members).decode())
    else:
        print(f"As it would be now; nothing is signed.\n{statement_text(members)}")
    return Exit.DONE


async def _close(settings: Settings, database: Database, args: argparse.Namespace) -> int:
    if args.early and not args.period:
        raise CommandFailed("--early needs a --period", Exit.USAGE)
    months = await _months(settings, database, args)
    statements = await _statements(settings, database)
    endings = [await _close_one(statements, month) for month in months]
    if args.json:
        shown = [
            {
                "tenant": one.tenant,
                "period": one.period,
                "ending": one.ending,
                "statement": None if one.document is None else parse(one.document),
            }
            for one in endings
        ]
        print(canonicalize({"months": cast("list[Json]", shown)}).decode())
    else:
        print("\n".join(map(_closed_text, endings)) or "no month is to be closed")
    made = all(one.ending in ("closed", "nothing new") for one in endings)
    return Exit.DONE if made else Exit.FAILED


async def _months(
    settings: Settings, database: Database, args: argparse.Namespace
) -> list[StoredPeriod]:
    """Return the months to close, the oldest first."""
    now_us = _now_us()
    if args.period:
        known = await database.read_current(
            billing.periods_ended_after, ended_after_us=0, limit=_MOST
        )
        months = [m for m in known if m.period == args.period and args.tenant in (None, m.tenant)]
        if not args.early and any(month.end_us > now_us for month in months):
            detail = f"{args.period} is not over; --early closes it all the same"
            raise CommandFailed(detail, Exit.USAGE)
    else:
        grace_us = settings.billing.grace_hours * 3_600_000_000
        months = await database.read_current(
            billing.open_periods, ended_by_us=now_us - grace_us, limit=_MOST
        )
        months += await database.read_current(
            billing.adjustable_periods, ended_after_us=now_us - _ALL_DAYS_US, limit=_MOST
        )
    return [month for month in months if args.tenant in (None, month.tenant)]


async def _close_one(statements: Statements, month: StoredPeriod) -> Closed:
    tenant, period = TenantId(month.tenant), month.period
    try:
        document = await statements.close(tenant, period)
    except UsageUnsettled:
        return Closed(tenant, period, "counts differ", None)
    if document is not None:
        return Closed(tenant, period, "closed", document)
    latest = await statements.database.read_current(billing.latest_statement, tenant, period)
    if latest is None:
        return Closed(tenant, period, "still being counted", None)
    return Closed(tenant, period, "nothing new", latest.document)


def _closed_text(one: Closed) -> str:
    head = f"{one.tenant} {one.period}: {one.ending}"
    if one.document is None:
        advice = {
            "counts differ": "run signet billing reconcile, then this again",
            "still being counted": "run this again in a minute, while a gateway runs",
        }
        return f"{head}; {advice[one.ending]}"
    members = cast("dict[str, Json]", parse(one.document))
    return (
        f"{head}, revision {members['revision']}, {members['total']} {members['currency']},"
        f" {members['receipts']} receipts, {members['statement_hash']}"
    )


def statement_text(members: Mapping[str, Json]) -> str:
    """Return a statement's lines and total as a table."""
    rows = [
        (
            str(line["meter"]),
            "reserve" if line["tier"] == 0 else f"tier {line['tier']}",
            f"{line['from']:,} - {line['to']:,}",
            f"{line['units']:,}",
            str(line["price"]),
            str(line["amount"]),
            f"{line['receipts']:,}",
            str(line["item"] or "-"),
        )
        for line in cast("list[dict[str, Json]]", members["lines"])
    ]
    receipts, total = f"{members['receipts']:,}", str(members["total"])
    rows.append(("total", "", "", "", "", total, receipts, str(members["currency"])))
    columns = ("meter", "", "units from - to", ">units", ">price", ">amount", ">receipts", "item")
    head = f"{members['tenant']}, {members['period']} ({members['timezone']})"
    adjusts = "" if members["adjusts"] is None else f", adjusts by {members['adjustment']}"
    return f"{head}, revision {members['revision']}{adjusts}\n\n{table(columns, rows)}"


# Reconcile.


async def _reconcile(settings: Settings, database: Database, args: argparse.Namespace) -> int:
    keys = await open_keys(database, HeldKeys(settings), clock=_now_us)
    keyring = await live_keyring(settings, database=database, clock=_now_us)
    opened = open_billing(
        settings,
        database=database,
        key_for=keys.key_for,
        tenants=lambda: keyring.tenants,
        owner=this_process(),
        metrics=Metrics(),
        clock=_now_us,
    )
    async with opened as ours:
        router = ours.plans.router
        if router is not None and settings.billing.stripe_verify == "off":
            await ours.plans.route()  # the start did not ask
        drifts = await ours.reconciliation.compare()
        unasked = [] if router is None else sorted(set(router.unreachable.values()))
    if args.json:
        stripe = None if router is None else not unasked
        shown = {"stripe_asked": stripe, "differences": [asdict(drift) for drift in drifts]}
        print(json.dumps(shown))
        return Exit.FAILED if drifts or unasked else Exit.DONE
    rows = [
        (
            *(drift.tenant, drift.period, _BETWEEN[drift.between], drift.subject),
            *(f"{drift.expected:,}", f"{drift.found:,}"),
            "look into it" if drift.between == "stripe" else "mended",
        )
        for drift in drifts
    ]
    if rows:
        columns = ("tenant", "month", "differ", "of", ">expected", ">found", "")
        print(table(columns, rows))
    else:
        print("receipts, counts and windows agree")
    if router is None:
        print("Stripe was not asked: SP_STRIPE_API_KEY is not set")
    for detail in unasked:
        print(f"Stripe could not be asked: {detail}")
    return Exit.FAILED if drifts or unasked else Exit.DONE


_BETWEEN: Final = {
    "receipts": "receipts, count",
    "windows": "count, windows",
    "stripe": "windows, Stripe",
}


# What Stripe refused.


class Stuck(NamedTuple):
    """What waits for an operator, or for an answer of Stripe."""

    windows: Sequence[StoredWindow]
    lanes: Sequence[StoppedLane]


async def _dlq_list(_settings: Settings, database: Database, args: argparse.Namespace) -> int:
    stuck = Stuck(
        await database.read_current(outbox.stuck_windows, _MOST),
        await database.read_current(outbox.stopped_lanes, _MOST),
    )
    if args.json:
        windows = [
            {**found.key._asdict(), "units": found.window.value, "state": _state(found)}
            | {"reason": found.held or found.reason}
            for found in stuck.windows
        ]
        lanes = [lane._asdict() for lane in stuck.lanes]
        print(json.dumps({"windows": windows, "stopped_lanes": lanes}))
    else:
        print(_stuck_text(stuck))
    return Exit.DONE


async def _dlq_replay(_settings: Settings, database: Database, args: argparse.Namespace) -> int:
    windows, lanes = await database.transact(_send_again, args.tenant)
    if args.json:
        print(json.dumps({"windows": windows, "lanes": lanes}))
    else:
        print(f"{windows} windows are sent again, {lanes} lanes go on")
    return Exit.DONE


async def _send_again(tx: Tx, tenant: TenantId | None) -> tuple[int, int]:
    """Send refused windows as new versions and let stopped lanes be claimed; how many of each."""
    now_us = _now_us()
    windows = 0
    for found in await outbox.stuck_windows(tx, _MOST):
        if tenant in (None, found.key.tenant):
            windows += await outbox.replay(tx, found.key, now_us)
    return windows, await outbox.resume_lanes(tx)


def _stuck_text(stuck: Stuck) -> str:
    rows = [
        (
            *(found.key.tenant, found.key.item, found.key.period),
            timestamp(found.key.hour * 1_000_000)[:13] + "Z",
            *(f"{found.window.value:,}", _state(found), found.held or found.reason or "-"),
        )
        for found in stuck.windows
    ]
    columns = ("tenant", "item", "month", "hour", ">units", "state", "reason")
    lines = [table(columns, rows)] if rows else []
    lines += [f"lane {lane.lane} is stopped: {lane.reason}" for lane in stuck.lanes]
    return "\n".join(lines) or "nothing is stuck"


def _state(found: StoredWindow) -> str:
    """Refused waits for `dlq replay`; held back settles once Stripe says what it holds."""
    return "refused" if found.held is None else "held back"


async def _statements(settings: Settings, database: Database) -> Statements:
    keys = await open_keys(database, HeldKeys(settings), clock=_now_us)
    return configured_statements(settings, database=database, key_for=keys.key_for, clock=_now_us)


def _tenant(text: str) -> TenantId:
    if not TENANT_ID.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text[:70]!r} cannot be a tenant's id")
    return TenantId(text)


def _month(text: str) -> str:
    if not _MONTH.fullmatch(text):
        raise argparse.ArgumentTypeError(f"expected a month such as 2026-10, got {text[:20]!r}")
    return text


def _now_us() -> int:
    return time.time_ns() // 1000


Action = Callable[[Settings, Database, argparse.Namespace], Awaitable[int]]
_ACTIONS: Final[Mapping[str, Action]] = {
    "preview": _preview,
    "close": _close,
    "reconcile": _reconcile,
    "dlq list": _dlq_list,
    "dlq replay": _dlq_replay,
}
