"""Metrics by name, with closed label sets."""

from __future__ import annotations

import re

from prometheus_client.parser import text_string_to_metric_families

from signet.telemetry.metrics import CONTENT_TYPE, Metrics

OPEN = {"host", "path", "url", "trace", "trace_id", "key", "key_id", "ip", "receipt_hash"}


def test_everything_is_declared_in_words() -> None:
    """Each family has our prefix, a unit suffix where it counts, and a sentence."""
    for family in Metrics().registry.collect():
        assert re.fullmatch(r"signet_[a-z_]+", family.name)
        assert family.documentation.endswith(".")


def test_labels_are_closed() -> None:
    """No label is a host, a path, a trace or a key."""
    metrics = Metrics()
    for collector in vars(metrics).values():
        labels = getattr(collector, "_labelnames", ())
        assert not OPEN & set(labels)


def test_the_exposition_can_be_parsed() -> None:
    """What is exposed is the text format that it says it is."""
    metrics = Metrics()
    metrics.decided(outcome="denied", reason="HEL_HOST_NOT_ALLOWED", vex_units=0, fu_tokens=3)
    metrics.decided(outcome="allowed", reason="ok", vex_units=1, fu_tokens=0)
    metrics.decided(outcome="failed", reason="semantic_violation", vex_units=0, fu_tokens=0)
    families = {
        family.name: family
        for family in text_string_to_metric_families(metrics.exposition().decode())
    }

    def value(name: str, **labels: str) -> float:
        return next(
            sample.value
            for sample in families[name].samples
            if sample.labels == labels and not sample.name.endswith("_created")
        )

    assert value("signet_exchanges", outcome="denied") == 1
    assert value("signet_denied", reason="HEL_HOST_NOT_ALLOWED") == 1
    assert value("signet_failed", reason="semantic_violation") == 1
    assert value("signet_semantic_violations") == 1
    assert value("signet_vex_units") == 1
    assert value("signet_fu_tokens") == 3
    assert CONTENT_TYPE.startswith("text/plain")


def test_each_gateway_has_its_own() -> None:
    """Nothing is global: two gateways in one process do not count for each other."""
    one, other = Metrics(), Metrics()
    one.vex_units.inc()
    assert "signet_vex_units_total 1.0" in one.exposition().decode()
    assert "signet_vex_units_total 0.0" in other.exposition().decode()
