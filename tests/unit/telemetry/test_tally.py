"""A tally tells its histogram exactly what the histogram would have been told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram

from signet.telemetry.tally import Count, Tally


def samples(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    """What a registry shows, by name and bucket."""
    return {
        (one.name, one.labels.get("le", "")): one.value
        for family in registry.collect()
        for one in family.samples
        if not one.name.endswith("_created")
    }


@given(st.lists(st.one_of(st.sampled_from([0.5, 1.0, 8.0, 9.0]), st.integers(-9, 99))))
def test_it_is_the_same_as_observing(values: list[float]) -> None:
    """Bounds, values beyond all of them, several pours: counts and sum are those of `observe`."""
    direct, poured = CollectorRegistry(), CollectorRegistry()
    histogram = Histogram("h", "H.", registry=direct, buckets=(0.5, 1, 8))
    tally = Tally(Histogram("h", "H.", registry=poured, buckets=(0.5, 1, 8)))
    for number, value in enumerate(values):
        histogram.observe(value)
        tally.observe(value)
        if number % 3 == 0:
            tally.pour()
    tally.pour()
    assert samples(poured) == samples(direct)


def test_nobody_pours() -> None:
    """What waits is bounded; the newest stay."""
    registry = CollectorRegistry()
    tally = Tally(Histogram("h", "H.", registry=registry, buckets=(1,)))
    for _ in range(70_000):
        tally.observe(0.5)
    tally.pour()
    assert registry.get_sample_value("h_count") == 1 << 16


@given(st.lists(st.integers(0, 9)))
def test_a_count_is_the_same_as_counting(amounts: list[int]) -> None:
    """Whatever was added, and however often it was poured, the counter tells the sum."""
    registry = CollectorRegistry()
    count = Count(Counter("c", "C.", registry=registry))
    for number, amount in enumerate(amounts):
        count.add(amount)
        if number % 3 == 0:
            count.pour()
    count.pour()
    count.pour()
    assert registry.get_sample_value("c_total") == sum(amounts)
