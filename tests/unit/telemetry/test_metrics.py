"""Metrics by name, with closed label sets."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import fields

import pytest
from prometheus_client.parser import text_string_to_metric_families

from signet.telemetry.metrics import CONTENT_TYPE, RENAMED, Metrics
from signet.telemetry.vitals import Vitals

OPEN = {"host", "path", "url", "trace", "trace_id", "key", "key_id", "ip", "receipt_hash"}
VITALS = Vitals(**{told.name: number for number, told in enumerate(fields(Vitals))})
PROMISED = {
    "signet_exchanges_total": None,
    "signet_denied_total": None,
    "signet_forward_total": None,
    "signet_billing_enqueued_total": ("type",),
    "signet_reserved_capacity": ("tenant", "type"),
    "signet_overage_charges_total": ("tenant", "type", "tier"),
    "signet_fallback_used_total": (),
}
"""The names that dashboards of the protocol rely on, with the labels where those are promised."""


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


def test_requests_in_progress_are_told_when_somebody_asks() -> None:
    """The hot path only counts them; the page has the number of now."""
    metrics = Metrics()
    metrics.requests_in_flight += 3
    assert "signet_http_requests_in_flight 3.0" in metrics.exposition().decode()
    metrics.requests_in_flight -= 1
    assert "signet_http_requests_in_flight 2.0" in metrics.exposition().decode()


def test_the_promised_names_are_there() -> None:
    """Dashboards of the protocol find their seven families, with their labels."""
    declared = {
        f"{metric._name}_total" if metric._type == "counter" else metric._name: metric._labelnames
        for metric in vars(Metrics()).values()
        if hasattr(metric, "_labelnames")
    }
    for name, labels in PROMISED.items():
        assert name in declared
        assert labels is None or declared[name] == labels


def test_there_is_enough_to_look_at() -> None:
    """At least 45 families are on the page of a gateway that has done nothing yet."""
    families = list(text_string_to_metric_families(Metrics().exposition(VITALS).decode()))
    assert len({family.name for family in families}) == len(families) >= 45


def test_older_names_show_the_same() -> None:
    """A dashboard that asks for an older name sees what the family of today says."""
    metrics = Metrics()
    metrics.phases["map"].observe(0.02)
    metrics.exchange_seconds.observe(0.3)
    families = {
        family.name: {
            (sample.name.removeprefix(family.name), *sample.labels.items()): sample.value
            for sample in family.samples
        }
        for family in text_string_to_metric_families(metrics.exposition().decode())
    }
    for old, new in RENAMED.items():
        assert families[old] == families[new]
        assert sum(families[old].values()) > 0


def test_tenants_fold_into_other() -> None:
    """Whoever makes tenants up makes no labels: past the bound all of them are one."""
    metrics = Metrics(most_tenants=2)
    assert [metrics.tenant(name) for name in ("a", "b", "c", "a", "d", "b")] == [
        *("a", "b", "_other", "a", "_other", "b")
    ]


def test_the_database_tells_what_it_knows() -> None:
    """Each vital sign is a gauge; without an answer they are absent, and one gauge says so."""
    with_answer = Metrics().exposition(VITALS).decode()
    without = Metrics().exposition().decode()
    for number, told in enumerate(fields(Vitals)):
        assert f"\nsignet_{told.name} {float(number)}\n" in with_answer
        assert f"signet_{told.name} " not in without
    assert "signet_database_up 1.0" in with_answer
    assert "signet_database_up 0.0" in without


def test_prometheus_likes_the_page() -> None:
    """`promtool check metrics` has nothing to say about names, units and help."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool (Debian: apt install prometheus)")
    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=Metrics().exposition(VITALS),
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
