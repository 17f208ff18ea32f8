"""What the use cases need from outside, as protocols. `app` hands in the real ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from signet.core.errors import Fault, SignetError
from signet.core.exchange import Decision
from signet.core.registry import EntryKey, Hosted
from signet.core.transform import Mapped, MappingFailed
from signet.core.transform import Mapping as TypeMapping
from signet.receipts.canonical import Json
from signet.receipts.receipt import SealedReceipt
from signet.storage.exchanges import Answer


class Clock(Protocol):
    """The time of day."""

    def __call__(self) -> int:
        """Return microseconds since 1970, UTC."""
        ...


class Dice(Protocol):
    """A cryptographic source of random bytes."""

    def __call__(self, count: int, /) -> bytes:
        """Return `count` unpredictable bytes."""
        ...


class Renderer(Protocol):
    """Turns a decided exchange into the bytes of its answer, before they are committed."""

    def __call__(self, decision: Decision, receipt: SealedReceipt, *, trace_id: str) -> Answer:
        """Splice the signed receipt into the answer. Pure, and total over decisions."""
        ...


class Busy(SignetError):
    """Something the exchange needs is at its limit; nothing was decided, ask again later."""

    code = "overloaded"


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingStopped:
    """The mapping was stopped from outside; `detail` says by which bound."""

    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckStopped:
    """Compiling the documents was stopped from outside; `detail` says by which bound."""

    detail: str


class RegistryChecker(Protocol):
    """Compiles documents of strangers where that can do no harm."""

    async def __call__(
        self, documents: Sequence[Hosted], types: Iterable[str]
    ) -> Mapping[EntryKey, tuple[Fault, ...]] | CheckStopped:
        """Return what is wrong with which of one owner's documents, in bounded time and memory.

        `types` are names of types that the owner can name besides. Raises `Busy` when too many
        wait.
        """
        ...


class MappingRunner(Protocol):
    """Runs a mapping in a language that must be contained."""

    async def run(
        self, mapping: TypeMapping, source: Json
    ) -> Mapped | MappingFailed | MappingStopped:
        """Make `mapping`'s document of `source` in bounded time and memory.

        Raises `Busy` when no process was free in time.
        """
        ...
