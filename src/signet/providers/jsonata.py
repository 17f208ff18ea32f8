"""JSONata in processes that can be killed.

An expression written by a tenant is hostile code: a bad regular expression or `[1..10000000]`
outlives every check inside the interpreter. So it runs in a child process with hard limits on CPU,
memory and files, is killed when its time is up, and is replaced by a fresh one.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """The canonical-form-ready JSON text of the answer; numbers are exact."""

    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedOut:
    """The time was over; the process was killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfMemory:
    """The expression wanted more memory than it may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpressionFailed:
    """The expression is wrong, or wrong for this input; `message` is short and for its author."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Crashed:
    """The process died for another reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overloaded:
    """More expressions wait than the queue may hold; nothing was run."""


Evaluation = Evaluated | TimedOut | OutOfMemory | ExpressionFailed | Crashed | Overloaded


class JSONataPool:
    """A fixed number of child processes, started when first needed. An async context manager."""

    def __init__(
        self, *, size: int = 2, queue_limit: int = 64, memory_bytes: int = 256 << 20
    ) -> None:
        raise NotImplementedError

    async def run(self, expression: str, value: bytes, *, timeout_s: float = 1.0) -> Evaluation:
        """Evaluate `expression` over the JSON text `value`; `timeout_s` counts waiting too."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Kill every child; nothing is left running afterwards."""
        raise NotImplementedError
