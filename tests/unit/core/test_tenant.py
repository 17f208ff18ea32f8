"""Tenants and their keys, as `SP_API_KEYS` describes them."""

from __future__ import annotations

import hashlib

import pytest

from signet.core.ids import TenantId
from signet.core.tenant import (
    KEY_MEMBERS,
    TENANT_MEMBERS,
    TENANT_SCOPES,
    KeyInvalid,
    KeyringInvalid,
    Scope,
    Tenant,
    TenantInvalid,
    read_key,
    read_keyring,
    read_tenant,
    tenant_members,
)
from signet.receipts.canonical import Json

MISSION: dict[str, dict[str, Json]] = {
    "prod_key": {
        "tenant": "acme",
        "allowlist": ["api.acme.com", "hooks.example.com"],
        "fallback_enabled": True,
        "fu_monthly_limit": 100000,
        "stripe_item_vex": "si_vex_123",
        "stripe_item_fu": "si_fu_456",
    }
}
"""The value in the mission's own documentation."""


def test_the_mission_s_own_value_is_read() -> None:
    """The published example works as it stands."""
    principal = read_keyring(MISSION).find(b"prod_key")
    assert principal is not None
    tenant = principal.tenant
    assert tenant.id == "acme"
    assert tenant.allowlist == ("api.acme.com", "hooks.example.com")
    assert tenant.fallback_enabled
    assert tenant.fu_monthly_limit == 100000
    assert (tenant.stripe_item_vex, tenant.stripe_item_fu) == ("si_vex_123", "si_fu_456")
    assert principal.scopes == TENANT_SCOPES
    assert principal.allowlist is None
    assert Scope.ADMIN not in principal.scopes


def test_a_key_narrows_its_tenant() -> None:
    """Members with `key_` and the scopes belong to the key alone."""
    keyring = read_keyring(
        {
            "a": {"tenant": "acme"},
            "b": {
                "tenant": "acme",
                "key_allowlist": [],
                "key_fu_monthly_limit": 0,
                "scopes": ["exchange"],
            },
        }
    )
    narrow, wide = keyring.find(b"b"), keyring.find(b"a")
    assert narrow is not None
    assert wide is not None
    assert narrow.tenant == wide.tenant
    assert (narrow.allowlist, narrow.fu_monthly_limit) == ((), 0)
    assert narrow.scopes == {Scope.EXCHANGE}
    assert keyring.tenants.keys() == {"acme"}


def test_rates_are_the_tenant_s_and_the_key_s() -> None:
    """Each has its own; a number that is no rate is refused where it stands."""
    limits = {"rate_per_minute": 600, "rate_burst": 50, "concurrency": 8}
    keys = {"a": {"tenant": "acme", **limits}, "b": {"tenant": "acme", **limits}}
    keys["b"] |= {"key_rate_per_minute": 60, "key_rate_burst": 1}
    principal = read_keyring(keys).find(b"b")
    assert principal is not None
    tenant = principal.tenant
    assert (tenant.rate_per_minute, tenant.rate_burst, tenant.concurrency) == (600, 50, 8)
    assert (principal.rate_per_minute, principal.rate_burst) == (60, 1)
    for name in (*limits, "key_rate_per_minute", "key_rate_burst"):
        for wrong in (0, -1, 10**7, True, "60", None):
            with pytest.raises(KeyringInvalid) as refused:
                read_keyring({"a": {"tenant": "acme", name: wrong}})
            assert [fault.pointer for fault in refused.value.faults] == [f"/#1/{name}"]


@pytest.mark.parametrize("presented", [b"", b"prod_key ", b"PROD_KEY", b"prod_ke", b"\xff", b"\0"])
def test_another_key_is_not_found(presented: bytes) -> None:
    """Only the exact bytes open."""
    assert read_keyring(MISSION).find(presented) is None


def test_keys_are_not_kept() -> None:
    """The keyring holds hashes; neither it nor a principal tells the key."""
    keyring = read_keyring({"a-very-secret-key": {"tenant": "acme"}})
    assert "a-very-secret-key" not in repr(keyring)
    assert list(keyring.principals) == [hashlib.sha256(b"a-very-secret-key").digest()]


def test_key_ids_tell_keys_apart() -> None:
    """A key id is long enough that no two of a deployment's keys share one by chance."""
    keyring = read_keyring({f"key-{n}": {"tenant": "acme"} for n in range(500)})
    ids = {principal.key_id for principal in keyring.principals.values()}
    assert len(ids) == 500
    assert all(len(key_id) >= len("env_") + 16 for key_id in ids)


@pytest.mark.parametrize("document", [None, 1, "x", [], [MISSION]])
def test_only_an_object_is_a_keyring(document: Json) -> None:
    """Anything else is one fault about the whole."""
    with pytest.raises(KeyringInvalid) as caught:
        read_keyring(document)
    assert caught.value.faults[0].pointer == ""


@pytest.mark.parametrize(
    ("entry", "pointer"),
    [
        ({}, "/#1/tenant"),
        ("acme", "/#1"),
        ({"tenant": "_system"}, "/#1/tenant"),
        ({"tenant": ""}, "/#1/tenant"),
        ({"tenant": 1}, "/#1/tenant"),
        ({"tenant": "a", "colour": 1}, "/#1/colour"),
        ({"tenant": "a", "allowlist": "api.acme.com"}, "/#1/allowlist"),
        ({"tenant": "a", "allowlist": [1]}, "/#1/allowlist"),
        ({"tenant": "a", "fallback_enabled": 1}, "/#1/fallback_enabled"),
        ({"tenant": "a", "fu_monthly_limit": -1}, "/#1/fu_monthly_limit"),
        ({"tenant": "a", "fu_monthly_limit": True}, "/#1/fu_monthly_limit"),
        ({"tenant": "a", "canon_profile": "legacy-json"}, "/#1/canon_profile"),
        ({"tenant": "a", "sealed": "yes"}, "/#1/sealed"),
        ({"tenant": "a", "stripe_item_vex": ""}, "/#1/stripe_item_vex"),
        ({"tenant": "a", "key_allowlist": {}}, "/#1/key_allowlist"),
        ({"tenant": "a", "key_fu_monthly_limit": "5"}, "/#1/key_fu_monthly_limit"),
        ({"tenant": "a", "scopes": ["root"]}, "/#1/scopes"),
        ({"tenant": "a", "scopes": [[]]}, "/#1/scopes"),
        ({"tenant": "a", "scopes": "exchange"}, "/#1/scopes"),
    ],
)
def test_each_fault_is_named_without_the_key(entry: Json, pointer: str) -> None:
    """The pointer counts the entry instead of telling the key."""
    with pytest.raises(KeyringInvalid) as caught:
        read_keyring({"a-very-secret-key": entry})
    assert [fault.pointer for fault in caught.value.faults] == [pointer]
    assert "a-very-secret-key" not in repr(caught.value.faults)


def test_all_entries_are_reported_at_once() -> None:
    """One bad entry does not hide the next."""
    with pytest.raises(KeyringInvalid) as caught:
        read_keyring({"a": {}, "b": {"tenant": "x"}, "c": 1, "": {"tenant": "y"}})
    assert [fault.pointer for fault in caught.value.faults] == ["/#1/tenant", "/#3", "/#4"]


def test_keys_of_one_tenant_describe_one_tenant() -> None:
    """Two keys that disagree about their tenant are refused: which holds would be chance."""
    with pytest.raises(KeyringInvalid) as caught:
        read_keyring({"a": {"tenant": "x"}, "b": {"tenant": "x", "sealed": True}})
    assert caught.value.faults[0].code == "tenant_conflict"


class TestMadeAtRunTime:
    """The same members, read by the same rules."""

    def test_the_members_are_those_of_the_settings(self) -> None:
        """Tenant and key are what the same members in `SP_API_KEYS` make of them."""
        narrowing: dict[str, Json] = {"scopes": ["exchange"], "key_allowlist": ["a.example"]}
        about: dict[str, Json] = {k: v for k, v in MISSION["prod_key"].items() if k != "tenant"}
        configured = read_keyring({"k": {"tenant": "acme", **about, **narrowing}}).find(b"k")
        assert configured is not None
        tenant = read_tenant(TenantId("acme"), about)
        assert tenant == configured.tenant
        made = read_key(configured.key_id, tenant, narrowing)
        assert made == configured
        assert TENANT_MEMBERS.keys() & KEY_MEMBERS.keys() == set()

    def test_what_is_shown_describes_the_same(self) -> None:
        """Every member in force, read again, is the same tenant; none is left out."""
        tenant = read_tenant(TenantId("acme"), {"sealed": True, "allowlist": ["a.example"]})
        shown = tenant_members(tenant)
        assert shown.keys() == TENANT_MEMBERS.keys()
        given = {name: value for name, value in shown.items() if value is not None}
        assert read_tenant(TenantId("acme"), given) == tenant

    def test_faults(self) -> None:
        """All of them at once; a key's member is none of a tenant's, nor the other way round."""
        with pytest.raises(TenantInvalid) as tenant:
            read_tenant(TenantId("acme"), {"scopes": [], "sealed": 1, "tenant": "acme"})
        assert [f.pointer for f in tenant.value.faults] == ["/scopes", "/sealed", "/tenant"]
        with pytest.raises(KeyInvalid) as key:
            read_key("key_0", Tenant(id=TenantId("acme")), {"sealed": True, "scopes": "x"})
        assert [f.pointer for f in key.value.faults] == ["/sealed", "/scopes"]

    def test_a_successor_has_the_account_of_its_line(self) -> None:
        """A key of its own counts for itself."""
        tenant = Tenant(id=TenantId("acme"))
        assert read_key("key_1", tenant, {}).account == "acme/key_1"
        assert read_key("key_2", tenant, {}, succeeds="key_1").account == "acme/key_1"
