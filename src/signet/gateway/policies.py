"""Which egress policy holds for a caller: the deployment's list and its tenant's, narrowed by
the key's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from signet.core.tenant import Principal
from signet.egress import Policy
from signet.receipts.canonical import Json


class Policies:
    """The policy of each key, parsed once."""

    def __init__(self, everyone: Policy, principals: Iterable[Principal]) -> None:
        """Raises `PolicyInvalid` when any list has an entry that is none."""
        self._everyone = everyone
        self._by_key = {
            principal.key_id: self._parse(principal)
            for principal in principals
            if principal.tenant.allowlist or principal.allowlist is not None
        }

    def of(self, principal: Principal) -> Policy:
        """Return the policy in force for this key."""
        return self._by_key.get(principal.key_id, self._everyone)

    def _parse(self, principal: Principal) -> Policy:
        policy = self._everyone.extended_by(_policy(principal.tenant.allowlist))
        if principal.allowlist is not None:
            policy = policy.narrowed_by(_policy(principal.allowlist))
        return policy


def _policy(entries: Iterable[Json]) -> Policy:
    return Policy.parse(cast(Iterable[str | Mapping[str, object]], entries))
