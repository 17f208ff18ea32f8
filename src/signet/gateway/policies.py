"""Which egress policy holds for a caller: the deployment's list and its tenant's, narrowed by
the key's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from signet.core.ids import TenantId
from signet.core.tenant import Principal, Tenant
from signet.egress import Policy
from signet.receipts.canonical import Json


class Policies:
    """The policy of each key and of each tenant, parsed once."""

    def __init__(self, everyone: Policy, principals: Iterable[Principal]) -> None:
        """Raises `PolicyInvalid` when any list has an entry that is none."""
        self._everyone = everyone
        self._by_tenant: dict[TenantId, Policy] = {}
        self._by_key: dict[str, Policy] = {}
        for principal in principals:
            policy = self._add_tenant(principal.tenant)
            if principal.allowlist is not None:
                self._by_key[principal.key_id] = policy.narrowed_by(_policy(principal.allowlist))

    def of(self, principal: Principal) -> Policy:
        """Return the policy in force for this key."""
        return self._by_key.get(principal.key_id) or self.of_tenant(principal.tenant.id)

    def of_tenant(self, tenant: TenantId) -> Policy:
        """Return the policy in force for this tenant, whichever of its keys called."""
        return self._by_tenant.get(tenant, self._everyone)

    def _add_tenant(self, tenant: Tenant) -> Policy:
        if not tenant.allowlist:
            return self._everyone
        known = self._by_tenant.get(tenant.id)
        if known is None:
            known = self._everyone.extended_by(_policy(tenant.allowlist))
            self._by_tenant[tenant.id] = known
        return known


def _policy(entries: Iterable[Json]) -> Policy:
    return Policy.parse(cast(Iterable[str | Mapping[str, object]], entries))
