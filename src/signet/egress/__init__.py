"""An HTTP client that cannot be led inside.

    from signet.egress import safe_forward
    safe_forward("https://api.example.com/orders", {"id": 7})

A library of its own, importable without the server: strict targets, deny-by-default lists, an
address rule that lists what is good, connections pinned to the validated address, and outcomes
that say whether a request left. `docs/security.md` is its threat model.
"""

from signet.egress.address import AddressRules, classify
from signet.egress.client import EgressClient, asafe_forward, safe_forward
from signet.egress.errors import (
    EgressError,
    PolicyInvalid,
    RequestInvalid,
    SyncInLoop,
    TargetInvalid,
)
from signet.egress.limits import Limits
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
from signet.egress.resolve import DNSResolver, LookupFailed, Record, Resolver
from signet.egress.target import Target, parse_target
from signet.egress.transport import Dialler, dial
from signet.egress.verdict import Verdict

__all__ = [
    "AddressRules",
    "DNSResolver",
    "Decision",
    "Destination",
    "Dialler",
    "EgressClient",
    "EgressError",
    "Forwarded",
    "Indeterminate",
    "IndeterminateCode",
    "Limits",
    "LookupFailed",
    "NotSent",
    "NotSentCode",
    "Outcome",
    "Policy",
    "PolicyInvalid",
    "Record",
    "Refused",
    "Request",
    "RequestInvalid",
    "Resolver",
    "Responded",
    "SyncInLoop",
    "Target",
    "TargetInvalid",
    "Timing",
    "Verdict",
    "as_forwarded",
    "asafe_forward",
    "classify",
    "dial",
    "parse_destination",
    "parse_target",
    "safe_forward",
]
