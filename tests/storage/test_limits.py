"""Buckets: the rule of the core on both engines, shared by all processes, never exceeded."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signet.core.ratelimit import SETBACK_US, Rate, lend
from signet.core.ratelimit import take as rule
from signet.storage.database import Database, PostgresConfig, SqliteConfig, open_database
from signet.storage.limits import Bucket, Want, forget_full, look, take, take_in_turn
from signet.storage.tx import Tx

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


def want(bucket: str, units: int, rate: Rate, ahead: int = 0) -> Want:
    """Some units of a bucket of this rate."""
    return Want(bucket, units, rate.interval_us, rate.burst, ahead)


async def test_a_bucket_follows_the_rule_of_the_core(db: Database) -> None:
    """Whatever is asked of buckets that are new, empty, full or owed much, SQL grants the same."""
    # A long interval, so that the time between two statements changes nothing.
    rate = Rate(3_600_000_000, 5)
    for units in (2, 0, 1, 9, 1):
        [before] = await db.transient(look, ["b"]) or [Bucket("b", 0, 0, 0)]
        [after] = await db.transient(take, [want("b", units, rate)])
        assert (after.granted, after.arrival_us) == rule(
            before.arrival_us, after.now_us, units, rate
        )
    for arrival_us in (0, 10**12, 10**17):
        await db.transient(_set, "b", arrival_us)
        [after] = await db.transient(take, [want("b", 3, rate)])
        assert (after.granted, after.arrival_us) == rule(arrival_us, after.now_us, 3, rate)


async def _set(tx: Tx, bucket: str, arrival_us: int) -> None:
    await tx.execute(
        "UPDATE rate_limits SET arrival_us = :at WHERE bucket = :bucket",
        at=arrival_us,
        bucket=bucket,
    )


async def test_lending_follows_the_rule_of_the_core(db: Database) -> None:
    """Whatever the bucket holds and is asked for, as much is lent, and charged, as Python says."""
    rate = Rate(1_000, 800)
    await db.transient(take, [want("b", 1, rate)])
    lent = 0
    for owed_us in (-(10**9), 0, 30_000, 60_000, 97_500, 98_500, 120_000, 900_000, 10**12):
        for units, ahead in ((0, 30), (1, 200), (3, 0), (60, 200), (900, 40)):
            await db.transient(_set, "b", int(time.time()) * 1_000_000 + owed_us)
            [before] = await db.transient(look, ["b"])
            [after] = await db.transient(take, [want("b", units, rate, ahead)])
            granted, arrival_us = rule(before.arrival_us, after.now_us, units, rate)
            expected = lend(arrival_us, after.now_us, ahead, rate)
            assert (after.granted, after.lent, after.arrival_us) == (granted, *expected)
            lent += after.lent
    assert lent


@given(
    st.lists(
        st.tuples(
            st.integers(0, 8),
            st.integers(0, 80),
            st.integers(1, 40_000_000) | st.integers(1, 2_000),
            st.integers(1, 6) | st.integers(300, 2_000),
        ),
        min_size=1,
        max_size=8,
    )
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_rates_may_change_under_a_bucket(
    db: Database, calls: list[tuple[int, int, int, int]]
) -> None:
    """Each call is granted by its own rate, over what the calls before it have left."""
    await db.transient(_forget, "changing")
    # A bucket that is not there yet lends nothing.
    [after] = await db.transient(take, [want("changing", 1, Rate(1, 10**6), 9)])
    assert (after.granted, after.lent, after.arrival_us) == (1, 0, after.now_us + 1)
    arrival_us = after.arrival_us
    for units, ahead, interval_us, burst in calls:
        rate = Rate(interval_us, burst)
        [after] = await db.transient(take, [want("changing", units, rate, ahead)])
        granted, arrival_us = rule(arrival_us, after.now_us, units, rate)
        lent, arrival_us = lend(arrival_us, after.now_us, ahead, rate)
        assert (after.granted, after.lent, after.arrival_us) == (granted, lent, arrival_us)


async def _forget(tx: Tx, bucket: str) -> None:
    await tx.execute("DELETE FROM rate_limits WHERE bucket = :bucket", bucket=bucket)


async def test_many_buckets_take_one_call(db: Database) -> None:
    """Each bucket answers by its own name and rate, whatever the order."""
    wants = [want(f"b{n}", n, Rate(10**9, 3)) for n in (5, 1, 3, 0)]
    granted = {bucket.name: bucket.granted for bucket in await db.transient(take, wants)}
    assert granted == {"b5": 3, "b1": 1, "b3": 3, "b0": 0}
    assert await db.transient(take, []) == []
    wants = [want(f"lends{n}", n, Rate(10**9, 99), n + 1) for n in (1, 0, 2)]
    for _ in range(2):
        found = {
            bucket.name: bucket[1:2] + bucket[4:] for bucket in await db.transient(take, wants)
        }
    assert found == {"lends1": (1, 2), "lends0": (0, 1), "lends2": (2, 3)}


async def test_what_is_taken_second_depends_on_the_first(db: Database) -> None:
    """What the first buckets granted decides what is wanted of the others; nothing is no call."""
    rate = Rate(10**9, 3)
    told: list[list[Bucket]] = []

    def then(buckets: Sequence[Bucket]) -> list[Want]:
        told.append(list(buckets))
        granted = sum(bucket.granted for bucket in buckets)
        return [want("tenant", granted, rate)] if granted else []

    keys = [want("key/a", 9, rate), want("key/b", 0, rate)]
    taken = await db.transient(take_in_turn, keys, then)
    assert {one.name: one.granted for one in taken} == {"key/a": 3, "key/b": 0, "tenant": 3}
    taken = await db.transient(take_in_turn, keys, then)
    assert {one.name: one.granted for one in taken} == {"key/a": 0, "key/b": 0}
    assert await db.transient(take_in_turn, [], then) == []
    assert [len(buckets) for buckets in told] == [2, 2, 0]


async def test_looking_takes_nothing(db: Database) -> None:
    """A bucket that was looked at still has all that it had; one that is not there is not made."""
    rate = Rate(10**9, 3)
    assert await db.transient(look, ["b"]) == []
    await db.transient(take, [want("b", 1, rate)])
    first = await db.transient(look, ["b", "c"])
    second = await db.transient(look, ["b", "c"])
    assert [bucket.arrival_us for bucket in first] == [bucket.arrival_us for bucket in second]
    [taken] = await db.transient(take, [want("b", 9, rate)])
    assert taken.granted == 2


async def test_only_full_buckets_are_forgotten(db: Database) -> None:
    """Who still owes something is not let off."""
    await db.transient(take, [want("old", 1, Rate(1, 1)), want("owing", 1, Rate(10**12, 1))])
    await db.transient(_set, "old", int(time.time() - 3 * 3600) * 1_000_000)
    assert await db.transient(forget_full) == 1
    assert [bucket.name for bucket in await db.transient(look, ["old", "owing"])] == ["owing"]


async def test_a_clock_set_back_is_forgiven(db: Database) -> None:
    """A bucket from far in the future owes one burst, not all that time."""
    rate = Rate(1_000_000, 2)
    await db.transient(take, [want("b", 1, rate)])
    await db.transient(_set, "b", int(time.time()) * 1_000_000 + 10 * SETBACK_US)
    [after] = await db.transient(take, [want("b", 1, rate)])
    assert after.granted == 0
    assert after.arrival_us == after.now_us + 2_000_000


async def test_two_processes_never_exceed_the_limit(
    config: SqliteConfig | PostgresConfig,
) -> None:
    """Two processes that take as fast as they can are granted no more than one could be."""
    rate = Rate(2_000, 40)
    heard = await _two("tests.storage.taker", config, rate)
    granted = sorted(took for taken in heard for took in taken)
    assert all(any(units for _, units in taken) for taken in heard)
    for first, (since_us, _) in enumerate(granted):
        passed = 0
        for until_us, units in granted[first:]:
            passed += units
            assert passed * rate.interval_us <= (
                rate.burst * rate.interval_us + until_us - since_us
            )


async def test_two_processes_that_borrow_never_exceed_the_limit(
    config: SqliteConfig | PostgresConfig,
) -> None:
    """Two whose callers are let in by borrowed units, then ask for all there is, are let in no
    faster than one could be."""
    rate = Rate(2_000, 400)
    heard = await _two("tests.storage.borrower", config, rate)
    passed = sorted((until_us, since_us) for passages in heard for since_us, until_us in passages)
    for since_us in sorted(since_us for _, since_us in passed):
        within = [until_us for until_us, began_us in passed if began_us >= since_us]
        for count, until_us in enumerate(within, start=1):
            assert count * rate.interval_us <= (rate.burst * rate.interval_us + until_us - since_us)


async def _two(
    module: str, config: SqliteConfig | PostgresConfig, rate: Rate
) -> list[list[tuple[int, int]]]:
    """Run a module as two processes on one database; the lines of two numbers that each printed."""
    async with open_database(config):
        pass
    kind, where = (
        ("sqlite", str(config.path))
        if isinstance(config, SqliteConfig)
        else ("postgres", config.url)
    )
    running = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, kind, where,
            str(rate.interval_us), str(rate.burst),
            cwd=ROOT, stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    heard = await asyncio.gather(*(one.communicate() for one in running))
    assert [one.returncode for one in running] == [0, 0]
    return [
        [(int(first), int(second)) for first, second in map(str.split, out.decode().splitlines())]
        for out, _ in heard
    ]
