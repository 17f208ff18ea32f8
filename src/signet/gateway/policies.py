"""Which egress policy holds for a caller: the deployment's list and its tenant's, narrowed by
the key's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, cast

from signet.core.errors import Fault
from signet.core.ids import TenantId
from signet.core.tenant import Principal, Tenant
from signet.egress import Policy, PolicyInvalid
from signet.egress.policy import Mode
from signet.receipts.canonical import Json, pointer

_MOST_KEPT: Final = 10_000


class Policies:
    """The policy of each key and of each tenant, parsed when it is first asked for.

    `tenants` are those in force now. What was parsed is used as long as the tenant and the key
    are what they were.
    """

    def __init__(self, everyone: Policy, tenants: Callable[[], Mapping[TenantId, Tenant]]) -> None:
        self._everyone = everyone
        self._tenants = tenants
        self._by_tenant: dict[TenantId, tuple[Tenant, Policy]] = {}
        self._by_key: dict[str, tuple[Principal, Policy]] = {}

    def of(self, principal: Principal) -> Policy:
        """Return the policy in force for this key. Raises `PolicyInvalid`."""
        known = self._by_key.get(principal.key_id)
        # By identity, because this is asked for every exchange; a key that was changed, or whose
        # tenant was, is another object.
        if known is not None and known[0] is principal:
            return known[1]
        policy = self._of(principal.tenant)
        if principal.allowlist is not None:
            policy = policy.narrowed_by(read_list(principal.allowlist))
        if len(self._by_key) >= _MOST_KEPT:
            self._by_key.clear()
        self._by_key[principal.key_id] = principal, policy
        return policy

    def of_tenant(self, tenant: TenantId) -> Policy:
        """Return the policy in force for this tenant, whichever of its keys called."""
        known = self._tenants().get(tenant)
        return self._everyone if known is None else self._of(known)

    def _of(self, tenant: Tenant) -> Policy:
        if not tenant.allowlist:
            return self._everyone
        known = self._by_tenant.get(tenant.id)
        if known is not None and known[0] == tenant:
            return known[1]
        policy = self._everyone.extended_by(read_list(tenant.allowlist))
        if len(self._by_tenant) >= _MOST_KEPT:
            self._by_tenant.clear()
        self._by_tenant[tenant.id] = tenant, policy
        return policy


def read_list(entries: Iterable[Json], *, mode: Mode = "enforce") -> Policy:
    """Return the policy of a list. Raises `PolicyInvalid` naming the entry at fault.

    What only a queue could honour is refused: this gateway keeps none, and an operator who asks for
    one must not learn that from what did not arrive.
    """
    policy = Policy.parse(cast(Iterable[str | Mapping[str, object]], entries), mode=mode)
    for entry in policy.destinations:
        if entry.delivery == "queued" or entry.schedule or entry.concurrency:
            detail = "delivery 'queued', schedule and concurrency need a queue; there is none here"
            raise PolicyInvalid(f"destination {entry.host!r}: {detail}")
    return policy


def list_faults(member: str, entries: Iterable[Json]) -> Iterator[Fault]:
    """Yield every entry of a list that is no destination; `member` is where the list stands."""
    for number, entry in enumerate(entries):
        try:
            read_list((entry,))
        except PolicyInvalid as error:
            place = pointer(member, str(number))
            yield Fault(pointer=place, code="malformed_member", detail=str(error))
