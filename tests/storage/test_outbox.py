"""The outbox keeps its promises on every engine, also to a machine that tries everything."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.postgres import Postgres

from signet.core.billing import Flight, Route, event_identifier, next_flight, value_after
from signet.storage import outbox
from signet.storage.database import Database, PostgresConfig, SqliteConfig, open_database
from signet.storage.outbox import Gain, Outlet, StoredWindow, WindowKey
from signet.storage.tx import Tx

OUTLET = Outlet("acme", "si_1")
KEY = WindowKey("acme", "si_1", 3600, "2026-11")
LANE = "cus_1/mtr_1"


async def put(tx: Tx, units: int, key: WindowKey = KEY, due_us: int = 0) -> None:
    """Let a window gain units."""
    await outbox.gain(tx, [Gain(key, "vex", units)], due_us=due_us)


async def only(db: Database) -> StoredWindow:
    """The one window there is."""
    (found,) = await db.read_current(outbox.windows_of_outlet, OUTLET, 0, 10**6)
    return found


@pytest.mark.anyio
async def test_a_gain_is_a_version(db: Database) -> None:
    """Each gain adds units and one version; the first due time stays."""
    await db.transact(put, 5, KEY, 70)
    await db.transact(put, -2, KEY, 90)
    await db.transact(put, 0, KEY, 90)
    found = await only(db)
    assert (found.window.value, found.window.version) == (3, 2)
    assert await db.read_current(outbox.due_outlets, 69, 9) == []
    assert await db.read_current(outbox.due_outlets, 70, 9) == [OUTLET]


@pytest.mark.anyio
async def test_a_held_window_gains_and_stays_held(db: Database) -> None:
    """What is held back is not due, whatever it gains."""
    await db.transact(put, 5)
    await db.transact(outbox.hold_back, KEY, "test")
    await db.transact(put, 5)
    assert await db.read_current(outbox.due_outlets, 99, 9) == []
    assert (await only(db)).held == "test"
    assert [w.key for w in await db.read_current(outbox.stuck_windows, 9)] == [KEY]


@pytest.mark.anyio
async def test_settling_another_flight_changes_nothing(db: Database) -> None:
    """What came of a message settles that very message and no other."""
    await db.transact(put, 5)
    flight = Flight(version=1, value=5, since_us=1, attempt=0)
    other = Flight(version=2, value=5, since_us=1, attempt=0)
    await db.transact(outbox.put_in_flight, KEY, flight)

    async def settle(tx: Tx) -> None:
        await outbox.settle_delivered(tx, KEY, other, value=9, now_us=5)
        await outbox.settle_dead(tx, KEY, other, reason="no", now_us=5)
        await outbox.settle_retry(tx, KEY, other, answered=True, due_us=9, reason="no")
        await outbox.take_back(tx, KEY, other)

    before = await only(db)
    await db.transact(settle)
    assert await only(db) == before
    assert before.window.flight == flight


@pytest.mark.anyio
async def test_a_failed_call_is_counted_when_it_was_answered(db: Database) -> None:
    """Only an answered failure gives the next try another idempotency key."""
    await db.transact(put, 5)
    flight = Flight(version=1, value=5, since_us=1, attempt=0)
    await db.transact(outbox.put_in_flight, KEY, flight)
    for answered, attempt in ((False, 0), (True, 1), (True, 2)):

        async def retry(tx: Tx, answered: bool = answered) -> None:
            await outbox.settle_retry(tx, KEY, flight, answered=answered, due_us=9, reason="x")

        await db.transact(retry)
        found = (await only(db)).window
        assert found.flight is not None
        assert found.flight.attempt == attempt
    assert found.tries == 3


@pytest.mark.anyio
async def test_stopped_lanes_wait(db: Database) -> None:
    """A stopped lane cannot be claimed until it is resumed."""
    fence = await db.transact(outbox.claim_lane, LANE, owner="a", lease_us=10**9)
    assert fence == 1
    await db.transact(outbox.stop_lane, LANE, 1, "401")
    assert await db.transact(outbox.claim_lane, LANE, owner="b", lease_us=10**9) is None
    assert [s.lane for s in await db.read_current(outbox.stopped_lanes, 9)] == [LANE]
    assert await db.transact(outbox.resume_lanes) == 1
    assert await db.transact(outbox.claim_lane, LANE, owner="b", lease_us=10**9) == 2
    assert await db.read_current(outbox.lane_owners) == ["b"]


@pytest.mark.anyio
async def test_a_deployments_name_is_drawn_once(db: Database) -> None:
    """The first name stays until a restore; then nothing may be sent until Stripe was asked."""
    assert (await db.transact(outbox.deployment, "one")).name == "one"
    assert (await db.transact(outbox.deployment, "two")).name == "one"
    await db.transact(outbox.restored, "three", 7, sends=0)
    assert await db.transact(outbox.deployment, "four") == ("three", 7, 0)
    await db.transact(outbox.reconciled, "one")
    assert (await db.transact(outbox.deployment, "four")).restored_us == 7
    await db.transact(outbox.reconciled, "three")
    assert await db.transact(outbox.deployment, "four") == ("three", None, 0)


@pytest.mark.anyio
async def test_a_deployment_counts_its_sends(db: Database) -> None:
    """The count only rises, also by what is known of it after a restore, which is found once."""
    await db.transact(outbox.deployment, "one")
    assert [await db.transact(outbox.count_send) for _ in range(3)] == [1, 2, 3]
    assert not await db.transact(outbox.found_restored, "two", 7, sends=3)
    assert await db.transact(outbox.found_restored, "two", 7, sends=9)
    assert not await db.transact(outbox.found_restored, "three", 8, sends=9)
    assert await db.transact(outbox.deployment, "four") == ("two", 7, 9)
    await db.transact(outbox.restored, "five", 8, sends=4)
    assert await db.read_current(outbox.sends) == 9


# A machine that gains, sends, loses answers, dies and takes over, in any order.


class Stripe:
    """One meter: keeps the newest value of the hour, or adds up; knows every identifier."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.held = 0
        self.seen: set[str] = set()

    def take(self, identifier: str, value: int) -> None:
        """Take an event once."""
        if identifier not in self.seen:
            self.seen.add(identifier)
            self.held = value if self.mode == "window" else self.held + value


class OutboxMachine(RuleBasedStateMachine):
    """One window between a counter and Stripe, with any number of holders, one of them real."""

    config: SqliteConfig | PostgresConfig
    mode: str

    @initialize()
    def open(self) -> None:
        """An empty outbox."""
        self.runner = asyncio.Runner()
        self.opened = open_database(self.config)
        self.db = self.run(self.opened.__aenter__())
        self.route = Route(item="si_1", mode=self.mode, customer="cus_1", meter="mtr_1")  # type: ignore[arg-type]
        self.stripe = Stripe(self.mode)
        self.used = 0
        self.now_us = 1
        self.fence: int | None = None
        self.flight: Flight | None = None
        self.stored: StoredWindow | None = None

    def run(self, call: object) -> object:
        """Run one coroutine."""
        return self.runner.run(call)  # type: ignore[arg-type]

    def teardown(self) -> None:
        """Whatever happened, a healthy worker brings Stripe to the total."""
        if not hasattr(self, "runner"):
            return
        try:
            self.heal()
            assert self.stripe.held == self.used
        finally:
            self.run(self.opened.__aexit__(None, None, None))
            self.runner.close()

    def heal(self) -> None:
        """Take over and send until nothing waits."""
        self.fence = None
        for _ in range(8):
            self.claim()
            self.take()
            if self.flight is None:
                return
            self.send()
            self.deliver()

    @rule(units=st.integers(1, 5))
    def gain(self, units: int) -> None:
        """Units are counted."""
        self.used += units
        self.run(self.db.transact(put, units, KEY, self.now_us))

    @precondition(lambda self: self.fence is None)
    @rule()
    def claim(self) -> None:
        """A worker takes the lane over; the one before, if any, is gone."""
        self.run(self.db.transact(outbox.claim_lane, LANE, owner="old", lease_us=0))
        self.run(self.db.transact(outbox.free_lanes, "old"))
        fence = self.run(self.db.transact(outbox.claim_lane, LANE, owner="new", lease_us=10**9))
        if fence is None:
            self.run(self.db.transact(outbox.free_lanes, "new"))
            fence = self.run(self.db.transact(outbox.claim_lane, LANE, owner="new", lease_us=10**9))
        assert isinstance(fence, int)
        self.fence = fence
        self.flight = None

    @precondition(lambda self: self.fence is not None and self.flight is None)
    @rule()
    def take(self) -> None:
        """It writes down what it is about to send."""

        async def take(tx: Tx) -> Flight | None:
            assert await outbox.keep_lane(tx, LANE, self.fence or 0, lease_us=10**9)
            for stored in await outbox.due_windows(tx, OUTLET, self.now_us + 10**9, 1):
                flight = next_flight(stored.window, self.route, self.now_us)
                assert isinstance(flight, Flight)
                await outbox.put_in_flight(tx, stored.key, flight)
                self.stored = stored
                return flight
            return None

        self.flight = self.run(self.db.transact(take))  # type: ignore[assignment]

    @precondition(lambda self: self.flight is not None)
    @rule()
    def send(self) -> None:
        """The message arrives; whether anybody hears of it is another rule."""
        assert self.flight is not None
        identifier = event_identifier(
            deployment="d",
            route=self.route,
            hour=KEY.hour,
            version=self.flight.version,
            value=self.flight.value,
        )
        self.stripe.take(identifier, self.flight.value)
        self.arrived = self.flight

    @precondition(
        lambda self: self.flight is not None and self.flight == getattr(self, "arrived", 0)
    )
    @rule()
    def deliver(self) -> None:
        """The answer is heard and written down."""
        flight, stored = self.flight, self.stored
        assert flight is not None
        assert stored is not None
        value = value_after(stored.window, flight, self.route)

        async def settle(tx: Tx) -> None:
            await outbox.settle_delivered(tx, KEY, flight, value=value, now_us=self.now_us)

        self.run(self.db.transact(settle))
        self.flight = None

    @precondition(lambda self: self.flight is not None)
    @rule(answered=st.booleans())
    def fail(self, answered: bool) -> None:
        """A failure is heard, or nothing is; it may have arrived all the same."""
        flight = self.flight
        assert flight is not None

        async def settle(tx: Tx) -> None:
            await outbox.settle_retry(
                tx, KEY, flight, answered=answered, due_us=self.now_us, reason="x"
            )

        self.run(self.db.transact(settle))
        self.flight = None

    @precondition(lambda self: self.fence is not None)
    @rule()
    def die(self) -> None:
        """The worker is gone; what it wrote down stays."""
        self.fence = None
        self.flight = None

    @invariant()
    def never_over(self) -> None:
        """Stripe never holds more than was used."""
        assert not hasattr(self, "stripe") or self.stripe.held <= self.used


@pytest.mark.parametrize("mode", ["window", "sum"])
def test_everything_in_any_order_sqlite(mode: str) -> None:
    """Gains, losses, deaths and take-overs in any order end in the exact total."""
    with tempfile.TemporaryDirectory() as scratch:
        names = iter(range(10**6))

        def machine() -> OutboxMachine:
            made = OutboxMachine()
            made.config = SqliteConfig(path=Path(scratch) / f"{next(names)}.db")
            made.mode = mode
            return made

        run_state_machine_as_test(machine, settings=FEW)


@pytest.mark.parametrize("mode", ["window", "sum"])
def test_everything_in_any_order_postgres(mode: str, postgres: Postgres) -> None:
    """The same on PostgreSQL."""

    def machine() -> OutboxMachine:
        made = OutboxMachine()
        made.config = PostgresConfig(url=postgres.url(postgres.empty_database()), pool_size=2)
        made.mode = mode
        return made

    run_state_machine_as_test(machine, settings=settings(FEW, max_examples=5))


FEW = settings(
    max_examples=20,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
