"""The gateway's metrics, by name, in one place (Prometheus exposition format).

Label sets are closed: no host, path, trace or key ever becomes a label. A `Metrics` is built
once by `app` with its own registry and handed down; nothing is global but where values live:
processes that share a port keep theirs in files of one directory, and each of them tells the sum.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import ClassVar, Final, Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
    values,
)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_BUCKETS_S: Final[Sequence[float]] = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)


def share_metrics(slot: int, directory: str) -> None:
    """Keep the values of every `Metrics` built from now on in files of `directory`, by `slot`.

    Whoever takes the slot after this process goes on counting where it stopped, so that no total
    ever falls.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory  # the one way to tell prometheus_client
    values.ValueClass = values.MultiProcessValue(lambda: slot)  # pyright: ignore[reportUnknownMemberType] - the library leaves this untyped
    Metrics.shared_in = directory


def forget_gauges(slot: int, directory: str) -> None:
    """Take the gauges of a dead process out of the sums; its counters stay."""
    multiprocess.mark_process_dead(slot, directory)  # pyright: ignore[reportUnknownMemberType] - the library leaves this untyped


class Metrics:
    """Every metric family, as an attribute."""

    shared_in: ClassVar[str | None] = None

    def __init__(self) -> None:
        disable_created_metrics()  # one more series for each counter, which nobody asked for
        self.registry = CollectorRegistry(auto_describe=True)
        self.exchanges = self._counter(
            "signet_exchanges_total", "Accepted exchanges, by outcome.", "outcome"
        )
        self.denied = self._counter(
            "signet_denied_total", "Exchanges that policy denied, by reason.", "reason"
        )
        self.failures = self._counter(
            "signet_failed_total", "Exchanges that failed, by reason.", "reason"
        )
        self.forwards = self._counter(
            "signet_forward_total", "Forwards, by how they ended.", "result"
        )
        self.fallbacks = self._counter(
            "signet_fallback_used_total", "Exchanges that used the LLM fallback."
        )
        self.forward_blocked = self._counter(
            "signet_forward_blocked_total", "Forwards that a rule stopped, by reason.", "reason"
        )
        self.forward_reported = self._counter(
            "signet_hel_reported_total",
            "Forwards that only report mode let pass, by what enforcing would say.",
            "reason",
        )
        self.responses_truncated = self._counter(
            "signet_forward_responses_truncated_total", "Answers that were cut short or too large."
        )
        self.forward_seconds = self._histogram(
            "signet_forward_seconds", "Whole forwards, from the name to the end of the answer."
        )
        self.dns_seconds = self._histogram(
            "signet_forward_dns_seconds", "Looking up the destination's addresses."
        )
        self.semantic_violations = self._counter(
            "signet_semantic_violations_total", "Repairs refused because they changed a meaning."
        )
        self.fu_tokens = self._counter(
            "signet_fu_tokens_total", "Tokens spent on the LLM fallback."
        )
        self.recovered = self._counter(
            "signet_recovered_exchanges_total",
            "Exchanges that recovery ended, by outcome.",
            "outcome",
        )
        self.billing_enqueued = self._counter(
            "signet_billing_enqueued_total", "Units put into windows for Stripe.", "type"
        )
        self.reserved_capacity = self._gauge(
            "signet_reserved_capacity",
            "Units a tenant has reserved a month.",
            "tenant",
            "type",
            among="livemostrecent",
        )
        self.overage_charges = self._counter(
            "signet_overage_charges_total",
            "Units beyond the reserve, by price tier.",
            "tenant",
            "type",
            "tier",
        )
        self.billing_answers = self._counter(
            "signet_billing_answers_total", "What Stripe answered, by kind.", "answer"
        )
        self.billing_stuck = self._counter(
            "signet_billing_stuck_total", "Messages and lanes that wait for an operator."
        )
        self.billing_drift = self._gauge(
            "signet_billing_drift_units",
            "Units by which counts differ that should be equal, at the last comparison.",
            "between",
            among="livemostrecent",
        )
        self.replays = self._counter(
            "signet_idempotency_replays_total", "Answers replayed for a key that came again."
        )
        self.refusals = self._counter(
            "signet_refusals_total", "Requests refused without a receipt, by code.", "code"
        )
        self.chain_receipts = self._counter(
            "signet_chain_receipts_checked_total", "Receipts that the background check looked at."
        )
        self.chain_passes = self._counter(
            "signet_chain_checks_completed_total", "Whole passes of the background check."
        )
        self.chain_flaws = self._counter(
            "signet_chain_flaws_total", "What the background check found not to hold.", "kind"
        )
        self.vex_units = self._counter("signet_vex_units_total", "Verified exchanges metered.")
        self.requests = self._counter(
            "signet_http_requests_total", "HTTP answers, by route and status.", "route", "status"
        )
        self.in_flight = self._gauge("signet_http_requests_in_flight", "Requests in progress.")
        self.exchange_seconds = self._histogram(
            "signet_exchange_seconds", "Whole exchanges, from the body to the answer."
        )
        self.build = self._gauge(
            "signet_build_info",
            "Constant 1; the version is in the label.",
            "version",
            among="livemax",
        )
        self.storage = self._gauge(
            "signet_storage_info",
            "Constant 1; the engine is in the label.",
            "storage",
            among="livemax",
        )

    def decided(self, *, outcome: str, reason: str, vex_units: int, fu_tokens: int) -> None:
        """Count an exchange whose receipt is durable."""
        self.exchanges.labels(outcome).inc()
        self.vex_units.inc(vex_units)
        self.fu_tokens.inc(fu_tokens)
        if outcome == "denied":
            self.denied.labels(reason).inc()
        elif outcome != "allowed":
            self.failures.labels(reason).inc()
        if reason == "semantic_violation":
            self.semantic_violations.inc()

    def _counter(self, name: str, doc: str, *labels: str) -> Counter:
        return Counter(name, doc, labels, registry=self.registry)

    def _gauge(
        self,
        name: str,
        doc: str,
        *labels: str,
        among: Literal["livesum", "livemax", "livemostrecent"] = "livesum",
    ) -> Gauge:
        """Declare a gauge; `among` says what several processes have together."""
        return Gauge(name, doc, labels, registry=self.registry, multiprocess_mode=among)

    def _histogram(self, name: str, doc: str, *labels: str) -> Histogram:
        return Histogram(name, doc, labels, registry=self.registry, buckets=_BUCKETS_S)

    def exposition(self) -> bytes:
        """Return all families as text, summed over the processes that share them."""
        if self.shared_in is None:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        multiprocess.MultiProcessCollector(together, self.shared_in)
        return generate_latest(together)
