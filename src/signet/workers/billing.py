"""The loops of billing: count, route, send, reconcile, close. Each calls one use case."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from signet.gateway.billing import Dispatch
from signet.gateway.metering import Metering
from signet.gateway.plans import Plans
from signet.gateway.reconciliation import Drift, Reconciliation
from signet.gateway.statements import Statements
from signet.workers.runner import Worker

_MINUTE_S = 60.0
_HOUR_S = 3_600.0


def metering_workers(
    metering: Metering,
    statements: Statements,
    reconciliation: Reconciliation,
    *,
    told: Callable[[Sequence[Drift]], None],
) -> list[Worker]:
    """What every deployment runs, with or without Stripe: count, compare, close months.

    `told` hears of every comparison. Without it a month whose counts went wrong would never be
    counted again, and so never get its statement.
    """

    async def count() -> int:
        # Less than a whole batch means that the log has been caught up with.
        seen = await metering.count_once()
        return seen if seen == metering.batch else 0

    async def compare() -> int:
        told(await reconciliation.compare())
        return 0

    return [
        Worker(name="billing-count", work=count, every_s=5.0),
        Worker(name="billing-compare", work=compare, every_s=_HOUR_S),
        Worker(name="billing-close", work=statements.close_due, every_s=_HOUR_S),
    ]


def stripe_workers(
    plans: Plans, dispatch: Dispatch, reconciliation: Reconciliation
) -> list[Worker]:
    """What a deployment with a Stripe account runs as well: route, send, ask."""

    async def send() -> int:
        # After a restore nothing is sent before every item was asked about, which takes its lane.
        await dispatch.free_the_dead()
        if not await reconciliation.after_restore(plans.in_force()):
            return 0
        return await dispatch.send_once()

    return [
        Worker(name="billing-route", work=plans.route_missing, every_s=_MINUTE_S),
        Worker(name="billing-send", work=send, every_s=1.0),
        Worker(name="billing-ask", work=reconciliation.ask, every_s=10 * _MINUTE_S),
    ]


def following_worker(plans: Plans, *, told: Callable[[], None]) -> Worker:
    """What every process of a deployment with reserved capacity runs: take on what another put
    into force. `told` hears of it."""

    async def follow() -> int:
        taken_on = await plans.follow()
        if taken_on:
            told()
        return taken_on

    return Worker(name="billing-plans", work=follow, every_s=1.0)
