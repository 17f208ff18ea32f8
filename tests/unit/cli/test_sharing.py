"""Connections spread evenly, and nobody waits long for a worker that does not come."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NoReturn, cast

import pytest
import uvloop

from signet.cli.sharing import Acceptor, Share, Shares, open_shares

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """The loop that serves."""
    return "asyncio", {"loop_factory": uvloop.new_event_loop}


@pytest.fixture
def shares() -> Iterator[Shares]:
    """Counts of three slots."""
    with open_shares(3) as made:
        yield made


def test_whoever_has_more_leaves_the_next_to_others(shares: Shares) -> None:
    """Counts are seen through every map of the file; a few more are no reason."""
    one, other = Share(shares.descriptor, 0), Share(shares.descriptor, 1)
    one.tell(0)
    other.tell(0)
    assert not one.is_ahead()
    one.tell(2)
    assert not one.is_ahead()
    one.tell(3)
    assert one.is_ahead()
    assert not other.is_ahead()
    other.tell(1)
    assert not one.is_ahead()


def test_nothing_is_left_to_who_is_not_there(shares: Shares) -> None:
    """Neither to a slot in which nobody has been yet, nor to one whose worker has died."""
    one, other = Share(shares.descriptor, 0), Share(shares.descriptor, 1)
    one.tell(1000)
    assert not one.is_ahead()
    other.tell(0)
    assert one.is_ahead()
    shares.vacate(1)
    assert not one.is_ahead()


class Counted(asyncio.Protocol):
    """Tells its worker's share, as the door does."""

    def __init__(self, share: Share, mine: set[Counted]) -> None:
        self._share = share
        self._mine = mine

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(b"!")
        self._mine.add(self)
        self._share.tell(len(self._mine))

    def connection_lost(self, exc: Exception | None) -> None:
        self._mine.discard(self)
        self._share.tell(len(self._mine))


class Worker:
    """An acceptor with what it has accepted."""

    def __init__(
        self, listener: socket.socket, share: Share, stack: ExitStack, tasks: asyncio.TaskGroup
    ) -> None:
        self.mine: set[Counted] = set()
        self.acceptor = Acceptor(
            listener, lambda: Counted(share, self.mine), share=share, backlog=2048, tasks=tasks
        )
        stack.callback(self._close)

    def _close(self) -> None:
        self.acceptor.close()
        for protocol in self.mine:
            protocol.transport.abort()


async def heard(address: tuple[str, int], stack: ExitStack) -> None:
    """Connect, and wait until it has been accepted."""
    loop = asyncio.get_running_loop()
    caller = stack.enter_context(socket.socket())
    caller.setblocking(False)
    await loop.sock_connect(caller, address)
    async with asyncio.timeout(20):
        assert await loop.sock_recv(caller, 1) == b"!"


async def all_heard(count: int, address: tuple[str, int], stack: ExitStack) -> None:
    async with asyncio.TaskGroup() as callers:
        for _ in range(count):
            callers.create_task(heard(address, stack))


def listener(stack: ExitStack) -> tuple[socket.socket, tuple[str, int]]:
    bound = stack.enter_context(socket.socket())
    bound.bind(("127.0.0.1", 0))
    return bound, bound.getsockname()


async def test_a_crowd_is_shared(shares: Shares) -> None:
    """Of 64 that connect at once each of two workers gets half, and a few more or fewer."""
    with ExitStack() as stack:
        bound, address = listener(stack)
        async with asyncio.TaskGroup() as tasks:
            two = [
                Worker(each, Share(shares.descriptor, slot), stack, tasks)
                for slot, each in enumerate((bound, stack.enter_context(bound.dup())))
            ]
            await all_heard(64, address, stack)
            counts = [len(worker.mine) for worker in two]
            assert sum(counts) == 64
            assert min(counts) >= 24, counts


async def test_the_next_are_left_to_who_has_fewer(shares: Shares) -> None:
    """A new worker gets what comes, until it has as many."""
    with ExitStack() as stack:
        bound, address = listener(stack)
        async with asyncio.TaskGroup() as tasks:
            old = Worker(bound, Share(shares.descriptor, 0), stack, tasks)
            await all_heard(12, address, stack)
            new = Worker(
                stack.enter_context(bound.dup()), Share(shares.descriptor, 1), stack, tasks
            )
            for _ in range(8):
                await heard(address, stack)
            assert len(old.mine) + len(new.mine) == 20
            assert len(new.mine) >= 6


async def test_one_that_does_not_come_is_not_waited_for(shares: Shares) -> None:
    """A worker that has nothing and accepts nothing delays the others, by a moment each time."""
    with ExitStack() as stack:
        bound, address = listener(stack)
        Share(shares.descriptor, 1).tell(0)
        async with asyncio.TaskGroup() as tasks:
            worker = Worker(bound, Share(shares.descriptor, 0), stack, tasks)
            began_s = asyncio.get_running_loop().time()
            await all_heard(40, address, stack)
            assert len(worker.mine) == 40
            assert asyncio.get_running_loop().time() - began_s > 0.03


class Exhausted(socket.socket):
    """A listener of a process that cannot open another file, for a while."""

    refusals = 2

    def accept(self) -> tuple[socket.socket, object]:
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


async def test_no_descriptor_is_left(shares: Shares) -> None:
    """Who cannot be accepted now is accepted later, and meanwhile nothing spins."""
    with ExitStack() as stack:
        bound = stack.enter_context(Exhausted())
        bound.bind(("127.0.0.1", 0))
        async with asyncio.TaskGroup() as tasks:
            began_s = asyncio.get_running_loop().time()
            worker = Worker(bound, Share(shares.descriptor, 0), stack, tasks)
            await heard(bound.getsockname(), stack)
            assert len(worker.mine) == 1
            assert asyncio.get_running_loop().time() - began_s > 1.5


class Taken(socket.socket):
    """A listener whose connections others are always first with."""

    def accept(self) -> NoReturn:
        raise BlockingIOError


async def test_closed(shares: Shares) -> None:
    """Nothing is accepted after `close`, which leaves the socket open; losing a race is no harm."""
    with ExitStack() as stack:
        taken = stack.enter_context(Taken())
        taken.bind(("127.0.0.1", 0))
        async with asyncio.TaskGroup() as tasks:
            worker = Worker(taken, Share(shares.descriptor, 0), stack, tasks)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await heard(taken.getsockname(), stack)
            worker.acceptor.close()
            await worker.acceptor.wait_closed()
            assert not worker.mine
            assert taken.fileno() >= 0
