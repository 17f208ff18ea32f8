"""The client: policy, addresses, one pinned connection, one deadline, one outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from signet.egress.limits import Limits
from signet.egress.outcome import Forwarded, Outcome
from signet.egress.policy import Policy
from signet.egress.target import Target


class EgressClient:
    """Sends requests that cannot be led inside. Built once, used by many tasks of one loop."""

    def __init__(self, *, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()

    async def send(
        self,
        target: Target,
        body: bytes,
        headers: Mapping[str, str],
        policy: Policy | None,
        *,
        deadline_s: float | None = None,
        before_first_byte: Callable[[], bool] | None = None,
        method: str = "POST",
        keep_body: bool = False,
    ) -> Outcome:
        """Send one request at most once and say how it ended. Raises `RequestInvalid`."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Close every connection."""
        raise NotImplementedError


def safe_forward(
    url: str,
    payload: object,
    *,
    headers: Mapping[str, str] | None = None,
    policy: Policy | None = None,
    limits: Limits | None = None,
) -> Forwarded:
    """POST `payload` to `url`; raises `SyncInLoop`."""
    raise NotImplementedError


async def asafe_forward(
    url: str,
    payload: object,
    *,
    headers: Mapping[str, str] | None = None,
    policy: Policy | None = None,
    limits: Limits | None = None,
) -> Forwarded:
    """Do what `safe_forward` does, inside a running loop."""
    raise NotImplementedError
