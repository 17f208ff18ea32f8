"""A month that does not end while a test looks at it, whenever the test is run.

Usage is told of the month that it is. A test that uses, and then asks, would find nothing if the
month ended in between.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.billing import DAY_US

from signet.core.billing import period_of

MONTH_LEFT_S = 300
"""Much longer than a page of the documentation takes."""


def now_us() -> int:
    """The real time."""
    return time.time_ns() // 1000


@pytest.fixture
def steady_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """The clock of the gateways in this process, set as `set_steady_clock` says."""
    return set_steady_clock(monkeypatch)


def set_steady_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Put gateways that this process opens a day ahead where the month has only that day."""
    begun_us = now_us()
    day_later = period_of(begun_us + DAY_US, "UTC")
    ahead_us = DAY_US if day_later.start_us > begun_us else 0

    def steady_us() -> int:
        return now_us() + ahead_us

    monkeypatch.setattr("signet.app.gateway._now_us", steady_us)
    return steady_us


def wait_for_a_month_that_goes_on() -> None:
    """Wait, where the month is about to end, until it has: for what knows no other clock."""
    while True:
        at_us = now_us()
        if period_of(at_us, "UTC").end_us - at_us > MONTH_LEFT_S * 1_000_000:
            return
        time.sleep(1)


def steady_zone() -> str:
    """A zone whose month goes on for ten hours at least: UTC, or one where it is tomorrow."""
    half_a_day_us = DAY_US // 2
    at_us = now_us()
    return "UTC" if period_of(at_us, "UTC").end_us - at_us > half_a_day_us else "Etc/GMT-14"


def steady_months(directory: Path, *tenants: str) -> dict[str, str]:
    """Settings by which months of these tenants are those of such a zone: for processes."""
    file = directory / "months.json"
    file.write_text(json.dumps({tenant: {"timezone": steady_zone()} for tenant in tenants}))
    return {"SP_RESERVED_CONFIG": str(file)}
