"""The vectors of RFC 8785: §3.2.2 and §3.2.4 (serialisation), §3.2.3 (sorting), appendix B."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from signet.receipts.canonical import canonicalize, parse_for_verification
from signet.receipts.errors import CanonicalError

VECTORS: dict[str, Any] = json.loads(Path(__file__).with_name("rfc8785.json").read_text())


def test_serialisation() -> None:
    """The sample of §3.2.2 becomes exactly the bytes of §3.2.4."""
    sample = VECTORS["canonicalization"]
    assert canonicalize(parse_for_verification(sample["input"])).hex() == sample["output_hex"]


def test_sorting() -> None:
    """Names are in the order of their UTF-16 code units (§3.2.3)."""
    sample = VECTORS["sorting"]
    in_order = json.loads(canonicalize(parse_for_verification(sample["input"])))
    assert list(in_order.values()) == sample["values_in_order"]


@pytest.mark.parametrize(("bits", "spelling"), VECTORS["numbers"])
def test_numbers(bits: str, spelling: str | None) -> None:
    """Each double of appendix B has its spelling, and NaN and infinity have none."""
    value = struct.unpack(">d", bytes.fromhex(bits))[0]
    if spelling is None:
        with pytest.raises(CanonicalError) as refused:
            canonicalize(value)
        assert refused.value.code == "not_finite"
    else:
        assert canonicalize(value) == spelling.encode()
        assert canonicalize(parse_for_verification(spelling)) == spelling.encode()
