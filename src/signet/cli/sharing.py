"""How connections spread over the workers that listen on one socket.

The kernel wakes every worker for each connection, and whoever comes first takes all that wait: of
64 callers that connect at once one of two workers has got any number from none to all. Callers keep
their connections, so it would stay like that. Workers therefore tell each other how many they have,
in memory that they share, and who has more than another leaves the next to that one, for a moment
only: it may be busy, or stuck.
"""

from __future__ import annotations

import asyncio
import mmap
import socket
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Final

_NOBODY: Final = 0xFFFFFFFF
_AHEAD: Final = 2
_MOMENT_S: Final = 0.002
_NO_FILES_S: Final = 1.0
_WIDTH: Final = 4


class Shares:
    """What the supervisor has of it: a count for each slot, in a file that has no name."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        """What workers inherit."""

    def vacate(self, slot: int) -> None:
        """Nobody is in a slot any more: no worker leaves anything to it."""
        Share(self.descriptor, slot).tell(_NOBODY)


@contextmanager
def open_shares(slots: int) -> Generator[Shares]:
    """Make as many counts as there are slots, all of them vacant."""
    with tempfile.TemporaryFile() as file:
        file.write(_NOBODY.to_bytes(_WIDTH) * slots)
        file.flush()
        yield Shares(file.fileno())


class Share:
    """What a worker has of it. The descriptor stays the caller's."""

    def __init__(self, descriptor: int, slot: int) -> None:
        self._counts = memoryview(mmap.mmap(descriptor, 0)).cast("I")
        self._slot = slot

    def tell(self, count: int) -> None:
        """Let the others know how many connections this worker has."""
        self._counts[self._slot] = count

    def is_ahead(self) -> bool:
        """Whether another worker has so many fewer that the next connection is better off there."""
        return self._counts[self._slot] > min(self._counts) + _AHEAD


class Acceptor:
    """Accepts one connection at a time; stands for `asyncio.Server` where uvicorn closes it."""

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        *,
        share: Share,
        backlog: int,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._listener = listener
        self._share = share
        self._protocol = protocol
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._later: asyncio.TimerHandle | None = None
        share.tell(0)
        listener.setblocking(False)
        listener.listen(backlog)
        self._loop.add_reader(listener, self._ready)

    def _ready(self) -> None:
        if self._share.is_ahead():
            self._leave_for(_MOMENT_S)
        else:
            self._accept()

    def _leave_for(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._later = self._loop.call_later(seconds, self._return)

    def _return(self) -> None:
        self._loop.add_reader(self._listener, self._ready)
        self._accept()  # if it still waits, nobody else had time for it

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker was first, or the caller has left
        except OSError:  # no descriptor or no memory is left, which passes
            self._leave_for(_NO_FILES_S)
            return
        connection.setblocking(False)
        self._tasks.create_task(self._connect(connection))

    async def _connect(self, connection: socket.socket) -> None:
        with suppress(OSError):  # it was lost already
            await self._loop.connect_accepted_socket(self._protocol, connection)

    def close(self) -> None:
        """Accept nothing more. The socket stays the caller's."""
        if self._later is not None:
            self._later.cancel()
        self._loop.remove_reader(self._listener)

    async def wait_closed(self) -> None:
        """Nothing is left to wait for."""
