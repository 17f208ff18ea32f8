"""Few begin in a turn of the loop, all begin, and in order."""

from __future__ import annotations

import asyncio
import socket

import pytest

from signet.api.turns import Turns

pytestmark = pytest.mark.anyio


async def test_what_came_meanwhile_is_heard_before_the_rest_of_a_crowd_begins() -> None:
    """A socket that became readable waits for one turn, not for everybody."""
    loop, turns = asyncio.get_running_loop(), Turns()
    here, there = socket.socketpair()
    here.setblocking(False)
    done = asyncio.Event()
    order: list[int | str] = []

    def begin(number: int) -> None:
        order.append(number)
        if number == 0:
            there.send(b"the database has answered")
        if number == 99:
            done.set()

    def heard() -> None:
        loop.remove_reader(here)
        order.append("heard")

    with here, there:
        loop.add_reader(here, heard)
        for number in range(100):
            turns.take(loop, lambda number=number: begin(number))
        assert len(order) < 10
        await done.wait()
    assert [one for one in order if one != "heard"] == [*range(100)]
    assert order.index("heard") < 20


async def test_who_comes_alone_begins_at_once() -> None:
    """Nobody waits for a turn of which there is something left, now or later."""
    loop, turns = asyncio.get_running_loop(), Turns()
    for _ in range(3):
        begun: list[int] = []
        turns.take(loop, lambda begun=begun: begun.append(1))
        assert begun == [1]
        await asyncio.sleep(0.01)


async def test_who_comes_while_others_wait_comes_behind_them() -> None:
    """Also when a turn has begun meanwhile."""
    loop, turns = asyncio.get_running_loop(), Turns()
    order: list[int] = []
    for number in range(20):
        turns.take(loop, lambda number=number: order.append(number))
    await asyncio.sleep(0)
    assert 0 < len(order) < 20
    for number in range(20, 30):
        turns.take(loop, lambda number=number: order.append(number))
    for _ in range(30):
        await asyncio.sleep(0)
    assert order == [*range(30)]
