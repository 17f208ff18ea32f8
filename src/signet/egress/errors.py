"""What a caller of this library can do wrong.

What can go wrong on the network is no exception here but an `Outcome` (see `outcome.py`).
"""

from __future__ import annotations

from signet.egress.verdict import Verdict


class EgressError(Exception):
    """The root of this library's errors. `code` is stable; the message is for people."""

    code = "egress_error"


class TargetInvalid(EgressError):
    """The URL is not one that this library sends to; `verdict` says which rule it broke."""

    code = "egress_target_invalid"

    def __init__(self, verdict: Verdict, detail: str) -> None:
        super().__init__(detail)
        self.verdict = verdict


class PolicyInvalid(EgressError):
    """An entry of a host egress list cannot be understood; the message names the entry."""

    code = "egress_policy_invalid"


class RequestInvalid(EgressError):
    """A method, header or limit handed in by the caller cannot be sent as it stands."""

    code = "egress_request_invalid"


class SyncInLoop(EgressError):
    """The synchronous form was called inside a running event loop; await the async twin."""

    code = "egress_sync_in_loop"
