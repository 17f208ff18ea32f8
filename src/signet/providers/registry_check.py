"""Compiles documents of strangers in a process that can be killed, before the gateway does.

A schema of a few kilobytes can hold patterns whose automata take gigabytes. What this check lets
through, compiled together with everything else its owner keeps, takes bounded time and memory in
every process that will load it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, cast

from signet.core.errors import Fault
from signet.core.registry import EntryKey, Hosted, Kind
from signet.gateway.ports import Busy, CheckStopped
from signet.receipts.canonical import canonicalize

_CHILD_MODULE: Final = "signet.providers.registry_child"
_WAITING: Final = 8


@dataclass(slots=True, kw_only=True)
class RegistryCheck:
    """One check at a time; a few wait, and the rest are told to come again."""

    timeout_s: float = 45.0
    """From the start of the process to its answer. Its own bound of processor time is much tighter,
    so what this one ends is a machine that is busy, and not a document that takes too long."""
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _waiting: int = 0

    async def __call__(
        self, documents: Sequence[Hosted], types: Iterable[str]
    ) -> Mapping[EntryKey, tuple[Fault, ...]] | CheckStopped:
        """Return what is wrong with which document.

        Raises `Busy` when too many wait, and when the machine gave the check no time.
        """
        if self._waiting >= _WAITING:
            raise Busy("too many documents wait to be checked; nothing was done")
        self._waiting += 1
        try:
            async with self._turn:
                return await self._check(documents, types)
        finally:
            self._waiting -= 1

    async def _check(
        self, documents: Sequence[Hosted], types: Iterable[str]
    ) -> Mapping[EntryKey, tuple[Fault, ...]] | CheckStopped:
        listed = [(d.kind, d.name, canonicalize(d.document).decode()) for d in documents]
        try:
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-m", _CHILD_MODULE),
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                env={"TZ": "UTC", "LC_ALL": "C.UTF-8"},
                start_new_session=True,
            )
        except OSError as error:
            raise Busy("no process could be started to check the document") from error
        try:
            async with asyncio.timeout(self.timeout_s):
                answer, _ = await child.communicate(json.dumps([list(types), listed]).encode())
        except TimeoutError as error:
            raise Busy("the document was not checked in time; nothing was done") from error
        finally:
            await _end(child)
        if child.returncode:
            return CheckStopped(detail="compiling it takes more time or memory than it may have")
        told = cast("list[tuple[str, str, list[dict[str, str]]]]", json.loads(answer))
        return {
            (Kind(kind), name): tuple(Fault(**fault) for fault in faults)
            for kind, name, faults in told
        }


async def _end(child: Process) -> None:
    if child.returncode is None:
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()
