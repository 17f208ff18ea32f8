"""Kill a deployment between any two steps from exchange to Stripe, and count what Stripe holds.

    python -m tests.drills.billing [--runs N] [--engine sqlite|postgres] [--seed S]

Each run makes a month of exchanges, counts and sends them in a process that kills itself (SIGKILL)
before or after its n-th step, where a step is a transaction, a read or a call of Stripe, while a
fifth of those calls go wrong; a second process dies in the same way, and a third one ends the work.
Then Stripe must hold exactly the overage that the receipts say, tier by tier.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random  # noqa: TID251 - a seeded schedule of faults
from typing import Any

from tests.billing import HOUR_US, START_US, TENANT, Month
from tests.postgres import cluster
from tests.unit.gateway.test_billing import KINDS, LIMITS, items_of

from signet.core.billing import Answer
from signet.core.pricing import allocate
from signet.gateway.billing import Dispatch, Router
from signet.providers.stripe import StripeBiller
from signet.storage import outbox
from signet.storage.database import Database, PostgresConfig, SqliteConfig, open_database

NOW_US = START_US + 8 * HOUR_US
BATCHES = (4, 9, 6, 1, 12)
"""How many exchanges happen in each of the month's first hours; all fall out of three tiers."""


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


def is_dead(owner: str) -> bool:
    """Whether the process that an owner names is gone; its parent has waited for it."""
    return not Path(f"/proc/{owner}").exists()


async def work(config: Any, url: str, kind: str, steps: Steps) -> None:
    """Make, count and send a month; every part of it can be done again without harm."""
    async with open_database(config) as opened:
        db: Database = Dying(opened, steps, ("transact", "read_current"))  # type: ignore[assignment]
        real = StripeBiller("sk_test_double", origin=url, limits=LIMITS)
        biller: Any = Dying(real, steps, ("send",))
        month = Month(db, {TENANT: items_of(kind)}, now_us=NOW_US)
        router = Router(biller=biller, clock=lambda: NOW_US)
        dispatch = Dispatch(
            database=db,
            biller=biller,
            router=router,
            owner=str(os.getpid()),
            is_dead=is_dead,
            # Waits pass at once, so that a drill takes seconds and not hours.
            clock=lambda: NOW_US + 3_600_000_000,
            monotonic=time.monotonic,
            dice=os.urandom,
            heard=ignore,
        )
        await router.resolve([items_of(kind)])
        for hour, count in enumerate(BATCHES):
            month.made = 100 * hour
            await exchange(month, count, START_US + hour * HOUR_US)
            await month.count()
            await dispatch.send_once()
        later = NOW_US
        for _ in range(400):
            later += 3_600_000_000
            await replace(dispatch, clock=at(later)).send_once()
            if not (await db.read_current(outbox.depth)).waiting:
                break
        else:
            raise RuntimeError("the outbox does not empty")
        await real.aclose()


def ignore(_: Answer) -> None:
    """Nobody listens."""


def at(instant_us: int) -> Callable[[], int]:
    """A clock that stands."""
    return lambda: instant_us


async def exchange(month: Month, count: int, at_us: int) -> None:
    """Exchanges with keys of their own: those of an earlier process are replayed."""
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


@dataclass
class Result:
    """One run."""

    kind: str
    deaths: int
    right: bool
    held: dict[str, int]


def run(config: Any, kind: str, dice: Random) -> Result:
    """Kill twice, finish, and compare."""
    with double("--faults", str(dice.randrange(10**6))) as url:
        deaths = 0
        for last in (dice.randrange(1, 150), dice.randrange(1, 150), None):
            status = in_process(lambda last=last: work(config, url, kind, Steps(last)))
            deaths += os.WIFSIGNALED(status)
            if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
                raise RuntimeError("the worker failed by itself")
        told = state_of(url)
    prefix = "si_legacy_" if kind == "legacy" else f"mtr_{kind}_"
    held = {tier: told["held"][prefix + tier] for tier in ("t1", "t2")}
    plan = items_of(kind).vex
    expected = dict(zip(("t1", "t2"), allocate(plan, sum(BATCHES))[1:], strict=True))
    return Result(kind, deaths, held == expected, held)


def main() -> int:
    """Run the drill and print its result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--engine", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    dice = Random(args.seed)
    right = deaths = 0
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        running = stack.enter_context(cluster()) if args.engine == "postgres" else None
        for number in range(args.runs):
            config = (
                SqliteConfig(path=scratch / f"{number}.db")
                if running is None
                else PostgresConfig(url=running.url(running.empty_database()), pool_size=4)
            )
            result = run(config, KINDS[number % len(KINDS)], dice)
            right += result.right
            deaths += result.deaths
            if not result.right:
                print(f"run {number}: {result}", file=sys.stderr)
    print(f"{args.engine}: {right} of {args.runs} runs exact, {deaths} processes killed")
    return 0 if right == args.runs else 1


if __name__ == "__main__":
    sys.exit(main())
