"""Kill a deployment between any two steps from exchange to Stripe, and count what Stripe holds.

    python -m tests.drills.billing [--runs N] [--engine sqlite|postgres] [--seed S] [--again]

Each run makes a month of exchanges, counts and sends them in a process that kills itself (SIGKILL)
before or after its n-th step, where a step is a transaction, a read or a call of Stripe, while a
fifth of those calls go wrong; a second process dies in the same way, and a third one ends the work.
Then Stripe must hold exactly the overage that the receipts say, tier by tier.

In the runs `restored`, the second process goes on beyond a backup, which then takes the database's
place without anybody saying so. What is counted in the end is what the restored receipts say.

Results are kept in docs/evidence/billing.jsonl; `--seed` plays without keeping them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random  # noqa: TID251 - a seeded schedule of faults
from typing import Any

from tests.billing import HOUR_US, START_US, TENANT, Month
from tests.drills.evidence import Evidence
from tests.postgres import cluster
from tests.unit.gateway.test_billing import KINDS, items_of

from signet.core.billing import Answer
from signet.core.pricing import allocate
from signet.gateway.billing import DatabaseRestored, Dispatch, Router
from signet.gateway.reconciliation import Reconciliation
from signet.providers.operator_http import OperatorLimits
from signet.providers.stripe import StripeBiller
from signet.storage import outbox
from signet.storage.backup import back_up
from signet.storage.database import Database, PostgresConfig, SqliteConfig, open_database
from signet.storage.landmark import Landmark
from signet.workers.ownership import is_dead, this_process

LIMITS = OperatorLimits(deadline_s=30.0, connect_s=30.0)
NOW_US = START_US + 8 * HOUR_US
BATCHES = (4, 9, 6, 1, 12)
"""How many exchanges happen in each of the month's first hours; all fall out of three tiers."""
BACKED_UP = BATCHES[:2]
RESTORED = (*BACKED_UP, 0, 5, 2)
"""What happens in a life whose third hour was lost."""


class Steps:
    """Counts steps and ends this process at the chosen one."""

    def __init__(self, last: int | None) -> None:
        self.last = last
        self.made = 0

    def step(self) -> None:
        """One more; the chosen one is the last thing that this process does."""
        self.made += 1
        if self.made == self.last:
            os.kill(os.getpid(), signal.SIGKILL)


class Dying:
    """A database or a biller whose calls count as two steps: before and after."""

    def __init__(self, inner: Any, steps: Steps, names: tuple[str, ...]) -> None:
        self._inner = inner
        self._steps = steps
        self._names = names

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)
        if name not in self._names:
            return attribute

        async def call(*args: Any, **kwargs: Any) -> Any:
            self._steps.step()
            result = await attribute(*args, **kwargs)
            self._steps.step()
            return result

        return call


async def work(
    config: Any,
    url: str,
    kind: str,
    steps: Steps,
    landmark: Path,
    batches: Sequence[int] = BATCHES,
) -> None:
    """Make, count and send a month; every part of it can be done again without harm."""
    async with open_database(config) as opened:
        db: Database = Dying(opened, steps, ("transact", "read_current"))  # type: ignore[assignment]
        real = StripeBiller("sk_test_double", origin=url, limits=LIMITS)
        biller: Any = Dying(real, steps, ("send", "held_by_hour"))
        plan = items_of(kind)
        month = Month(db, {TENANT: plan}, now_us=NOW_US)
        router = Router(biller=biller, clock=lambda: NOW_US)
        # Waits pass at once, so that a drill takes seconds and not hours.
        later = [NOW_US + HOUR_US]
        dispatch = Dispatch(
            database=db,
            biller=biller,
            router=router,
            owner=this_process(),
            is_dead=is_dead,
            clock=lambda: later[0],
            monotonic=time.monotonic,
            dice=os.urandom,
            heard=ignore,
            landmark=Landmark(landmark),
        )
        reconciliation = Reconciliation(
            database=db,
            biller=biller,
            router=router,
            metering=month.metering,
            owner=this_process(),
            clock=lambda: later[0],
            dice=os.urandom,
            lag_us=0,
        )

        async def send() -> None:
            with contextlib.suppress(DatabaseRestored):
                await dispatch.free_the_dead()
                if await reconciliation.after_restore([plan]):
                    await dispatch.send_once()

        # A machine that others use may be too slow for the deadline now and then.
        while True:
            await router.resolve([plan])
            if not router.unreachable:
                break
        for hour, count in enumerate(batches):
            month.made = 100 * hour
            await exchange(month, count, START_US + hour * HOUR_US)
            await month.count()
            await send()
        for _ in range(400):
            later[0] += HOUR_US
            await send()
            us = await db.transact(outbox.deployment, "")
            if us.restored_us is None and not (await db.read_current(outbox.depth)).waiting:
                break
        else:
            left = await opened.read_current(outbox.depth)
            lanes = await opened.read_current(outbox.lane_owners)
            raise RuntimeError(f"the outbox does not empty: {left}, {us}, lanes of {lanes}")
        await real.aclose()


def ignore(_: Answer) -> None:
    """Nobody listens."""


async def exchange(month: Month, count: int, at_us: int) -> None:
    """Exchanges with keys of their own: those of an earlier process are replayed."""
    if not count:
        return
    with contextlib.suppress(AssertionError):
        await month.exchange(count, at_us=at_us)


def in_process(function: Callable[[], Any]) -> int:
    """Run a function in a forked process; its wait status."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            asyncio.run(function())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


@contextlib.contextmanager
def double(*arguments: str) -> Iterator[str]:
    """A loopback Stripe in a process of its own; its URL."""
    command = [sys.executable, "-m", "tests.stripe_double", "--now", str(NOW_US // 10**6)]
    with subprocess.Popen(
        [*command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        assert process.stdin is not None
        process.stdin.close()


def state_of(url: str) -> dict[str, Any]:
    """What the loopback Stripe holds."""
    with urllib.request.urlopen(f"{url}/_double") as answer:
        return json.load(answer)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run keeps its database, and the file that is not in it."""

    config: Any
    landmark: Path
    backed_up: Callable[[], Any]
    """Copies the database, which nobody has open, and returns where the copy is."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One run."""

    kind: str
    deaths: int
    right: bool
    held: dict[str, int]
    collisions: int


def killed(place: Place, kind: str, dice: Random) -> Result:
    """Kill twice, finish, and compare."""
    with double("--faults", str(dice.randrange(10**6))) as url:
        deaths = sum(
            lived(place.config, url, kind, last, place.landmark)
            for last in (dice.randrange(1, 150), dice.randrange(1, 150), None)
        )
        return compared(url, kind, deaths, sum(BATCHES))


def restored(place: Place, kind: str, dice: Random) -> Result:
    """Back up, go on, restore, kill, finish, and compare with what the restored receipts say."""
    with double("--faults", str(dice.randrange(10**6))) as url:
        lived(place.config, url, kind, None, place.landmark, BACKED_UP)
        copy = place.backed_up()
        deaths = lived(place.config, url, kind, dice.randrange(60, 400), place.landmark)
        for last in (dice.randrange(1, 150), None):
            deaths += lived(copy, url, kind, last, place.landmark, RESTORED)
        return compared(url, kind, deaths, sum(RESTORED))


def lived(
    config: Any,
    url: str,
    kind: str,
    last: int | None,
    landmark: Path,
    batches: Sequence[int] = BATCHES,
) -> int:
    """One process until its end; 1 if it was killed."""
    status = in_process(lambda: work(config, url, kind, Steps(last), landmark, batches))
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("the worker failed by itself")
    return int(os.WIFSIGNALED(status))


def compared(url: str, kind: str, deaths: int, exchanges: int) -> Result:
    """What Stripe holds against what so many exchanges cost."""
    told = state_of(url)
    prefix = "si_legacy_" if kind == "legacy" else f"mtr_{kind}_"
    held = {tier: told["held"][prefix + tier] for tier in ("t1", "t2")}
    expected = dict(zip(("t1", "t2"), allocate(items_of(kind).vex, exchanges)[1:], strict=True))
    return Result(
        kind=kind,
        deaths=deaths,
        right=held == expected,
        held=held,
        collisions=told["collisions"],
    )


SCENES: Mapping[str, tuple[Callable[[Place, str, Random], Result], Sequence[str]]] = {
    "killed": (killed, KINDS),
    # Usage records cannot be read back by the hour, so what only the lost database said stays.
    "restored": (restored, KINDS[:2]),
}


@contextlib.contextmanager
def places(engine: str) -> Iterator[Callable[[], Place]]:
    """Makes empty databases of an engine."""
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="signet-drill-")))
        running = stack.enter_context(cluster()) if engine == "postgres" else None
        numbers = itertools.count()

        def place() -> Place:
            at = scratch / str(next(numbers))
            at.mkdir()
            if running is None:
                config = SqliteConfig(path=at / "signet.db")

                def backed_up() -> SqliteConfig:
                    back_up(config, at / "backup.db")
                    return SqliteConfig(path=at / "backup.db")

                return Place(config=config, landmark=at / "stripe-sends", backed_up=backed_up)
            name = running.empty_database()

            def copied() -> PostgresConfig:
                running.sql(f"DROP DATABASE IF EXISTS {name}_backup WITH (FORCE)")
                running.sql(f"CREATE DATABASE {name}_backup TEMPLATE {name}")
                return PostgresConfig(url=running.url(f"{name}_backup"), pool_size=4)

            return Place(
                config=PostgresConfig(url=running.url(name), pool_size=4),
                landmark=at / "stripe-sends",
                backed_up=copied,
            )

        yield place


def main() -> int:
    """Play what is left to play; 0 if everything held."""
    parser = argparse.ArgumentParser(prog="python -m tests.drills.billing")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--engine", choices=["sqlite", "postgres"])
    parser.add_argument("--scene", choices=SCENES)
    parser.add_argument("--seed", type=int, help="play with this seed, and keep no evidence")
    parser.add_argument("--again", action="store_true", help="do not go on with an earlier run")
    args = parser.parse_args()
    evidence = None if args.seed is not None else Evidence("billing")
    engines = [args.engine] if args.engine else ["sqlite", "postgres"]
    scenes = [args.scene] if args.scene else list(SCENES)
    if evidence is not None and args.again:
        evidence.forget([f"{scene}-{engine}" for scene in scenes for engine in engines])
    all_held = True
    for engine in engines:
        for scene in scenes:
            with places(engine) as place:
                all_held &= played(engine, scene, place, args.runs, args.seed, evidence)
    return 0 if all_held else 1


def played(
    engine: str,
    scene: str,
    place: Callable[[], Place],
    runs: int,
    seed: int | None,
    evidence: Evidence | None,
) -> bool:
    """Play a scene until it has held so many times; False when it did not hold once."""
    name = f"{scene}-{engine}"
    play, kinds = SCENES[scene]
    done = 0 if evidence is None else evidence.held(name)
    deaths = 0
    for number in range(done, runs):
        began = time.time()
        # Every run has a seed of its own, so that one can be played again alone.
        dice = Random(f"{seed}-{name}-{number}")
        result = play(place(), kinds[number % len(kinds)], dice)
        holds = result.right and result.collisions == 0
        deaths += result.deaths
        if evidence is not None:
            evidence.add(name, times=1, holds=holds, began=began, result=asdict(result))
        if not holds:
            print(f"{name}, run {number}: {result}", file=sys.stderr)
            return False
    print(f"{name}: {runs} of {runs} runs exact, {deaths} processes killed", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
