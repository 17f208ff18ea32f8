"""The gateway's metrics, by name, in one place (Prometheus exposition format).

Label sets are closed: no host, path, trace or key ever becomes a label, and of tenants a bounded
number. A `Metrics` is built once by `app` with its own registry and handed down; nothing is global
but where values live: processes that share a port keep theirs in files of one directory, and each
of them tells the sum. What only the database knows is read when somebody asks (`Vitals`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import ClassVar, Final, Literal, get_args

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
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from signet.telemetry.tally import Count, Tally
from signet.telemetry.vitals import Vitals

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_BUCKETS_S: Final[Sequence[float]] = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
_BATCHES: Final[Sequence[float]] = (1, 2, 4, 8, 16, 32, 64, 128)
_BYTES: Final[Sequence[float]] = tuple(4.0**power for power in range(3, 11))  # 64 bytes to 1 MiB
_MOST_TENANTS: Final = 1000
_OTHER: Final = "_other"

Phase = Literal["understand", "fallback", "map", "decide", "forward", "commit"]
"""What an exchange spends its time on. One that has nothing to mend or send skips those two."""

RENAMED: Final[Mapping[str, str]] = {
    "signet_exchange_total_latency_seconds": "signet_exchange_seconds",
    "signet_exchange_phase_latency_seconds": "signet_exchange_phase_seconds",
}
"""Names that older dashboards ask for, each with the family that it shows once more."""


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

    def __init__(self, *, most_tenants: int = _MOST_TENANTS) -> None:
        disable_created_metrics()  # one more series for each counter, which nobody asked for
        self.registry = CollectorRegistry(auto_describe=True)
        self._tenants: set[str] = set()
        self._most_tenants = most_tenants
        self.exchanges = self._counter(
            "signet_exchanges_total", "Accepted exchanges, by outcome.", "outcome"
        )
        self._counted: dict[Counter, Count] = {}
        self._outcomes: dict[str, Count] = {}
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
        self.registry_unusable = self._counter(
            "signet_registry_unusable",
            "Stored types, tools and mappings that this version could not compile, at each load.",
        )
        self.refusals = self._counter(
            "signet_refusals_total", "Requests refused without a receipt, by code.", "code"
        )
        self.limited = self._counter(
            "signet_limited_total",
            "Requests that a limit of their caller refused, by which.",
            "limit",
        )
        self.limit_seconds = self._histogram(
            "signet_limit_seconds", "Looks at the shared rate limits, each for all that waited."
        )
        self.limit_failures = self._counter(
            "signet_limit_failures_total", "Looks at the shared rate limits that had no answer."
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
        self.audit_gaps = self._counter(
            "signet_audit_gaps_total", "Attempts that the audit log counts but does not tell of."
        )
        self.audit_waiting = self._gauge(
            "signet_audit_waiting_entries", "Audit entries that wait to be appended."
        )
        self.payloads_erased = self._counter(
            "signet_payloads_erased_total", "Payloads erased, on request or by age.", "reason"
        )
        self.vex_units = self._counter("signet_vex_units_total", "Verified exchanges metered.")
        self._vex_units = self.counted(self.vex_units)
        self.requests = self._counter(
            "signet_http_requests_total", "HTTP answers, by route and status.", "route", "status"
        )
        self._in_flight = self._gauge("signet_http_requests_in_flight", "Requests in progress.")
        self.requests_in_flight = 0
        self.connections = self._gauge("signet_http_connections", "Open connections of callers.")
        self.connections_closed = self._counter(
            "signet_http_connections_closed_total",
            "Connections that a limit at the door closed, by reason.",
            "reason",
        )
        self.exchange_seconds = self._histogram(
            "signet_exchange_seconds", "Whole exchanges, from the body to the answer."
        )
        self.phase_seconds = self._histogram(
            "signet_exchange_phase_seconds", "The phases of exchanges, each by itself.", "phase"
        )
        self.seal_seconds = self._histogram(
            "signet_seal_seconds", "Building, hashing and signing one receipt."
        )
        self.whole = Tally(self.exchange_seconds)
        self.sealing = Tally(self.seal_seconds)
        self.limiting = Tally(self.limit_seconds)
        self.phases: Mapping[Phase, Tally] = {
            phase: Tally(self.phase_seconds.labels(phase)) for phase in get_args(Phase)
        }
        self.commit_seconds = self._histogram(
            "signet_commit_seconds", "Whole transactions that commit a batch of exchanges."
        )
        self.commit_exchanges = self._histogram(
            "signet_commit_batch_exchanges", "Exchanges committed together.", buckets=_BATCHES
        )
        self.commit_failures = self._counter(
            "signet_commit_failures_total",
            "Batches whose commit was not confirmed, by code.",
            "code",
        )
        self.commit_waiting = self._gauge(
            "signet_commit_waiting_exchanges", "Exchanges that wait for the next batch."
        )
        self.fallback_seconds = self._histogram(
            "signet_fallback_seconds", "Whole calls to the LLM, from the request to the answer."
        )
        self.fallback_answers = self._counter(
            "signet_fallback_answers_total",
            "What the LLM answered, by what became of it.",
            "result",
        )
        self.fallback_estimated = self._counter(
            "signet_fallback_estimated_total", "Calls whose tokens were estimated, not reported."
        )
        self.response_bytes = self._histogram(
            "signet_forward_response_bytes", "Answers of destinations.", buckets=_BYTES
        )
        self.loop_lag_seconds = self._histogram(
            "signet_event_loop_lag_seconds", "How much later than asked a timer came, ten a second."
        )
        self.worker_runs = self._counter(
            "signet_worker_runs_total", "Runs of background work, by result.", "worker", "result"
        )
        self.worker_succeeded = self._gauge(
            "signet_worker_success_timestamp_seconds",
            "When background work last ended without a failure.",
            "worker",
            among="livemostrecent",
        )
        self.keys_missing = self._gauge(
            "signet_signing_keys_missing",
            "Keys that sign now or soon and that a serving process does not have.",
            among="livemax",
        )
        self.processes = self._gauge("signet_processes", "Processes that serve.")
        self.resident_bytes = self._gauge(
            "signet_resident_memory_bytes", "Memory in use, of all processes that serve."
        )
        self.open_files = self._gauge(
            "signet_open_files", "Open files and sockets, of all processes that serve."
        )
        self.disk_free_bytes = self._gauge(
            "signet_disk_free_bytes",
            "What is left on the file system of SP_DATA_DIR, or of SP_DB_PATH where that is less.",
            among="livemostrecent",
        )
        self.scrape_failures = self._counter(
            "signet_vitals_failures_total", "Scrapes that the database did not answer in time."
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
        of_outcome = self._outcomes.get(outcome)
        if of_outcome is None:
            of_outcome = self._outcomes[outcome] = self.counted(self.exchanges.labels(outcome))
        of_outcome.add()
        if vex_units:
            self._vex_units.add(vex_units)
        if fu_tokens:
            self.fu_tokens.inc(fu_tokens)
        if outcome == "denied":
            self.denied.labels(reason).inc()
        elif outcome != "allowed":
            self.failures.labels(reason).inc()
        if reason == "semantic_violation":
            self.semantic_violations.inc()

    def tenant(self, tenant: str) -> str:
        """Return the label of `tenant`: itself for the first ones seen, then `_other` for all.

        A counter may add up under `_other`; of a gauge there it is the last one that was set.
        """
        if tenant not in self._tenants:
            if len(self._tenants) >= self._most_tenants:
                return _OTHER
            self._tenants.add(tenant)
        return tenant

    def counted(self, counter: Counter) -> Count:
        """Return the one place where the hot path notes what `counter` will be told."""
        return self._counted.setdefault(counter, Count(counter))

    def pour(self) -> None:
        """Tell the families what the hot path has only noted."""
        self._in_flight.set(self.requests_in_flight)
        for tally in (self.whole, self.sealing, self.limiting, *self.phases.values()):
            tally.pour()
        for count in tuple(self._counted.values()):
            count.pour()

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

    def _histogram(
        self, name: str, doc: str, *labels: str, buckets: Sequence[float] = _BUCKETS_S
    ) -> Histogram:
        return Histogram(name, doc, labels, registry=self.registry, buckets=buckets)

    def exposition(self, vitals: Vitals | None = None) -> bytes:
        """Return all families as text, summed over the processes that share them. One of which
        nothing has been counted is there too, without a value.

        Without `vitals` the families that only the database knows are absent, which an alert sees;
        `signet_database_up` says so in either case.
        """
        self.pour()
        counted = list(self.registry.collect())
        if self.shared_in is not None:
            shared = CollectorRegistry()
            multiprocess.MultiProcessCollector(shared, self.shared_in)
            counted = _each_declared(counted, shared.collect())
        together = CollectorRegistry()
        together.register(_Page([*_with_old_names(counted), *_told(vitals)]))
        return generate_latest(together)


class _Page(Collector):
    """Hands over what was collected already."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        yield from self._families


def _each_declared(declared: Iterable[Metric], found: Iterable[Metric]) -> list[Metric]:
    """Return what is in the files of all processes, which know nothing of a family without values.

    In the order of the declarations; what another version of this process has left there is last.
    """
    shared = {family.name: family for family in found}
    each = [shared.pop(one.name, Metric(one.name, one.documentation, one.type)) for one in declared]
    return [*each, *shared.values()]


def _with_old_names(families: Iterable[Metric]) -> Iterator[Metric]:
    old_of = {new: old for old, new in RENAMED.items()}
    for family in families:
        yield family
        if old := old_of.get(family.name):
            renamed = Metric(old, f"The same as {family.name}.", family.type)
            renamed.samples = [
                Sample(old + one.name.removeprefix(family.name), *one[1:]) for one in family.samples
            ]
            yield renamed


def _told(vitals: Vitals | None) -> Iterator[Metric]:
    up = "Whether the database answered this scrape."
    yield GaugeMetricFamily("signet_database_up", up, value=float(vitals is not None))
    if vitals is not None:
        for told in fields(vitals):
            name = f"signet_{told.name}"
            yield GaugeMetricFamily(name, told.metadata["doc"], value=getattr(vitals, told.name))
