"""A crowd of requests begins a few at a time, so that whoever is already at work is heard between.

An event loop looks for what has come only when it has carried out all that was ready. A batch that
has been committed brings as many requests at once as it had, and carrying all of them out would
leave the database's next answer, for which the other batch waits, unread for that long.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

_IN_A_TURN: Final = 8


class Turns:
    """Who begins now, and who when the loop has looked round."""

    def __init__(self) -> None:
        self._left = _IN_A_TURN
        self._waiting: deque[Callable[[], None]] = deque()

    def take(self, loop: asyncio.AbstractEventLoop, begin: Callable[[], None]) -> None:
        """Call `begin` now, or in one of the next turns; all in the order in which they came."""
        if not self._left:
            self._waiting.append(begin)
            return
        if self._left == _IN_A_TURN:
            loop.call_soon(self._next, loop)
        self._left -= 1
        begin()

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        waiting = self._waiting
        self._left = _IN_A_TURN
        while waiting and self._left:
            self._left -= 1
            waiting.popleft()()
        if self._left < _IN_A_TURN:
            loop.call_soon(self._next, loop)
