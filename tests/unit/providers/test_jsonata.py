"""The pool bounds hostile expressions in time, memory and number, and leaves nothing running."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from signet.providers.jsonata import (
    Crashed,
    Evaluated,
    Evaluation,
    ExpressionFailed,
    JSONataPool,
    OutOfMemory,
    Overloaded,
    TimedOut,
)

pytestmark = pytest.mark.anyio

EVIL = '$match("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", /(a+)+$/)'


def children(of: int | None = None) -> list[psutil.Process]:
    """The JSONata processes below this one (or `of`), evaluations included."""
    found: list[psutil.Process] = []
    for process in psutil.Process(of).children(recursive=True):
        try:
            if any("jsonata_child" in part for part in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def running(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


async def test_an_expression_is_evaluated() -> None:
    """The answer is JSON text, numbers exact from text to text."""
    async with JSONataPool(size=1) as pool:
        text = b'{"lines":[{"n":3,"p":0.1},{"n":1,"p":0.2}]}'
        assert await pool.run("$sum(lines.(n*p))", text) == Evaluated(value=b"0.5")
        assert isinstance(await pool.run("$$$", b"{}"), ExpressionFailed)


@pytest.mark.parametrize(
    ("expression", "outcomes"),
    [
        (EVIL, (TimedOut,)),
        ('$replace("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", /(a|aa)+$/, "x")', (TimedOut,)),
        ("[1..10000000]", (TimedOut, OutOfMemory)),
        ("[1..10000000].[1..10000000]", (TimedOut, OutOfMemory)),
        ("($f := function($x) { $f($x + 1) }; $f(1))", (TimedOut,)),
        ("($f := function($x) { 1 + $f($x + 1) }; $f(1))", (ExpressionFailed, Crashed)),
        ('$pad("x", 1000000000)', (OutOfMemory,)),
        (
            '($s := function($x, $n) { $n = 0 ? $x : $s($x & $x, $n - 1) }; $s("aaaaaaaa", 40))',
            (OutOfMemory,),
        ),
        ("$power(9, 9999999)", (ExpressionFailed,)),
        ("(" * 20_000, (ExpressionFailed, Crashed)),
        ('$match("x", /' + "(" * 5_000 + "/)", (ExpressionFailed, Crashed)),
    ],
)
async def test_hostile_expressions_end_in_bounded_time(
    expression: str, outcomes: tuple[type[Evaluation], ...]
) -> None:
    """Each ends as what it is, within its time; the next evaluation is not affected."""
    async with JSONataPool(size=1) as pool:
        started = time.monotonic()
        # Who ends before the time is over may take longer than this on a busy machine.
        outcome = await pool.run(expression, b"{}", timeout_s=0.7 if TimedOut in outcomes else 60)
        assert time.monotonic() - started < 120
        assert isinstance(outcome, outcomes)
        assert await pool.run("a", b'{"a":1}', timeout_s=30) == Evaluated(value=b"1")


async def test_hostile_expressions_do_not_hold_the_event_loop() -> None:
    """While evaluations overrun, this process keeps answering."""
    async with JSONataPool(size=2) as pool, asyncio.TaskGroup() as group:
        overrunning = [group.create_task(pool.run(EVIL, b"{}", timeout_s=30)) for _ in range(2)]
        longest, last = 0.0, time.monotonic()
        for _ in range(40):
            await asyncio.sleep(0.01)
            now = time.monotonic()
            longest, last = max(longest, now - last), now
        assert longest < 10
        for task in overrunning:
            task.cancel()


async def test_more_than_the_queue_holds_is_turned_away() -> None:
    """Those who wait their whole time, and those who find the queue full, are told so at once."""
    async with JSONataPool(size=1, queue_limit=1) as pool:
        outcomes: list[Evaluation] = []

        async def one() -> None:
            outcomes.append(await pool.run(EVIL, b"{}", timeout_s=0.5))

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(one())
        kinds = [type(outcome) for outcome in outcomes]
        assert kinds[:2] == [Overloaded, Overloaded]
        assert kinds.count(TimedOut) >= 1
        assert await pool.run("1", b"{}", timeout_s=30) == Evaluated(value=b"1")


async def test_many_at_once_all_get_their_own_answer() -> None:
    """Two children serve fifty evaluations, and none gets another's result."""
    async with JSONataPool(size=2) as pool:
        results: dict[int, Evaluation] = {}

        async def one(number: int) -> None:
            text = f'{{"n":{number}}}'.encode()
            results[number] = await pool.run("n * 2", text, timeout_s=30)

        async with asyncio.TaskGroup() as group:
            for number in range(50):
                group.create_task(one(number))
        assert results == {n: Evaluated(value=str(n * 2).encode()) for n in range(50)}
        assert len(children()) == 2


async def test_a_cancelled_evaluation_is_killed_and_its_place_is_free() -> None:
    """When the agent hangs up, nothing goes on computing for it."""
    async with JSONataPool(size=1) as pool:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await pool.run(EVIL, b"{}", timeout_s=30)
        assert running(children()) == []
        assert await pool.run("1", b"{}", timeout_s=30) == Evaluated(value=b"1")


async def test_a_child_that_was_killed_is_replaced() -> None:
    """Somebody else's kill costs at most the evaluation that met it."""
    async with JSONataPool(size=1) as pool:
        (child,) = children()
        child.kill()
        outcome = await pool.run("1", b"{}", timeout_s=30)
        assert outcome in (Crashed(), Evaluated(value=b"1"))
        assert await pool.run("1", b"{}", timeout_s=30) == Evaluated(value=b"1")


async def test_nothing_is_left_running_after_close() -> None:
    """Not the children, and not an evaluation that was under way."""
    pool = JSONataPool(size=2)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(pool.run(EVIL, b"{}", timeout_s=30))
        while not (started := children()):  # noqa: ASYNC110 - processes tell nobody
            await asyncio.sleep(0.01)
        await pool.aclose()
    assert task.result() == Crashed()
    psutil.wait_procs(started, timeout=300)
    assert running(started) == []
    with pytest.raises(RuntimeError):
        await pool.run("1", b"{}")
    await pool.aclose()


async def test_a_large_input_is_refused_before_it_is_sent() -> None:
    """The pipe never carries more than a body may have."""
    pool = JSONataPool()
    outcome = await pool.run("1", b"x" * (8 * 2**20 + 1))
    assert isinstance(outcome, ExpressionFailed)
    assert children() == []


SERVER = f"""
import asyncio, signal
from signet.providers.jsonata import JSONataPool

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with JSONataPool(size=2) as pool, asyncio.TaskGroup() as group:
        group.create_task(pool.run({EVIL!r}, b"{{}}", timeout_s=3))
        print("ready", flush=True)
        await stop.wait()
        await pool.aclose()

asyncio.run(main())
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_server(how: signal.Signals) -> None:
    """Asked to stop it closes the pool; killed outright, its children notice and leave."""
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    started = children(server.pid)
    assert len(started) >= 2
    os.kill(server.pid, how)
    server.wait(240)
    server.stdout.close()
    # An evaluation under way ends by its own clock at the latest.
    psutil.wait_procs(started, timeout=300)
    assert running(started) == []
    if how is signal.SIGTERM:
        assert server.returncode == 0
