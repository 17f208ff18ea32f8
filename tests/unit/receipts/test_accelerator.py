"""orjson is used only if it behaves."""

from dataclasses import replace

import pytest

from signet.receipts import accelerator
from signet.receipts.accelerator import Accelerator, behaves, find


@pytest.fixture
def good() -> Accelerator:
    """The real one; the test environment has orjson installed."""
    found = find()
    assert found is not None
    return found


def test_the_installed_orjson_behaves(good: Accelerator) -> None:
    """The fast path is in use here: were it not, every speed figure would be of the slow one."""
    assert accelerator.ACCELERATOR is not None
    assert behaves(good)


def test_without_orjson_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The base install has no orjson and needs none."""
    monkeypatch.setattr(accelerator, "orjson", None)
    assert find() is None


def test_one_that_sorts_otherwise_is_not_used(good: Accelerator) -> None:
    """Unsorted names would change every hash."""
    assert not behaves(replace(good, sorted_dumps=lambda value, _: good.echo(value)))


def test_one_that_spells_otherwise_is_not_used(good: Accelerator) -> None:
    """So would another escape for the same character."""

    def spelled(value: object, foreign: object) -> bytes:
        return good.sorted_dumps(value, foreign).replace(b"\x7f", b"\\u007f")

    assert not behaves(replace(good, sorted_dumps=spelled))


def test_one_that_takes_unsafe_integers_is_not_used(good: Accelerator) -> None:
    """Integers beyond 2^53−1 must be refused by the writer."""
    assert not behaves(replace(good, echo=lambda value: b'{"b":[1],"a":":"}'))


@pytest.mark.parametrize("taken", [b"[NaN]", b'"\\ud800"', b"[1]x", b"[01]", b"[1e999]"])
def test_one_that_reads_too_much_is_not_used(good: Accelerator, taken: bytes) -> None:
    """Whatever strict JSON refuses must be refused by the reader."""

    def lax(text: bytes) -> object:
        return None if text == taken else good.loads(text)

    assert not behaves(replace(good, loads=lax))


def test_libsodium_signs_as_rfc_8032_says() -> None:
    """Test 2 of RFC 8032 §7.1; and it is in use here, or every figure would be of the slow one."""
    seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    signer = accelerator.ed25519_signer(seed)
    assert signer is not None
    assert signer(b"\x72") == bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
