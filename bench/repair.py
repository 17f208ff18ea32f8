"""What repair costs, and what it gets right where popular libraries guess.

The table of `docs/guide/repair.md` is printed here, over the labelled corpus of `tests/repair`. A
result is *right* when it is what was meant, *refused* when nothing was made of the text, and
*silently wrong* when something else was made of it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import json_repair
from tests.repair.cases import REFUSED, REPAIRABLE, Case, spelled

from signet.core.invariants import violations
from signet.core.repair import Repaired, repair

ROUNDS = 5
MEGABYTE = 1_000_000
_NODE = Path(__file__).parents[1] / "tests" / "repair" / "node"
_RECORD = "{'id': 'INV-1', amount: 12.50, \"ok\": True, tags: ['a', \"b\",], // c\n note: None}, "


def main() -> None:
    """Print the figures."""
    comparing()
    print()
    growing()
    costing()


def comparing() -> None:
    """The corpus under three libraries."""
    cases = REPAIRABLE + REFUSED
    table: dict[str, list[str | None]] = {
        "signet": [_signet(case) for case in cases],
        "json_repair (PyPI)": [_json_repair(case) for case in cases],
    }
    others = _jsonrepair(cases)
    if others is None:
        print("jsonrepair (npm) is left out: npm ci --prefix tests/repair/node")
    else:
        table["jsonrepair (npm)"] = others
    print(
        f"| library | of {len(REPAIRABLE)} with one meaning: right | refused | silently wrong "
        f"| of {len(REFUSED)} without: refused | silently wrong |"
    )
    print("|---|---|---|---|---|---|")
    for name, results in table.items():
        meant = list(zip(REPAIRABLE, results[: len(REPAIRABLE)], strict=True))
        right = sum(_is_right(case, result) for case, result in meant)
        given_up = sum(result is None for _, result in meant)
        unknown = results[len(REPAIRABLE) :]
        refused = sum(result is None for result in unknown)
        print(
            f"| {name} | {right} | {given_up} | {len(meant) - right - given_up} "
            f"| {refused} | {len(unknown) - refused} |"
        )


def growing() -> None:
    """Twice the text should take twice the time."""
    small = "[" + _RECORD * (MEGABYTE // len(_RECORD)) + "]"
    large = "[" + _RECORD * (2 * MEGABYTE // len(_RECORD)) + "]"
    for name, work in (("repair", _repaired), ("repair and guard", _guarded)):
        once, twice = _best(partial(work, small), partial(work, large))
        print(f"{name}, 1 MB of broken text: {once:.2f} s; 2 MB takes {twice / once:.2f} x of 1 MB")


def costing() -> None:
    """The price of an ordinary call, against the lax parser and the popular library."""
    broken = "{'id': 'INV-1', amount: 12.50, \"paid\": True, tags: ['a', \"b\",],}"
    strict = '{"id": "INV-1", "amount": 12.50, "paid": true, "tags": ["a", "b"]}'
    lax, ours, theirs = _best(
        lambda: _times(lambda: json.loads(strict)),
        lambda: _times(lambda: repair(broken)),
        lambda: _times(lambda: json_repair.loads(broken)),
    )
    print(f"66 bytes broken: signet {ours / lax:.0f} x, json_repair {theirs / lax:.0f} x of")
    print(f"json.loads on the strict text ({lax / 1000 * 1e6:.1f} us)")


def _signet(case: Case) -> str | None:
    result = repair(case.text, schema=case.schema)
    return result.text if isinstance(result, Repaired) else None


def _json_repair(case: Case) -> str | None:
    """Its empty string is how that library gives up."""
    result = json_repair.repair_json(case.text, ensure_ascii=False)
    return result if isinstance(result, str) and result not in ("", '""') else None


def _jsonrepair(cases: Sequence[Case]) -> list[str | None] | None:
    node = shutil.which("node")
    if node is None or not (_NODE / "node_modules" / "jsonrepair").is_dir():
        return None
    done = subprocess.run(
        [node, str(_NODE / "compare.mjs")],
        input=json.dumps([case.text for case in cases]).encode(),
        capture_output=True,
        check=True,
        timeout=60,
    )
    return json.loads(done.stdout)


def _is_right(case: Case, result: str | None) -> bool:
    if result is None or case.meaning is None:
        return False
    try:
        return spelled(result) == spelled(case.meaning)
    except ValueError:
        return False


def _repaired(text: str) -> None:
    assert isinstance(repair(text), Repaired)


def _guarded(text: str) -> None:
    result = repair(text)
    assert isinstance(result, Repaired)
    assert violations(text, result.text) == ()


def _times(work: Callable[[], object]) -> None:
    for _ in range(1000):
        work()


def _best(*works: Callable[[], object]) -> list[float]:
    """The best processor time of each, taken in turns, in seconds."""
    best = [float("inf")] * len(works)
    for _ in range(ROUNDS):
        for index, work in enumerate(works):
            begin = time.process_time()
            work()
            best[index] = min(best[index], time.process_time() - begin)
    return best


if __name__ == "__main__":
    main()
