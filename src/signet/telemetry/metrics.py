"""The gateway's metrics, by name, in one place (Prometheus exposition format).

Label sets are closed: no host, path, trace or key ever becomes a label. A `Metrics` is built
once by `app` with its own registry and handed down; nothing is global.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_FAST_S: Final[Sequence[float]] = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)


class Metrics:
    """Every metric family, as an attribute."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        new = {"registry": self.registry}
        self.exchanges = Counter(
            "signet_exchanges_total", "Accepted exchanges, by outcome.", ["outcome"], **new
        )
        self.denied = Counter(
            "signet_denied_total", "Exchanges that policy denied, by reason.", ["reason"], **new
        )
        self.forwards = Counter(
            "signet_forward_total", "Forwards, by how they ended.", ["result"], **new
        )
        self.fallbacks = Counter(
            "signet_fallback_used_total", "Exchanges that used the LLM fallback.", **new
        )
        self.replays = Counter(
            "signet_idempotency_replays_total", "Answers replayed for a key that came again.", **new
        )
        self.refusals = Counter(
            "signet_refusals_total", "Requests refused without a receipt, by code.", ["code"], **new
        )
        self.failures = Counter(
            "signet_failed_total", "Exchanges that failed, by reason.", ["reason"], **new
        )
        self.vex_units = Counter("signet_vex_units_total", "Verified exchanges metered.", **new)
        self.requests = Counter(
            "signet_http_requests_total", "HTTP answers, by route and status.", ["route", "status"],
            **new,
        )  # fmt: skip
        self.in_flight = Gauge("signet_http_requests_in_flight", "Requests in progress.", **new)
        self.exchange_seconds = Histogram(
            "signet_exchange_seconds", "Whole exchanges, from body to answer.", buckets=_FAST_S,
            **new,
        )  # fmt: skip
        self.phase_seconds = Histogram(
            "signet_exchange_phase_seconds", "One phase of an exchange.", ["phase"],
            buckets=_FAST_S, **new,
        )  # fmt: skip
        self.batch_size = Histogram(
            "signet_commit_batch_size", "Exchanges committed together.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256), **new,
        )  # fmt: skip
        self.build = Gauge(
            "signet_build_info", "Constant 1; the version is in the label.", ["version"], **new
        )
        self.storage = Gauge(
            "signet_storage_info", "Constant 1; the engine is in the label.", ["storage"], **new
        )

    def exposition(self) -> bytes:
        """Return all families as text."""
        return generate_latest(self.registry)
