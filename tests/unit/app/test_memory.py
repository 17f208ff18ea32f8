"""What a process that serves does about garbage."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from signet.app.memory import settle_memory


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


class Cycle:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.itself = self


def test_what_the_start_made_is_left_alone() -> None:
    """It is no longer looked at, and the collector comes less often."""
    before = gc.get_threshold()
    settle_memory()
    assert gc.get_freeze_count() > 10_000
    assert gc.get_threshold()[0] > before[0]


def test_cycles_made_later_are_still_found() -> None:
    """Collecting less often is not never."""
    settle_memory()
    gone = weakref.ref(Cycle())
    made = [Cycle() for _ in range(2 * gc.get_threshold()[0])]
    assert len(made) > 0
    assert gone() is None
