"""What limits cost: an exchange of a caller with rates against one without, and the door.

Run `python -m bench.limits`. One gateway for each engine is asked in turns by callers that have no
limit, a rate of their tenant, and a rate of their key as well, none of which is ever reached; then
a null route behind uvicorn's own protocol and behind the door. Costs are processor time of the
serving process and of PostgreSQL, medians over many short rounds, each in another order, so that
they hold on a busy machine.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import psutil
from tests.fleet import gateway, postgres_settings
from tests.postgres import cluster

from bench.exchange import body, served
from bench.load import TOOL, drive

CALLERS: Final = 64
ROUNDS: Final = 20
SECONDS: Final = 1.0

_RATE: Final = {"rate_per_minute": 600_000, "rate_burst": 1_000_000}
_KEY_RATE: Final = {"key_rate_per_minute": 600_000, "key_rate_burst": 1_000_000}
KEYS: Final[Mapping[str, Mapping[str, object]]] = {
    "no limit": {"tenant": "free"},
    "a rate": {"tenant": "rated", **_RATE},
    "two rates": {"tenant": "twice", **_RATE, **_KEY_RATE},
}


def processor_s(pid: int) -> float:
    """The processor time that a process and all below it have used."""
    root = psutil.Process(pid)
    times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def in_turns(turns: Mapping[str, Callable[[], tuple[float, float]]]) -> None:
    """Print the cost of each in microseconds, its rate, and both against the first."""
    costs: dict[str, list[float]] = {}
    rates: dict[str, list[float]] = {}
    order = list(turns)
    for number in range(ROUNDS + 1):
        order = [*order[1:], order[0]] if number % 2 else order[::-1]
        for what in order:
            cost_us, rate = turns[what]()
            if number:  # the first round warms up
                costs.setdefault(what, []).append(cost_us)
                rates.setdefault(what, []).append(rate)
    first = next(iter(turns))
    for what in turns:
        more = [mine / other for mine, other in zip(costs[what], costs[first], strict=True)]
        slower = [mine / other for mine, other in zip(rates[what], rates[first], strict=True)]
        print(
            f"  {what:24}{statistics.median(costs[what]):8.0f} us"
            f"{statistics.median(more) - 1:+8.1%}"
            f"{statistics.median(rates[what]):8.0f} /s{statistics.median(slower) - 1:+8.1%}"
        )


def asked(url: str, pids: list[int], api_key: str) -> tuple[float, float]:
    """Post for a while; what one request cost in microseconds, and how many were a second."""
    before = sum(map(processor_s, pids))
    load = drive(url, concurrency=CALLERS, seconds=SECONDS, body=body(), api_key=api_key)
    assert load.errors == 0, load
    return (sum(map(processor_s, pids)) - before) / load.count * 1e6, load.rate


def exchanges(engine: str) -> None:
    """An exchange with and without limits."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="signet-bench-")))
        settings = {"SP_API_KEYS": json.dumps(KEYS)}
        pids: list[int] = []
        if engine == "postgres":
            before = {child.pid for child in psutil.Process().children()}
            postgres = stack.enter_context(
                cluster(options={"fsync": "on", "synchronous_commit": "on"})
            )
            pids = [c.pid for c in psutil.Process().children() if c.pid not in before]
            settings |= postgres_settings(postgres.url(postgres.empty_database()))
        live = stack.enter_context(gateway(directory, **settings))
        pids.append(live.process.pid)
        url = f"{live.url}/v1/exchange"
        in_turns({key: lambda key=key: asked(url, pids, key) for key in KEYS})


def main() -> None:
    """Print costs and ratios of one run."""
    print(f"limits: c={CALLERS}, load from {TOOL}")
    for engine in ("sqlite", "postgres"):
        print(f" an exchange on {engine}, of a caller with")
        exchanges(engine)
    print(" the null route")
    with ExitStack() as stack:
        at = {what: stack.enter_context(served(what)) for what in ("doorless", "null")}
        in_turns(
            {
                "without the door": lambda: asked(at["doorless"].url, [at["doorless"].pid], "none"),
                "behind the door": lambda: asked(at["null"].url, [at["null"].pid], "none"),
            }
        )


if __name__ == "__main__":
    main()
