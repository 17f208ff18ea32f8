"""Limits as one process holds them: who waits, who is refused at once, who pays nothing."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from signet.core.ratelimit import per_minute
from signet.core.tenant import Principal, read_keyring
from signet.gateway import limits as module
from signet.gateway.limits import (
    Admitted,
    LimitDefaults,
    Limited,
    Limits,
    Passage,
    Share,
    Unchecked,
)
from signet.receipts.canonical import Json
from signet.storage.database import Database, SqliteConfig, open_database
from signet.storage.errors import StorageBusy, StorageUnavailable
from signet.storage.tx import Tx
from signet.telemetry.logs import build_logger
from signet.telemetry.metrics import Metrics

pytestmark = pytest.mark.anyio


class Counting:
    """The database, with every look at the buckets counted; `fail` keeps it from answering, and
    `meanwhile` is called before it does."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.looks = 0
        self.fail: Exception | None = None
        self.hang = False
        self.meanwhile: Callable[[], None] = lambda: None

    async def transient(self, *call: Any) -> Any:
        """Look, unless told not to."""
        self.looks += 1
        if self.hang:
            await asyncio.sleep(60)
        self.meanwhile()
        if self.fail is not None:
            raise self.fail
        return await self._database.transient(*call)


class Bench:
    """Limits on a real SQLite file, with a clock of their own."""

    def __init__(self, database: Database) -> None:
        self.database = Counting(database)
        self.metrics = Metrics()
        self.now_s = 1000.0

    def limits(self, **defaults: int) -> Limits:
        """Limits with these defaults."""
        return Limits(
            database=self.database,  # type: ignore[arg-type]
            defaults=LimitDefaults(**defaults),
            metrics=self.metrics,
            log=build_logger("info"),
            monotonic=lambda: self.now_s,
        )

    def take_s(self, seconds: float) -> None:
        """Let every look take so long."""

        def pass_by() -> None:
            self.now_s += seconds

        self.database.meanwhile = pass_by

    def limited(self, by: str) -> float:
        """How many were refused by a limit."""
        value = self.metrics.registry.get_sample_value("signet_limited_total", {"limit": by})
        return value or 0.0


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """An empty database."""
    async with open_database(SqliteConfig(path=tmp_path / "signet.db")) as database:
        yield Bench(database)


def who(**members: Json) -> Principal:
    """A key with these members."""
    principal = read_keyring({"key": {"tenant": "acme", **members}}).find(b"key")
    assert principal is not None
    return principal


async def ask(limits: Limits, principal: Principal, times: int = 1) -> Counter[type]:
    """Ask `times` at once; what came of it."""
    bounds = limits.of(principal)
    assert bounds is not None
    taking = asyncio.ensure_future(_take(limits))  # noqa: TID251
    try:
        answers = await asyncio.gather(*(limits.admit(bounds) for _ in range(times)))
    finally:
        taking.cancel()
    return Counter(type(answer) for answer in answers)


async def _take(limits: Limits) -> None:
    while True:
        assert await limits.take_waiting() == 0


async def test_who_has_no_limit_pays_nothing(bench: Bench) -> None:
    """Without a limit of its own or of the deployment there is nothing to ask."""
    assert bench.limits().of(who()) is None
    assert bench.limits().of(who(rate_burst=3)) is None
    assert bench.limits(rate_per_minute=60).of(who()) is not None
    assert bench.limits().of(who(concurrency=1)) is not None


async def test_what_is_its_own_goes_before_the_default(bench: Bench) -> None:
    """A tenant's rate brings its burst along; a burst alone is used with the default rate."""
    limits = bench.limits(rate_per_minute=600, rate_burst=7, key_rate_per_minute=60, concurrency=9)
    for members, burst, at_once in (
        ({}, 7, 9),
        ({"rate_burst": 3}, 3, 9),
        ({"rate_per_minute": 120}, 20, 9),
        ({"rate_per_minute": 120, "rate_burst": 2, "concurrency": 1}, 2, 1),
    ):
        bounds = limits.of(who(**members))
        assert bounds is not None
        assert [(share.policy, share.rate.burst) for share in bounds.shares] == [
            ("key", 10),
            ("tenant", burst),
        ]
        assert bounds.concurrency == at_once


async def test_a_crowd_shares_one_look(bench: Bench) -> None:
    """Fifty at once are fifty units in one statement; as many as the burst get in."""
    limits = bench.limits()
    asked = await ask(limits, who(rate_per_minute=60, rate_burst=20), 50)
    assert asked == {Admitted: 20, Limited: 30}
    assert bench.database.looks == 1
    assert bench.limited("tenant") == 30


async def test_what_is_left_counts_down(bench: Bench) -> None:
    """Each of those who were admitted together is told what is left after it."""
    limits, principal = bench.limits(), who(rate_per_minute=1, rate_burst=4)
    bounds = limits.of(principal)
    assert bounds is not None
    waiting = [limits.admit(bounds) for _ in range(3)]
    asked = asyncio.gather(*waiting)
    await asyncio.sleep(0)
    await limits.take_waiting()
    left = [a.gauges[0].standing.left for a in await asked if isinstance(a, Admitted)]
    assert left == [3, 2, 1]
    [seen] = await limits.look(bounds)
    assert (seen.policy, seen.standing.left) == ("tenant", 1)
    assert 0 < seen.standing.next_us <= 60_000_000


async def test_a_refusal_is_remembered_until_something_can_be_had(bench: Bench) -> None:
    """Who asks an empty bucket again costs the database nothing, and is let in when it is time."""
    limits, principal = bench.limits(), who(rate_per_minute=1, rate_burst=1)
    assert await ask(limits, principal) == {Admitted: 1}
    assert await ask(limits, principal) == {Limited: 1}
    looks = bench.database.looks
    bench.now_s += 30
    assert await ask(limits, principal, 100) == {Limited: 100}
    assert bench.database.looks == looks
    bench.now_s += 31  # by the clock of this process: the database is asked, and says no
    assert await ask(limits, principal) == {Limited: 1}
    assert bench.database.looks == looks + 1


async def test_a_new_rate_holds_at_once(bench: Bench) -> None:
    """What is remembered of the old rate refuses nobody under the new one."""
    limits = bench.limits()
    assert await ask(limits, who(rate_per_minute=1, rate_burst=1), 2) == {Admitted: 1, Limited: 1}
    assert await ask(limits, who(rate_per_minute=1, rate_burst=5)) == {Admitted: 1}


async def test_a_key_that_asks_too_much_takes_nothing_from_its_tenant(bench: Bench) -> None:
    """The key's rate comes first, and what it refuses is not taken from the tenant's."""
    limits = bench.limits()
    members: dict[str, Json] = {"rate_per_minute": 1, "rate_burst": 5}
    principal = who(**members, key_rate_per_minute=1, key_rate_burst=2)
    assert await ask(limits, principal, 9) == {Admitted: 2, Limited: 7}
    assert (bench.limited("key"), bench.limited("tenant")) == (7, 0)
    bounds = limits.of(principal)
    assert bounds is not None
    gauges = {gauge.policy: gauge.standing.left for gauge in await limits.look(bounds)}
    assert gauges == {"key": 0, "tenant": 3}


async def test_both_rates_take_one_look(bench: Bench) -> None:
    """Callers of keys with rates and without share one look; who comes first is served first."""
    limits = bench.limits()
    ring = read_keyring(
        {
            key: {"tenant": "acme", "rate_per_minute": 1, "rate_burst": 5, **members}
            for key, members in {
                "narrow": {"key_rate_per_minute": 1, "key_rate_burst": 2},
                "wide": {"key_rate_per_minute": 1, "key_rate_burst": 9},
                "free": {},
            }.items()
        }
    )
    came = ("narrow", "wide", "narrow", "narrow", "free", "wide", "free", "wide")
    waiting: list[Awaitable[Passage]] = []
    for key in came:
        principal = ring.find(key.encode())
        assert principal is not None
        bounds = limits.of(principal)
        assert bounds is not None
        waiting.append(limits.admit(bounds))
    answers = asyncio.gather(*waiting)
    await asyncio.sleep(0)
    await limits.take_waiting()
    assert bench.database.looks == 1
    told = await answers
    assert [isinstance(one, Admitted) for one in told] == [
        *(True, True, True),
        False,  # the third of a key that has two, and it takes nothing of its tenant's
        *(True, True),
        *(False, False),  # the tenant's five are gone
    ]
    assert (bench.limited("key"), bench.limited("tenant")) == (1, 2)
    gauges = [
        [(gauge.policy, gauge.standing.left) for gauge in one.gauges]
        for one in told
        if not isinstance(one, Unchecked)
    ]
    assert gauges == [
        [("key", 1), ("tenant", 4)],
        [("key", 8), ("tenant", 3)],
        [("key", 0), ("tenant", 2)],
        [("key", 0)],
        [("tenant", 1)],
        [("key", 7), ("tenant", 0)],
        [("tenant", 0)],
        [("key", 6), ("tenant", 0)],
    ]


async def test_a_tenant_that_has_nothing_costs_its_keys_nothing(bench: Bench) -> None:
    """Once that is known, whoever asks is refused without a look, and keeps what its key has."""
    limits = bench.limits()
    members: dict[str, Json] = {"rate_per_minute": 1, "rate_burst": 1}
    principal = who(**members, key_rate_per_minute=1, key_rate_burst=9)
    assert await ask(limits, principal, 2) == {Admitted: 1, Limited: 1}
    looks = bench.database.looks
    assert await ask(limits, principal, 5) == {Limited: 5}
    assert bench.database.looks == looks
    bounds = limits.of(principal)
    assert bounds is not None
    gauges = {gauge.policy: gauge.standing.left for gauge in await limits.look(bounds)}
    assert gauges == {"key": 7, "tenant": 0}


async def test_a_changed_key_has_its_new_limits_at_once(bench: Bench) -> None:
    """What holds is remembered for a principal, and not for whoever has its name afterwards."""
    limits = bench.limits()
    first, second = who(rate_per_minute=60, rate_burst=3), who(rate_per_minute=60, rate_burst=4)
    assert first.key_id == second.key_id
    for principal, burst in ((first, 3), (second, 4), (first, 3)):
        bounds = limits.of(principal)
        assert bounds is not None
        assert [share.rate.burst for share in bounds.shares] == [burst]
        assert limits.of(principal) is bounds


async def test_nobody_passes_a_limit_that_cannot_be_checked(bench: Bench) -> None:
    """When the buckets do not answer, callers are told so; afterwards all is as before."""
    limits, principal = bench.limits(), who(rate_per_minute=60, rate_burst=3)
    bench.database.fail = StorageUnavailable("away")
    assert await ask(limits, principal, 2) == {Unchecked: 2}
    bench.database.fail = None
    assert await ask(limits, principal, 2) == {Admitted: 2}
    assert bench.limited("unchecked") == 2
    assert bench.metrics.registry.get_sample_value("signet_limit_failures_total") == 1


async def test_the_log_says_why_limits_cannot_be_checked(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reason at once, then every ten seconds with how many looks had no answer meanwhile."""
    limits, principal = bench.limits(), who(rate_per_minute=60)
    bench.database.fail = StorageUnavailable("the disk is full")
    for _ in range(3):
        await ask(limits, principal)
    bench.now_s += 10
    bench.database.fail = StorageBusy("somebody holds it")
    await ask(limits, principal)
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(one["event"], one["level"]) for one in told] == [("limits_unavailable", "warning")] * 2
    assert [(one["code"], one["error"], one["looks"]) for one in told] == [
        ("storage_unavailable", "the disk is full", 1),
        ("storage_busy", "somebody holds it", 3),
    ]


async def test_a_database_that_hangs_is_not_waited_for(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    """The wait is bounded, ends as if the buckets were away, and the log says so."""
    limits, principal = bench.limits(), who(rate_per_minute=60)
    bench.database.hang = True
    async with asyncio.timeout(240):
        assert await ask(limits, principal) == {Unchecked: 1}
    assert json.loads(capsys.readouterr().err)["code"] == "timeout"


async def test_a_caller_who_leaves_does_no_harm(bench: Bench) -> None:
    """One cancelled while it waits; the others with it are answered."""
    limits, principal = bench.limits(), who(rate_per_minute=60, rate_burst=9)
    bounds = limits.of(principal)
    assert bounds is not None
    gone, stays = (
        asyncio.ensure_future(limits.admit(bounds))  # noqa: TID251
        for _ in range(2)
    )
    await asyncio.sleep(0)
    gone.cancel()
    await limits.take_waiting()
    assert isinstance(await stays, Admitted)


async def test_places_are_counted(bench: Bench) -> None:
    """As many as the cap are in at once; each that leaves makes room for one."""
    limits, principal = bench.limits(), who(concurrency=2)
    bounds = limits.of(principal)
    assert bounds is not None
    tenant = principal.tenant.id
    assert [limits.enter(tenant, bounds) for _ in range(3)] == [True, True, False]
    assert limits.in_progress(tenant) == 2
    limits.leave(tenant)
    assert limits.enter(tenant, bounds)
    for _ in range(2):
        limits.leave(tenant)
    assert limits.in_progress(tenant) == 0
    assert bench.limited("concurrency") == 1


async def test_full_buckets_are_forgotten(bench: Bench) -> None:
    """Nothing is kept of a caller who has not come for long; a fresh bucket stays."""
    limits, principal = bench.limits(), who(rate_per_minute=60)
    await ask(limits, principal)
    assert await limits.forget() == 0


# One more comes in a minute, when a test is over; an eighth of the burst is more than anybody here
# borrows.
LENDS: dict[str, Json] = {"rate_per_minute": 1, "rate_burst": 1000}


async def borrow(limits: Limits, principal: Principal, crowd: int = 20) -> None:
    """Make the bucket by one request, then ask so often at once that as many more are borrowed."""
    assert await ask(limits, principal) == {Admitted: 1}
    assert await ask(limits, principal, crowd) == {Admitted: crowd}


def at_once(limits: Limits, principal: Principal) -> Passage | None:
    """What somebody is told who does not wait; None if there is nothing to be told yet."""
    bounds = limits.of(principal)
    assert bounds is not None
    asking = limits.admit(bounds)
    try:
        asking.send(None)
    except StopIteration as told:
        passage: Passage = told.value
        return passage
    asking.close()  # it left, but the next look takes one for it
    return None


def borrowed(limits: Limits, principal: Principal) -> int:
    """How many are let in without waiting, until nothing is left."""
    count = 0
    while isinstance(at_once(limits, principal), Admitted):
        count += 1
    return count


async def left(bench: Bench, principal: Principal) -> dict[str, int]:
    """What another process sees in the shared buckets."""
    limits = bench.limits()
    bounds = limits.of(principal)
    assert bounds is not None
    return {gauge.policy: gauge.standing.left for gauge in await limits.look(bounds)}


async def settled() -> None:
    """Let the look be taken that somebody has asked for; none waits for a thread."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_who_finds_a_borrowed_unit_waits_for_nothing(bench: Bench) -> None:
    """No look and no task switch; each is told what is left, of the bucket and of the borrowed."""
    limits, principal = bench.limits(), who(**LENDS)
    await borrow(limits, principal)
    looks = bench.database.looks
    told = [at_once(limits, principal) for _ in range(5)]
    assert bench.database.looks == looks
    assert all(isinstance(one, Admitted) for one in told)
    assert [one.gauges[0].standing.left for one in told if isinstance(one, Admitted)] == [
        *range(1000 - 21 - 1, 1000 - 21 - 6, -1)
    ]
    assert await left(bench, principal) == {"tenant": 1000 - 21 - 16}
    bounds = limits.of(principal)
    assert bounds is not None
    [seen] = await limits.look(bounds)
    assert seen.standing.left == 1000 - 21 - 5
    assert borrowed(limits, principal) == 16 - 5


async def test_what_is_borrowed_ends(bench: Bench) -> None:
    """By the clock of this process, counted from before the question was sent; then it is lost."""
    limits, principal = bench.limits(), who(**LENDS)
    bench.take_s(0.02)
    await borrow(limits, principal, 40)
    bench.now_s += 0.03 - 1e-6
    assert isinstance(at_once(limits, principal), Admitted)
    bounds = limits.of(principal)
    assert bounds is not None
    bench.now_s += 2e-6
    bench.database.meanwhile = lambda: None
    [seen] = await limits.look(bounds)
    assert {"tenant": seen.standing.left} == await left(bench, principal)
    assert at_once(limits, principal) is None


async def test_what_comes_too_late_is_not_borrowed(bench: Bench) -> None:
    """Where a look takes as long as units may be held, it asks for none ahead."""
    limits, principal = bench.limits(), who(**LENDS)
    bench.take_s(0.045)
    await borrow(limits, principal, 40)
    assert await left(bench, principal) == {"tenant": 1000 - 41}


async def test_what_is_borrowed_is_spent_at_its_own_rate_only(bench: Bench) -> None:
    """A changed rate finds nothing there, and what was borrowed before is gone for good."""
    limits, principal = bench.limits(), who(**LENDS)
    await borrow(limits, principal)
    other = who(rate_per_minute=2, rate_burst=1000)
    bounds = limits.of(other)
    assert bounds is not None
    [seen] = await limits.look(bounds)
    assert {"tenant": seen.standing.left} == await left(bench, other)
    assert at_once(limits, other) is None
    assert await ask(limits, other) == {Admitted: 1}
    assert at_once(limits, principal) is None


async def test_what_is_borrowed_is_spent_by_its_own_key_only(bench: Bench) -> None:
    """Neither another key with a rate nor another tenant finds anything."""
    members: dict[str, Json] = {"key_rate_per_minute": 1, "key_rate_burst": 1000}
    ring = read_keyring(
        {key: {"tenant": tenant, **members} for key, tenant in (("a", "acme"), ("b", "acme"))}
        | {"c": {"tenant": "other", **LENDS}}
    )
    first, *others = (ring.find(key) for key in (b"a", b"b", b"c"))
    assert first is not None
    limits = bench.limits()
    await borrow(limits, first)
    for other in others:
        assert other is not None
        assert at_once(limits, other) is None
    assert isinstance(at_once(limits, first), Admitted)


async def test_both_rates_are_borrowed_of(bench: Bench) -> None:
    """One unit of each is spent; when one of the two has none, nobody is let in by the other."""
    limits = bench.limits()
    principal = who(**LENDS, key_rate_per_minute=1, key_rate_burst=500)
    await borrow(limits, principal)
    told = at_once(limits, principal)
    assert isinstance(told, Admitted)
    assert [(gauge.policy, gauge.standing.left) for gauge in told.gauges] == [
        ("key", 500 - 22),
        ("tenant", 1000 - 22),
    ]
    assert all(isinstance(at_once(limits, who(**LENDS)), Admitted) for _ in range(15))
    assert at_once(limits, principal) is None
    assert await left(bench, principal) == {"key": 500 - 21 - 16, "tenant": 1000 - 21 - 16}


async def let_in(limits: Limits, bounds: module.Bounds) -> Admitted:
    """Wait for a look, which lets in."""
    asked = asyncio.gather(limits.admit(bounds))
    await asyncio.sleep(0)
    await limits.take_waiting()
    [told] = await asked
    assert isinstance(told, Admitted)
    return told


async def test_who_waits_for_its_tenant_uses_what_is_borrowed_of_its_key(bench: Bench) -> None:
    """It is let through to its tenant's bucket by a unit that its key has here."""
    limits = bench.limits()
    principal = who(**LENDS, key_rate_per_minute=1, key_rate_burst=500)
    await borrow(limits, principal)
    for _ in range(16):
        assert isinstance(at_once(limits, who(**LENDS)), Admitted)
    bounds = limits.of(principal)
    assert bounds is not None
    told = await let_in(limits, bounds)
    assert [gauge.standing.left for gauge in told.gauges] == [500 - 22, 1000 - 21 - 17]


async def test_who_waits_for_its_key_uses_what_is_borrowed_of_its_tenant(bench: Bench) -> None:
    """It is not taken from the shared bucket once more, and what the key refuses is put back."""
    limits, free = bench.limits(), who(**LENDS)
    await borrow(limits, free)
    narrow = who(**LENDS, key_rate_per_minute=1, key_rate_burst=2)
    bounds = limits.of(narrow)
    assert bounds is not None
    asked = asyncio.gather(*(limits.admit(bounds) for _ in range(5)))
    await asyncio.sleep(0)
    await limits.take_waiting()
    gauges = [
        {gauge.policy: gauge.standing.left for gauge in one.gauges}
        for one in await asked
        if not isinstance(one, Unchecked)
    ]
    assert gauges == [
        {"key": 1, "tenant": 1000 - 22},
        {"key": 0, "tenant": 1000 - 23},
        *[{"key": 0}] * 3,
    ]
    # Twenty are enough for the 26 that came; eleven were not set aside, so that nine more are lent.
    assert await left(bench, free) == {"tenant": 1000 - 21 - 16 - 9}
    assert borrowed(limits, free) == 16 - 2 + 9


async def test_a_look_that_fails_keeps_what_was_set_aside(bench: Bench) -> None:
    """Who waited is not let in, and what was borrowed is still there for who needs no look."""
    limits, free = bench.limits(), who(**LENDS)
    await borrow(limits, free)
    narrow = who(**LENDS, key_rate_per_minute=1, key_rate_burst=2)
    bench.database.fail = StorageUnavailable("away")
    assert await ask(limits, narrow, 5) == {Unchecked: 5}
    assert borrowed(limits, free) == 16
    bench.database.fail = None
    assert await ask(limits, free) == {Admitted: 1}
    # The one who found nothing has left, and has been counted.
    assert (await left(bench, free))["tenant"] + borrowed(limits, free) == 1000 - 21 - 16 - 2


async def test_what_has_lapsed_is_set_aside_for_nobody(bench: Bench) -> None:
    """Who waits for its key after the end of what was borrowed is counted by the shared bucket."""
    limits = bench.limits()
    await borrow(limits, who(**LENDS))
    bench.now_s += 0.06
    narrow = who(**LENDS, key_rate_per_minute=1, key_rate_burst=2)
    assert await ask(limits, narrow, 2) == {Admitted: 2}
    assert await left(bench, narrow) == {"key": 0, "tenant": 1000 - 21 - 16 - 2}


async def test_what_was_borrowed_outlives_the_database_until_its_end(bench: Bench) -> None:
    """Afterwards nobody passes a limit that cannot be checked; one renewal is tried meanwhile."""
    limits, principal = bench.limits(), who(**LENDS)
    await borrow(limits, principal)
    bench.database.fail = StorageUnavailable("away")
    looks = bench.database.looks
    assert await ask(limits, principal, 14) == {Admitted: 14}
    await settled()
    assert await ask(limits, principal) == {Admitted: 1}
    assert bench.database.looks == looks + 1
    bench.now_s += 0.06
    assert await ask(limits, principal) == {Unchecked: 1}


async def test_below_its_rate_a_caller_waits_for_nothing(bench: Bench) -> None:
    """A thousand requests a second take a look every twenty milliseconds, and wait for none."""
    limits, principal = bench.limits(), who(rate_per_minute=600_000)
    await borrow(limits, principal)
    taking = asyncio.ensure_future(_take(limits))  # noqa: TID251
    waited = 0
    looks = bench.database.looks
    for _ in range(1000):
        bench.now_s += 0.001
        if at_once(limits, principal) is None:
            waited += 1
        await settled()
    taking.cancel()
    assert waited <= 5  # until it is known how much is needed
    assert bench.database.looks - looks <= 70


async def test_renewals_keep_the_pauses_between_looks(bench: Bench) -> None:
    """Looks take a small part of the time, whatever one takes: a renewal waits for its turn."""
    limits, principal = bench.limits(), who(**LENDS)
    bench.take_s(0.001)
    await borrow(limits, principal)
    bench.now_s -= 0.001  # less than ten milliseconds after the look began
    looks = bench.database.looks
    taking = asyncio.ensure_future(_take(limits))  # noqa: TID251
    for _ in range(12):
        assert isinstance(at_once(limits, principal), Admitted)
        await settled()
    assert bench.database.looks == looks
    bench.now_s += 0.011
    assert isinstance(at_once(limits, principal), Admitted)
    await settled()
    assert bench.database.looks == looks + 1
    assert isinstance(at_once(limits, principal), Admitted)
    await settled()
    assert bench.database.looks == looks + 1
    taking.cancel()


async def test_a_bucket_that_lends_nothing_is_not_asked_again_for_nobody(bench: Bench) -> None:
    """Somebody else has taken of it: one renewal finds that out, until one waits again."""
    limits, principal = bench.limits(), who(**LENDS)
    await borrow(limits, principal)
    assert await ask(bench.limits(), principal, 200) == {Admitted: 200}
    looks = bench.database.looks
    taking = asyncio.ensure_future(_take(limits))  # noqa: TID251
    for _ in range(16):
        assert isinstance(at_once(limits, principal), Admitted)
        await settled()
    assert bench.database.looks == looks + 1
    assert await ask(limits, principal) == {Admitted: 1}
    taking.cancel()


async def test_who_exceeds_is_cut_off_as_before(bench: Bench) -> None:
    """What was borrowed is of the burst, not beside it."""
    limits, principal = bench.limits(), who(rate_per_minute=1, rate_burst=200)
    heard: Counter[type] = Counter()
    for crowd in (1, 5, 1, 1, 8, 30, 1, 200):
        heard += await ask(limits, principal, crowd)
    # As long as it is held, what was lent is charged as if it were spent later.
    assert 199 <= heard[Admitted] <= 200
    assert heard[Limited] == 247 - heard[Admitted]


@pytest.mark.parametrize(
    ("burst", "crowds"),
    [
        pytest.param(8, (1, 1, 1, 1, 1, 1), id="a small burst"),
        pytest.param(1000, (1, 1, 2), id="few"),
        pytest.param(200, (1, 100), id="more than an eighth"),
    ],
)
async def test_nothing_is_borrowed(bench: Bench, burst: int, crowds: tuple[int, ...]) -> None:
    """Of a small burst, for few who come, by who has used up what may be lent."""
    limits, principal = bench.limits(), who(rate_per_minute=1, rate_burst=burst)
    for crowd in crowds:
        assert await ask(limits, principal, crowd) == {Admitted: crowd}
    assert await left(bench, principal) == {"tenant": burst - sum(crowds)}


async def test_what_is_borrowed_follows_what_is_asked(bench: Bench) -> None:
    """Who came long ago is not counted any more, nor who came a while ago in full."""
    limits, principal = bench.limits(), who(**LENDS)
    await borrow(limits, principal, 40)
    assert borrowed(limits, principal) == 32
    bench.now_s += 0.1
    # The look is for the one who found nothing, and spread over the time since the last one, half
    # of the 32 came in the last moment. Of what it borrows, this one spends the first.
    assert await ask(limits, principal) == {Admitted: 1}
    assert borrowed(limits, principal) == int((1 + 32 / 2) * 0.8) - 1
    bench.now_s += 10
    assert await ask(limits, principal) == {Admitted: 1}
    assert borrowed(limits, principal) == 0


async def test_a_bucket_that_was_lost_has_no_more_than_its_burst(bench: Bench) -> None:
    """What was borrowed of it before, and is still here, is not told on top."""
    limits, free = bench.limits(), who(**LENDS)
    await borrow(limits, free)
    await bench.database.transient(_lose_all)
    narrow = who(**LENDS, key_rate_per_minute=1, key_rate_burst=2)
    bounds = limits.of(narrow)
    assert bounds is not None
    told = await let_in(limits, bounds)
    assert [gauge.standing.left for gauge in told.gauges] == [1, 1000]
    seen = {gauge.policy: gauge.standing.left for gauge in await limits.look(bounds)}
    assert seen == {"key": 1, "tenant": 1000}


async def _lose_all(tx: Tx) -> None:
    await tx.execute("DELETE FROM rate_limits")


async def test_not_everything_is_remembered(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers that are very many lose what was borrowed for them, and nothing grows."""
    monkeypatch.setattr(module, "_MOST_REMEMBERED", 2)
    limits = bench.limits()
    principals = [
        read_keyring({"key": {"tenant": f"t{n}", **LENDS}}).find(b"key") for n in range(3)
    ]
    first = principals[0]
    assert first is not None
    await borrow(limits, first)
    for other, kept in ((principals[1], True), (principals[2], False)):
        assert other is not None
        assert await ask(limits, other) == {Admitted: 1}
        assert isinstance(at_once(limits, first), Admitted) == kept


def test_what_is_renewed_for_nobody_takes_one_statement() -> None:
    """Where nobody waits nothing depends on what the keys' buckets let through."""
    rate = per_minute(60_000, 10_000)
    shares = [Share("tenant", "tenant/a", rate), Share("key", "key/a/k", rate)]
    purses = {share.name: module._Purse(rate, 0.0) for share in shares}
    crowd = module._Crowd([], shares, purses)
    assert [want.bucket for want in crowd.first()] == ["key/a/k", "tenant/a"]
    assert crowd.then([]) == []
