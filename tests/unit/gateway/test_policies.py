"""Which policy holds for whom."""

from __future__ import annotations

from dataclasses import replace

import pytest

from signet.core.ids import TenantId
from signet.core.tenant import Keyring, Principal, read_keyring
from signet.egress import Policy, PolicyInvalid, Request, parse_target
from signet.gateway.policies import Policies, list_faults, read_list
from signet.receipts.canonical import Json

KEYRING = read_keyring(
    {
        "plain": {"tenant": "plain"},
        "wide": {"tenant": "wide", "allowlist": ["tenant.example"]},
        "narrow": {
            "tenant": "wide",
            "allowlist": ["tenant.example"],
            "key_allowlist": ["tenant.example", "elsewhere.example"],
        },
        "none": {"tenant": "plain", "key_allowlist": []},
    }
)


def _policies(keyring: Keyring = KEYRING, **mode: str) -> Policies:
    everyone = Policy.parse(["all.example"], **mode)  # type: ignore[arg-type]
    return Policies(everyone, lambda: keyring.tenants)


def _principal(key: str) -> Principal:
    found = KEYRING.find(key.encode())
    assert found is not None
    return found


def _allows(policy: Policy) -> set[str]:
    hosts = ("all.example", "tenant.example", "elsewhere.example")
    return {
        host for host in hosts if policy.decide(parse_target(f"https://{host}/"), Request()).allowed
    }


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("plain", {"all.example"}),
        ("wide", {"all.example", "tenant.example"}),
        ("narrow", {"tenant.example"}),
        ("none", set[str]()),
    ],
)
def test_lists_extend_and_keys_narrow(key: str, allowed: set[str]) -> None:
    """A tenant's list adds to everyone's; a key's takes away and never adds."""
    assert _allows(_policies().of(_principal(key))) == allowed


def test_a_tenant_has_a_policy_without_a_key() -> None:
    """What recovery may do is the tenant's, whichever key had called."""
    policies = _policies()
    assert _allows(policies.of_tenant(TenantId("wide"))) == {"all.example", "tenant.example"}
    assert _allows(policies.of_tenant(TenantId("plain"))) == {"all.example"}
    assert _allows(policies.of_tenant(TenantId("gone"))) == {"all.example"}


def test_the_mode_is_everyone_s() -> None:
    """No tenant's own list turns report mode into another."""
    policies = _policies(mode="report")
    for key in ("plain", "wide", "narrow", "none"):
        assert policies.of(_principal(key)).mode == "report"


def test_a_bad_entry_is_named() -> None:
    """Each entry that is no destination is a fault at its place in the list."""
    faults = list(list_faults("allowlist", ["a.example", "not a host", {"port": 1}]))
    assert [(fault.pointer, fault.code) for fault in faults] == [
        ("/allowlist/1", "malformed_member"),
        ("/allowlist/2", "malformed_member"),
    ]
    for member in ("allowlist", "key_allowlist"):
        keyring = read_keyring({"k": {"tenant": "a", member: ["not a host"]}})
        with pytest.raises(PolicyInvalid):
            _policies(keyring).of(*keyring.principals.values())


def test_a_changed_tenant_has_another_policy() -> None:
    """What was parsed is used no longer than the tenant and the key are what they were."""
    keyring = read_keyring({"k": {"tenant": "wide", "allowlist": ["tenant.example"]}})
    tenants = dict(keyring.tenants)
    policies = Policies(Policy.parse(["all.example"]), lambda: tenants)
    (before,) = keyring.principals.values()
    assert _allows(policies.of(before)) == {"all.example", "tenant.example"}
    changed = replace(before.tenant, allowlist=("elsewhere.example",))
    tenants[changed.id] = changed
    after = replace(before, tenant=changed)
    assert _allows(policies.of(after)) == {"all.example", "elsewhere.example"}
    assert _allows(policies.of_tenant(changed.id)) == {"all.example", "elsewhere.example"}
    narrowed = replace(after, allowlist=("all.example",))
    assert _allows(policies.of(narrowed)) == {"all.example"}
    # A call that was let in before the change goes on by what it was let in with.
    assert _allows(policies.of(before)) == {"all.example", "tenant.example"}
    assert policies.of(after) is policies.of(after)


def test_policies_are_parsed_once() -> None:
    """Keys of one tenant share its policy, and so its hash."""
    policies = _policies()
    assert policies.of(_principal("wide")) is policies.of_tenant(TenantId("wide"))


@pytest.mark.parametrize(
    "asked", [{"delivery": "queued"}, {"schedule": [0, 5]}, {"concurrency": 4}]
)
def test_what_needs_a_queue_is_refused(asked: dict[str, Json]) -> None:
    """There is none, and an operator who asks for one is told at the start, not by silence."""
    entry: Json = {"host": "a.example", **asked}
    with pytest.raises(PolicyInvalid, match="need a queue"):
        read_list([entry])
    (fault,) = list_faults("allowlist", ["b.example", entry])
    assert fault.pointer == "/allowlist/1"
    assert read_list([{"host": "a.example", "delivery": "sync", "idempotent": True}])
