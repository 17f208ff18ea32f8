"""Windows into Stripe: where each item's units go, and who sends what when.

A lane is a customer and a meter, and Stripe takes one call for it at a time. A worker holds the
lane's lease, writes down what it is about to send, sends it, and writes down what came of it. What
was written down and not settled is sent again, unchanged, by whoever holds the lane next.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, assert_never

from signet.core.backoff import full_jitter_us
from signet.core.billing import (
    SECOND_US,
    Answer,
    DeadLetter,
    Delivered,
    Flight,
    Held,
    LaneStopped,
    Parked,
    Resolution,
    Resolved,
    Retry,
    Route,
    Unreachable,
    Unusable,
    UsageEvent,
    Wanted,
    begins_on_the_hour,
    event_identifier,
    next_flight,
    period_of,
    value_after,
)
from signet.core.errors import Fault, SignetError
from signet.core.pricing import METERS, TenantPlan
from signet.gateway.ports import Clock, Dice
from signet.storage import outbox
from signet.storage.database import Database
from signet.storage.errors import StorageError
from signet.storage.landmark import Landmark
from signet.storage.outbox import Deployment, Outlet, StoredWindow
from signet.storage.tx import Tx

_MOST_OUTLETS: Final = 10_000
_BATCH: Final = 50
_RETRY_BASE_US: Final = SECOND_US
_RETRY_CAP_US: Final = 900 * SECOND_US
_MONTHS_AHEAD: Final = 24
_ASKING_AT_ONCE: Final = 16


class BillingRefused(SignetError):
    """Stripe definitely says otherwise than the configuration; `faults` name every item."""

    code = "billing_refused"


class LaneLost(SignetError):
    """Another worker holds the lane now; what this one learned is learned again."""

    code = "billing_lane_lost"


class DatabaseRestored(SignetError):
    """The database is older than what was sent from it, so it comes from a backup."""

    code = "billing_database_restored"


class Biller(Protocol):
    """The service that counts usage and writes the invoices."""

    @property
    def deadline_s(self) -> float:
        """Within what time `send` ends, one way or another."""
        ...

    async def resolve(self, wanted: Wanted) -> Resolution:
        """Find where an item's units are counted; never raises for what the service says."""
        ...

    async def send(self, event: UsageEvent) -> Answer:
        """Send one message, once; never raises for what the service says."""
        ...

    async def held(self, route: Route, start_s: int, end_s: int) -> Held | Unreachable:
        """Ask how many units the service holds between two instants."""
        ...

    async def held_by_hour(
        self, route: Route, start_s: int, end_s: int
    ) -> Mapping[int, int] | Unreachable:
        """Ask the same for each UTC hour; hours without units may be left out."""
        ...


# Where.


@dataclass(slots=True, kw_only=True)
class Router:
    """Knows where each tenant's items lead. What Stripe could not be asked yet has no route."""

    biller: Biller
    clock: Clock
    routes: dict[Outlet, Route] = field(default_factory=dict[Outlet, Route])
    remarks: list[str] = field(default_factory=list[str])
    unreachable: dict[Outlet, str] = field(default_factory=dict[Outlet, str])

    async def resolve(
        self, plans: Iterable[TenantPlan], *, pinned: Iterable[TenantPlan] = ()
    ) -> None:
        """Resolve every item of these plans; what cannot be asked now is asked again later.

        `pinned` are the plans of open months, whose items keep their windows and whose prices are
        agreed. Raises `BillingRefused` with every item that would bill wrongly, and changes
        nothing then.
        """
        wanted: dict[Outlet, tuple[TenantPlan, Wanted]] = {}
        for plan in pinned:
            wanted |= {outlet: (plan, want) for outlet, want in _wanted(plan, priced=False)}
        for plan in plans:
            wanted |= {outlet: (plan, want) for outlet, want in _wanted(plan, priced=True)}
        answers = await self._ask({outlet: want for outlet, (_, want) in wanted.items()})
        routes: dict[Outlet, Route] = {}
        faults: list[Fault] = []
        for outlet, answer in answers.items():
            plan, _ = wanted[outlet]
            detail = _unfit(plan, answer, self.clock())
            if detail is not None:
                faults.append(_fault(outlet, detail))
            elif isinstance(answer, Resolved):
                routes[outlet] = answer.route
        faults += _shared(routes)
        if faults:
            sentences = " ".join(f"{fault.pointer[1:]}: {fault.detail}" for fault in faults)
            raise BillingRefused(sentences, faults=tuple(faults))
        self.routes |= routes
        self.remarks = [r for a in answers.values() if isinstance(a, Resolved) for r in a.remarks]
        self.unreachable = {
            outlet: answer.detail
            for outlet, answer in answers.items()
            if isinstance(answer, Unreachable)
        }

    async def _ask(self, wanted: Mapping[Outlet, Wanted]) -> dict[Outlet, Resolution]:
        """Ask for all of them, a few at a time."""
        answers: dict[Outlet, Resolution] = {}
        gate = asyncio.Semaphore(_ASKING_AT_ONCE)

        async def ask(outlet: Outlet, want: Wanted) -> None:
            async with gate:
                answers[outlet] = await self.biller.resolve(want)

        async with asyncio.TaskGroup() as group:
            for outlet, want in wanted.items():
                group.create_task(ask(outlet, want))
        return {outlet: answers[outlet] for outlet in wanted}


def _wanted(plan: TenantPlan, *, priced: bool) -> Iterable[tuple[Outlet, Wanted]]:
    for meter in METERS:
        for band in plan.meter(meter).bands:
            if band.item is not None:
                yield (
                    Outlet(plan.tenant, band.item),
                    Wanted(
                        item=band.item,
                        customer=plan.customer,
                        price=band.price if priced and band.number else None,
                        currency=plan.currency,
                    ),
                )


def _unfit(plan: TenantPlan, answer: Resolution, now_us: int) -> str | None:
    """Say why an item cannot serve this plan, in a sentence."""
    if isinstance(answer, Unusable):
        return answer.detail
    if isinstance(answer, Unreachable):
        return None
    mode = answer.route.mode
    if plan.vex.mode == "volume" and mode != "sum":
        return (
            "volume pricing moves units from tier to tier, which only a meter without a time "
            "window can follow; use one, or invoice from statements."
        )
    if mode == "window" and not _months_begin_on_the_hour(plan.zone, now_us):
        return (
            f"months in {plan.zone} begin inside a UTC hour, and this meter keeps one value per "
            "hour for two months; use a meter without a time window."
        )
    return None


def _months_begin_on_the_hour(zone: str, now_us: int) -> bool:
    """Look at the months to come: a zone may change its offset with the seasons."""
    for _ in range(_MONTHS_AHEAD):
        period = period_of(now_us, zone)
        if not begins_on_the_hour(period):
            return False
        now_us = period.end_us
    return True


def _shared(routes: Mapping[Outlet, Route]) -> Iterable[Fault]:
    """Two tiers on one meter and customer would overwrite each other's totals."""
    first: dict[str, Outlet] = {}
    for outlet, route in routes.items():
        other = first.setdefault(route.lane, outlet)
        if other != outlet:
            yield _fault(
                outlet,
                f"it counts on {route.meter} for {route.customer}, and so does {other.item} of "
                f"{other.tenant}; give every tier a meter of its own.",
            )


def _fault(outlet: Outlet, detail: str) -> Fault:
    pointer = f"/{outlet.tenant}/{outlet.item}"
    return Fault(pointer=pointer, code="item_unusable", detail=detail)


# What and when.


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A message that is written down as in flight. `fresh` when it never was before."""

    stored: StoredWindow
    flight: Flight
    fresh: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """Sends what is due. Any number of these may run, in any number of processes.

    `owner` names this one in the leases and is never used twice. `heard` is told every answer.
    `landmark` is this host's, outside the database.
    """

    database: Database
    biller: Biller
    router: Router
    owner: str
    is_dead: Callable[[str], bool]
    clock: Clock
    monotonic: Callable[[], float]
    dice: Dice
    heard: Callable[[Answer], None]
    landmark: Landmark
    lanes_at_once: int = 64
    lease_s: float = 120.0

    async def send_once(self) -> int:
        """Empty every lane that is due and free; return how many messages were settled.

        Raises `DatabaseRestored`, once, for a database that has gone back in time.
        """
        await self.free_the_dead()
        us = await self._deployment()
        if us.restored_us is not None:
            return 0
        outlets = await self.database.read_current(outbox.due_outlets, self.clock(), _MOST_OUTLETS)
        lanes: dict[str, list[Outlet]] = defaultdict(list)
        for outlet in outlets:
            route = self.router.routes.get(outlet)
            if route is not None:
                lanes[route.lane].append(outlet)
        if lanes:
            sends = await self.database.transact(outbox.count_send)
            await asyncio.to_thread(self.landmark.keep, sends)
        gate = asyncio.Semaphore(self.lanes_at_once)
        settled: list[int] = []
        failed: list[StorageError | LaneLost] = []

        async def empty(lane: str, outlets: Sequence[Outlet]) -> None:
            async with gate:
                try:
                    settled.append(await self._empty(us.name, lane, outlets))
                except (StorageError, LaneLost) as error:
                    # The other lanes go on. What was in flight here stays written down.
                    failed.append(error)

        async with asyncio.TaskGroup() as group:
            for lane, of_lane in lanes.items():
                group.create_task(empty(lane, of_lane))
        if failed and not any(settled):
            raise failed[0]
        return sum(settled)

    async def _deployment(self) -> Deployment:
        """Who we are to Stripe, unless the database knows less than this host does."""
        seen = await asyncio.to_thread(self.landmark.read)
        fresh = self.dice(16).hex()
        us = await self.database.transact(outbox.deployment, fresh)
        if us.sends < seen:
            await self.database.transact(outbox.found_restored, fresh, self.clock(), sends=seen)
            raise DatabaseRestored(
                f"the database knows of {us.sends} sends and {self.landmark.path} of {seen}, so it "
                "comes from a backup; Stripe is asked what it holds before anything is sent"
            )
        return us

    async def free_the_dead(self) -> None:
        """Take their lanes from workers that are proven dead; their leases need not run out."""
        for owner in await self.database.read_current(outbox.lane_owners):
            if owner != self.owner and self.is_dead(owner):
                await self.database.transact(outbox.free_lanes, owner)

    async def _empty(self, deployment: str, lane: str, outlets: Sequence[Outlet]) -> int:
        """Send what is due in one lane, batch after batch, while the lease is ours.

        One transaction before the first message, and one after each batch, which takes the next.
        """
        # The lease begins in the database after this, so it ends there later than here.
        until = self.monotonic() + self.lease_s
        fence, batch = await self.database.transact(self._claim, lane, outlets)
        done = 0
        try:
            while batch:
                answers = await self._send(deployment, batch, until)
                until = self.monotonic() + self.lease_s
                batch = await self.database.transact(
                    self._settle, lane, fence, batch, answers, outlets
                )
                done += sum(isinstance(answer, Delivered | DeadLetter) for answer in answers)
        finally:
            if batch:
                await self.database.transact(outbox.release_lane, lane, fence)
        return done

    async def _claim(self, tx: Tx, lane: str, outlets: Sequence[Outlet]) -> tuple[int, list[Ready]]:
        """Take a lane that nobody holds; its fence and first batch. Nothing to send, no lease."""
        fence = await outbox.claim_lane(
            tx, lane, owner=self.owner, lease_us=int(self.lease_s * SECOND_US)
        )
        return (0, []) if fence is None else (fence, await self._take(tx, lane, fence, outlets))

    async def _take(self, tx: Tx, lane: str, fence: int, outlets: Sequence[Outlet]) -> list[Ready]:
        """Write down what will be sent, before any of it is; give the lane back without any."""
        now_us = self.clock()
        ready: list[Ready] = []
        for outlet in outlets:
            route = self.router.routes[outlet]
            for stored in await outbox.due_windows(tx, outlet, now_us, _BATCH - len(ready)):
                flight = next_flight(stored.window, route, now_us)
                if isinstance(flight, Parked):
                    await outbox.hold_back(tx, stored.key, flight.reason)
                elif flight is not None:
                    fresh = stored.window.flight is None
                    if fresh:
                        await outbox.put_in_flight(tx, stored.key, flight)
                    ready.append(Ready(stored=stored, flight=flight, fresh=fresh))
        if not ready:
            await outbox.release_lane(tx, lane, fence)
        return ready

    async def _send(self, deployment: str, batch: Sequence[Ready], until: float) -> list[Answer]:
        """Send one after the other; stop at the first that may not be followed.

        A message leaves only while the lease outlasts the longest that its sending can take.
        """
        answers: list[Answer] = []
        for ready in batch:
            if self.monotonic() + self.biller.deadline_s >= until:
                break
            answer = await self.biller.send(self._event(deployment, ready))
            self.heard(answer)
            answers.append(answer)
            if not isinstance(answer, Delivered | DeadLetter):
                break
        return answers

    def _event(self, deployment: str, ready: Ready) -> UsageEvent:
        key, flight = ready.stored.key, ready.flight
        route = self.router.routes[Outlet(key.tenant, key.item)]
        return UsageEvent(
            route=route,
            identifier=event_identifier(
                deployment=deployment,
                route=route,
                hour=key.hour,
                version=flight.version,
                value=flight.value,
            ),
            value=flight.value,
            timestamp_s=key.hour,
            attempt=flight.attempt,
        )

    async def _settle(
        self,
        tx: Tx,
        lane: str,
        fence: int,
        batch: Sequence[Ready],
        answers: Sequence[Answer],
        outlets: Sequence[Outlet],
    ) -> list[Ready]:
        """Write down what came of each, and take the next batch if nothing speaks against it.

        What was not sent is in flight no longer.
        """
        now_us = self.clock()
        await self._keep(tx, lane, fence)
        for ready, answer in zip(batch, answers, strict=False):
            await self._settle_one(tx, lane, fence, ready, answer, now_us)
        for ready in batch[len(answers) :]:
            if ready.fresh:
                await outbox.take_back(tx, ready.stored.key, ready.flight)
        if len(answers) == len(batch) and isinstance(answers[-1], Delivered | DeadLetter):
            return await self._take(tx, lane, fence, outlets)
        await outbox.release_lane(tx, lane, fence)
        return []

    async def _settle_one(
        self, tx: Tx, lane: str, fence: int, ready: Ready, answer: Answer, now_us: int
    ) -> None:
        key, flight, window = ready.stored.key, ready.flight, ready.stored.window
        match answer:
            case Delivered():
                route = self.router.routes[Outlet(key.tenant, key.item)]
                value = value_after(window, flight, route)
                await outbox.settle_delivered(tx, key, flight, value=value, now_us=now_us)
            case Retry():
                due_us = now_us + self._wait_us(window.tries + 1, answer)
                await outbox.settle_retry(
                    tx, key, flight, answered=answer.answered, due_us=due_us, reason=answer.reason
                )
            case DeadLetter():
                reason = f"{answer.reason}: {answer.detail}"
                await outbox.settle_dead(tx, key, flight, reason=reason, now_us=now_us)
            case LaneStopped():
                await outbox.stop_lane(tx, lane, fence, f"{answer.reason}: {answer.detail}")
            case Parked():
                await outbox.hold_back(tx, key, answer.reason)
            case _:
                assert_never(answer)

    async def _keep(self, tx: Tx, lane: str, fence: int) -> None:
        if not await outbox.keep_lane(tx, lane, fence, lease_us=int(self.lease_s * SECOND_US)):
            raise LaneLost(f"the lane {lane} has another holder")

    def _wait_us(self, tries: int, answer: Retry) -> int:
        """Wait at least as long as Stripe asks, and otherwise longer with every try."""
        jitter = full_jitter_us(
            tries,
            int.from_bytes(self.dice(8), "big"),
            base_us=_RETRY_BASE_US,
            cap_us=_RETRY_CAP_US,
        )
        return (answer.after_us or 0) + jitter
