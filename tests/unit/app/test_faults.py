"""What is well formed in the settings and cannot be used all the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from signet.app.faults import egress_faults, refuse_faults, reserve_faults
from signet.app.refused import StartRefused
from signet.settings import Settings, read_settings


def settings_of(**environ: str) -> Settings:
    """Settings as an environment gives them."""
    return read_settings(environ).settings


def test_settings_that_can_be_used() -> None:
    """There is nothing to say of them."""
    refuse_faults(settings_of(SP_HEL_ALLOWLIST="api.example.com, *.example.org"))
    refuse_faults(settings_of(SP_EGRESS_PRIVATE_NETWORKS="10.0.0.0/8,fd00::/8"))


def test_all_at_once(tmp_path: Path) -> None:
    """Every entry, network and member at fault is told in one go, with its variable."""
    (tmp_path / "destinations.json").write_text('[{"port": 1}]')
    (tmp_path / "reserved.json").write_text('{"acme": {"vex_reserved": -1, "colour": 1}}')
    entry = {"tenant": "a", "allowlist": ["e f"], "key_allowlist": [" "]}
    with pytest.raises(StartRefused) as caught:
        refuse_faults(
            settings_of(
                SP_HEL_ALLOWLIST="good.example, a b, c d",
                SP_DESTINATIONS=str(tmp_path / "destinations.json"),
                SP_API_KEYS=json.dumps({"s3cret": entry}),
                SP_EGRESS_PRIVATE_NETWORKS="10.0.0.0/8, everything, 127.0.0.0/8",
                SP_EGRESS_NAT64_PREFIXES="64:ff9b::/95",
                SP_RESERVED_CONFIG=str(tmp_path / "reserved.json"),
            )
        )
    assert sorted(fault.pointer for fault in caught.value.faults) == sorted(
        (
            *("SP_HEL_ALLOWLIST", "SP_HEL_ALLOWLIST", "SP_DESTINATIONS"),
            *("SP_API_KEYS", "SP_API_KEYS"),
            *("SP_EGRESS_PRIVATE_NETWORKS", "SP_EGRESS_PRIVATE_NETWORKS"),
            "SP_EGRESS_NAT64_PREFIXES",
            *("SP_RESERVED_CONFIG", "SP_RESERVED_CONFIG"),
        )
    )
    assert "s3cret" not in repr(caught.value.faults)


def test_each_has_its_own() -> None:
    """The doctor asks for the two kinds by themselves."""
    lists = settings_of(SP_HEL_ALLOWLIST="a b")
    assert [fault.pointer for fault in egress_faults(lists)] == ["SP_HEL_ALLOWLIST"]
    assert list(reserve_faults(lists)) == []
    file = settings_of(SP_RESERVED_CONFIG="/nonexistent/reserved.json")
    assert list(egress_faults(file)) == []
    (fault,) = reserve_faults(file)
    assert fault.pointer == "SP_RESERVED_CONFIG"
    assert "/nonexistent/reserved.json" in fault.detail
