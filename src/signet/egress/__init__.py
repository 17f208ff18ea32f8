"""An HTTP client that cannot be led inside.

    from signet.egress import safe_forward
    safe_forward("https://api.example.com/orders", {"id": 7})

A library of its own, importable without the server: strict targets, deny-by-default lists, an
address rule that lists what is good, connections pinned to the validated address, and outcomes
that say whether a request left. `docs/security.md` is its threat model.
"""

from signet.egress.errors import (
    EgressError,
    PolicyInvalid,
    RequestInvalid,
    SyncInLoop,
    TargetInvalid,
)
from signet.egress.outcome import (
    Forwarded,
    Indeterminate,
    IndeterminateCode,
    NotSent,
    NotSentCode,
    Outcome,
    Refused,
    Responded,
    Timing,
    as_forwarded,
)
from signet.egress.policy import Decision, Destination, Policy, Request, parse_destination
from signet.egress.target import Target, parse_target
from signet.egress.verdict import Verdict

__all__ = [
    "Decision",
    "Destination",
    "EgressError",
    "Forwarded",
    "Indeterminate",
    "IndeterminateCode",
    "NotSent",
    "NotSentCode",
    "Outcome",
    "Policy",
    "PolicyInvalid",
    "Refused",
    "Request",
    "RequestInvalid",
    "Responded",
    "SyncInLoop",
    "Target",
    "TargetInvalid",
    "Timing",
    "Verdict",
    "as_forwarded",
    "parse_destination",
    "parse_target",
]
