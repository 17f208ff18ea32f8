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
