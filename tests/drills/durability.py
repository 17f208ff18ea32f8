"""Every fault of tests/faults/durability.py at the count that is promised, with its result kept.

    python -m tests.drills.durability [--scene NAME …] [--times N] [--again]

Each result is a line of docs/evidence/durability.jsonl with date, commit and machine, written as
soon as a part is done. A run goes on where the last one stopped; `--again` begins anew. Exits 1 if
something did not hold or a figure was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from tests.drills.evidence import Evidence
from tests.faults import durability
from tests.faults.durability import EngineName, place

_PART = 5
_BACK_S = 3.0

Outcome = tuple[bool, dict[str, object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One figure: `times` faults in all, made in parts; `play` makes one part."""

    name: str
    times: int
    part: int
    play: Callable[[Path, int], Awaitable[Outcome]]


async def _killed_gateways(
    engine: EngineName, workers: int, directory: Path, times: int
) -> Outcome:
    with place(engine, directory) as at:
        result = await durability.killed_gateways(at, directory, workers=workers, times=times)
    return result.holds, asdict(result)


async def _killed_databases(directory: Path, times: int) -> Outcome:
    with place("postgres", directory) as at:
        result = await durability.killed_databases(at, directory, times=times)
    return result.holds and result.slowest_s < _BACK_S, asdict(result)


async def _one_key(engine: EngineName, directory: Path, times: int) -> Outcome:
    with place(engine, directory) as at:
        receipts, units, answers = await durability.one_key(at, directory, requests=times)
    shown = {"requests": times, "receipts": receipts, "units": units, "answers": len(answers)}
    return (receipts, units, len(answers)) == (1, 1, 1), shown


async def _one_trace(engine: EngineName, directory: Path, times: int) -> Outcome:
    with place(engine, directory) as at:
        result, hops = await durability.one_trace(at, directory, each=times // 64)
    holds = result.holds and result.not_acknowledged == 0 and hops == result.acknowledged
    return holds, {**asdict(result), "hops": hops}


async def _failed_over(directory: Path, times: int) -> Outcome:
    result = await durability.failed_over(directory)
    return result.holds and times == 1, asdict(result)


async def _standby_lost(directory: Path, times: int) -> Outcome:
    status, result = await durability.standby_lost(directory)
    return status == 503 and result.holds and times == 1, {"status": status, **asdict(result)}


async def _disk_full(directory: Path, times: int) -> Outcome:
    result = await durability.disk_full(directory)
    return result.holds and times == 1, asdict(result)


async def _syncs_fail(directory: Path, times: int) -> Outcome:
    meanwhile, result = await durability.syncs_fail(directory)
    holds = result.holds and meanwhile == 0 and times == 1
    return holds, {"acknowledged_meanwhile": meanwhile, **asdict(result)}


async def _postgres_disk_full(directory: Path, times: int) -> Outcome:
    meanwhile, result = await durability.postgres_disk_full(directory)
    holds = result.holds and meanwhile == 0 and times == 1
    return holds, {"acknowledged_meanwhile": meanwhile, **asdict(result)}


async def _postgres_syncs_fail(directory: Path, times: int) -> Outcome:
    meanwhile, result = await durability.postgres_syncs_fail(directory)
    holds = result.holds and meanwhile == 0 and times == 1
    return holds, {"acknowledged_meanwhile": meanwhile, **asdict(result)}


ENGINES: Sequence[EngineName] = ("sqlite", "postgres")
SCENES: Sequence[Scene] = (
    *(
        Scene(
            name=f"gateway-killed-{engine}-{workers}",
            times=100,
            part=_PART,
            play=partial(_killed_gateways, engine, workers),
        )
        for engine in ENGINES
        for workers in (1, 2)
    ),
    Scene(name="database-killed", times=20, part=_PART, play=_killed_databases),
    *(
        Scene(name=f"one-key-{engine}", times=10_000, part=10_000, play=partial(_one_key, engine))
        for engine in ENGINES
    ),
    *(
        Scene(name=f"one-trace-{engine}", times=6400, part=6400, play=partial(_one_trace, engine))
        for engine in ENGINES
    ),
    Scene(name="failover", times=5, part=1, play=_failed_over),
    Scene(name="standby-lost", times=3, part=1, play=_standby_lost),
    Scene(name="disk-full", times=3, part=1, play=_disk_full),
    Scene(name="syncs-fail", times=5, part=1, play=_syncs_fail),
    Scene(name="disk-full-postgres", times=3, part=1, play=_postgres_disk_full),
    Scene(name="syncs-fail-postgres", times=5, part=1, play=_postgres_syncs_fail),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Play what is left to play; 0 if everything held."""
    parser = argparse.ArgumentParser(prog="python -m tests.drills.durability")
    names = [scene.name for scene in SCENES]
    parser.add_argument("--scene", action="append", choices=names, help="only these")
    parser.add_argument("--times", type=int, help="another count than the promised one")
    parser.add_argument("--again", action="store_true", help="do not go on with an earlier run")
    args = parser.parse_args(argv)
    evidence = Evidence("durability")
    if args.again:
        evidence.forget(args.scene or names)
    all_held = True
    for scene in SCENES:
        if args.scene and scene.name not in args.scene:
            continue
        wanted = args.times or scene.times
        done = evidence.held(scene.name)
        while done < wanted:
            times = min(scene.part, wanted - done)
            began = time.time()
            holds, result = asyncio.run(_play(scene, times))
            evidence.add(scene.name, times=times, holds=holds, began=began, result=result)
            done += times
            print(f"{scene.name}: {done} of {wanted}: {json.dumps(result)}", flush=True)
            if not holds:
                print(f"{scene.name}: DOES NOT HOLD", flush=True)
                all_held = False
                break
    return 0 if all_held else 1


async def _play(scene: Scene, times: int) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="signet-drill-") as directory:
        return await scene.play(Path(directory), times)


if __name__ == "__main__":
    sys.exit(main())
