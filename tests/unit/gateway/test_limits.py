"""Limits as one process holds them: who waits, who is refused at once, who pays nothing."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest

from signet.core.tenant import Principal, read_keyring
from signet.gateway.limits import (
    Admitted,
    LimitDefaults,
    Limited,
    Limits,
    Passage,
    Unchecked,
)
from signet.receipts.canonical import Json
from signet.storage.database import Database, SqliteConfig, open_database
from signet.storage.errors import StorageBusy, StorageUnavailable
from signet.telemetry.logs import build_logger
from signet.telemetry.metrics import Metrics

pytestmark = pytest.mark.anyio


class Counting:
    """The database, with every look at the buckets counted; `fail` keeps it from answering."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.looks = 0
        self.fail: Exception | None = None
        self.hang = False

    async def transient(self, *call: Any) -> Any:
        """Look, unless told not to."""
        self.looks += 1
        if self.hang:
            await asyncio.sleep(60)
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
