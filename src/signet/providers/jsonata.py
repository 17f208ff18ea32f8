"""JSONata, and declarative mappings that could take long, in processes that can be killed.

An expression written by a tenant is hostile code: a bad regular expression or `[1..10000000]`
outlives every check inside the interpreter. So each evaluation has a process of its own
(`signet.providers.jsonata_child`) with limits that the kernel keeps on time, CPU, memory and files.
Should even that not answer, its parent is killed with it and replaced.

When this process dies, however it dies, its children read the end of their input and leave.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeAlias, cast

from signet.core.errors import Fault

_CHILD_MODULE = "signet.providers.jsonata_child"

# How long a child may take to start, and how long its answer may be late before it is killed. The
# kernel ends every evaluation on time, so that only a machine in trouble meets the second.
_START_S = 30.0
_GRACE_S = 2.0

MAX_VALUE = 8 << 20
_MAX_ANSWER = 9 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """The answer as JSON text; every number in it is exact."""

    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedOut:
    """The time was over; the evaluation was killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfMemory:
    """The expression wanted more memory than it may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpressionFailed:
    """The expression is wrong, or wrong for this input; `message` is short and for its author."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inapplicable:
    """The input did not hold what a declarative mapping needs."""

    faults: tuple[Fault, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Crashed:
    """The process died for another reason, such as the C stack's end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overloaded:
    """Too many evaluations wait, or this one's time was over while it did; nothing was run."""


Evaluation: TypeAlias = (
    Evaluated | TimedOut | OutOfMemory | ExpressionFailed | Inapplicable | Crashed | Overloaded
)


class JSONataPool:
    """At most `size` evaluations at a time, and `queue_limit` more that wait.

    Children start when they are first needed, or all at once by `async with`. Call `aclose` (or
    leave the `async with`) before the event loop ends. `memory_bytes` is the address space of one
    evaluation, the interpreter's own 60 MB included.
    """

    def __init__(
        self, *, size: int = 2, queue_limit: int = 64, memory_bytes: int = 256 << 20
    ) -> None:
        self._slots = asyncio.Semaphore(size)
        self._size = size
        self._queue_limit = queue_limit
        self._memory_bytes = memory_bytes
        self._waiting = 0
        self._idle: list[Process] = []
        self._all: set[Process] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        """Start every child now, so that no exchange waits for one."""
        for _ in range(self._size):
            child = await self._start()
            if child is not None:
                self._idle.append(child)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def run(self, expression: str, value: bytes, *, timeout_s: float = 1.0) -> Evaluation:
        """Evaluate `expression` over the JSON text `value`.

        `timeout_s` bounds the wait for a slot and the evaluation, each; starting a child, where one
        is missing, has a bound of its own. Raises `RuntimeError` after `aclose`.
        """
        return await self._in_turn({"jsonata": expression}, value, timeout_s)

    async def apply(self, mapping: str, value: bytes, *, timeout_s: float = 1.0) -> Evaluation:
        """Apply the declarative mapping whose document `mapping` is, under the same bounds."""
        return await self._in_turn({"fields": mapping}, value, timeout_s)

    async def _in_turn(
        self, program: Mapping[str, str], value: bytes, timeout_s: float
    ) -> Evaluation:
        if len(value) > MAX_VALUE:
            return ExpressionFailed(message="The input is too large.")
        if self._slots.locked() and self._waiting >= self._queue_limit:
            return Overloaded()
        self._waiting += 1
        try:
            async with asyncio.timeout(timeout_s):
                await self._slots.acquire()
        except TimeoutError:
            return Overloaded()
        finally:
            self._waiting -= 1
        try:
            return await self._run(program, value, timeout_s)
        finally:
            self._slots.release()

    async def aclose(self) -> None:
        """Kill every child. Nothing is left running afterwards; runs under way end as `Crashed`."""
        self._closed = True
        for child in tuple(self._all):
            await self._end(child)

    async def _run(self, program: Mapping[str, str], value: bytes, timeout_s: float) -> Evaluation:
        child = self._idle.pop() if self._idle else await self._start()
        if child is None:
            return Crashed()
        limits = {"timeout_s": timeout_s, "memory_bytes": self._memory_bytes}
        head = json.dumps({**program, **limits}).encode()
        answer = None
        try:
            async with asyncio.timeout(timeout_s + _GRACE_S):
                answer = await _ask(child, head, value)
        except TimeoutError:
            return TimedOut()
        finally:
            # Also when the caller was cancelled: a child in the middle of an answer is no use.
            if answer is None or self._closed:
                await self._end(child)
            else:
                self._idle.append(child)
        return _evaluation(answer)

    async def _start(self) -> Process | None:
        """A child that has said it is ready; None when it did not in time."""
        if self._closed:
            raise RuntimeError("The pool is closed.")
        try:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-m",
                _CHILD_MODULE,
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                # Nothing of ours to read there, and no local time zone.
                env={"TZ": "UTC", "LC_ALL": "C.UTF-8"},
                # A terminal's Ctrl-C is for the server, which closes the pool in its own order.
                start_new_session=True,
            )
        except OSError:
            # No process or no memory to be had; the exchange fails, the server does not.
            return None
        self._all.add(child)
        if self._closed:  # while the child was being made: `aclose` has not seen it
            await self._end(child)
            return None
        try:
            async with asyncio.timeout(_START_S):
                ready = await _read_frame(child)
        except TimeoutError:
            ready = None
        if ready is None:
            await self._end(child)
            return None
        return child

    async def _end(self, child: Process) -> None:
        """Kill the child with its evaluation, and wait until both pipes are closed."""
        self._all.discard(child)
        if child in self._idle:
            self._idle.remove(child)
        if child.returncode is None:
            # The evaluation is in the same session, and so in the same group. A child that has
            # just ended by itself leaves nothing to kill.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        if child.stdin is not None:
            child.stdin.close()
        await child.wait()


async def _ask(child: Process, head: bytes, value: bytes) -> bytes | None:
    """One request and its answer; None when the child has died."""
    assert child.stdin is not None
    try:
        for part in (head, value):
            child.stdin.write(len(part).to_bytes(4, "big"))
            child.stdin.write(part)
        await child.stdin.drain()
        return await _read_frame(child)
    except (BrokenPipeError, ConnectionResetError):
        return None


async def _read_frame(child: Process) -> bytes | None:
    assert child.stdout is not None
    try:
        length = int.from_bytes(await child.stdout.readexactly(4), "big")
        return await child.stdout.readexactly(length) if length <= _MAX_ANSWER else None
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return None


def _evaluation(answer: bytes | None) -> Evaluation:
    """What the letter at the front of an answer means; the child's module names them."""
    match (answer or b"C")[:1]:
        case b"O":
            return Evaluated(value=(answer or b"")[1:])
        case b"F":
            return ExpressionFailed(message=(answer or b"")[1:].decode(errors="replace"))
        case b"N":
            listed = cast("list[dict[str, str]]", json.loads((answer or b"")[1:]))
            return Inapplicable(faults=tuple(Fault(**fault) for fault in listed))
        case b"T":
            return TimedOut()
        case b"M":
            return OutOfMemory()
        case _:
            return Crashed()
