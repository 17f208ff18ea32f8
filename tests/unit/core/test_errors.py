"""The root of all errors, and the fault."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil

import pytest

import signet
from signet.core.errors import Fault, SignetError


def test_an_error_keeps_its_detail_and_faults() -> None:
    """What a person reads is the detail; the faults say where."""
    fault = Fault(pointer="/a", code="wrong_type", detail="expected a text")
    error = SignetError("two words", faults=(fault,))
    assert (str(error), error.detail, error.faults) == ("two words", "two words", (fault,))


def test_a_fault_is_a_value() -> None:
    """Faults compare by content and cannot be changed."""
    fault = Fault(pointer="", code="x", detail="y")
    assert fault == Fault(pointer="", code="x", detail="y")
    with pytest.raises(dataclasses.FrozenInstanceError):
        fault.code = "z"  # type: ignore[misc]


def test_every_leaf_has_a_code_of_its_own() -> None:
    """No two errors below the root share a stable code, but where one stands for the other."""
    for module in pkgutil.walk_packages(signet.__path__, "signet."):
        if not module.name.endswith(("__main__", "jsonata_child")):
            importlib.import_module(module.name)
    codes: dict[str, type[SignetError]] = {}
    for leaf in _below(SignetError):
        if "code" in vars(leaf) and leaf.code != "not_found":
            assert codes.setdefault(leaf.code, leaf) is leaf, leaf
    assert "settings_invalid" in codes


def _below(root: type[SignetError]) -> list[type[SignetError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in _below(child))]
