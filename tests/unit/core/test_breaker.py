"""The circuit breaker as a state machine."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from signet.core.breaker import Breaker, BreakerRule

RULE = BreakerRule(failures=3, open_us=100)


def test_it_opens_after_failures_in_a_row() -> None:
    """Two failures and a success leave it closed, three in a row open it."""
    state = Breaker().failed(0, RULE).failed(1, RULE).succeeded().failed(2, RULE).failed(3, RULE)
    assert state.admits(3)
    state = state.failed(4, RULE)
    assert not state.admits(4)
    assert not state.admits(103)
    assert state.admits(104)


def test_one_trial_decides() -> None:
    """After the pause one call goes through; the others wait for what it finds."""
    state = Breaker(failures=3, open_until_us=100)
    tried = state.started(100, RULE)
    assert not tried.admits(150)
    assert tried.succeeded().admits(150)
    assert not tried.failed(150, RULE).admits(249)
    assert tried.admits(200)  # a trial that is never reported does not close the door for ever


def test_starting_while_closed_changes_nothing() -> None:
    """Concurrent calls are free while the service answers."""
    assert Breaker(failures=2).started(5, RULE) == Breaker(failures=2)


@given(st.lists(st.sampled_from(["ok", "fail", "wait"]), max_size=60))
def test_it_never_stays_open_without_cause(events: list[str]) -> None:
    """Whatever happened, after one pause a call is admitted again."""
    state, now = Breaker(), 0
    for event in events:
        now += 60 if event == "wait" else 1
        if state.admits(now) and event != "wait":
            state = state.started(now, RULE)
            state = state.succeeded() if event == "ok" else state.failed(now, RULE)
    assert state.admits(now + RULE.open_us)
