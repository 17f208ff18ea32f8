"""The slow check behind the traffic: the whole database again and again, a few receipts a second.

Each process makes its own rounds, so that a flaw is seen even while other processes are stuck.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from structlog.typing import FilteringBoundLogger

from signet.gateway.chains import Audit
from signet.storage.database import Database
from signet.telemetry.metrics import Metrics

# Checking one receipt takes the event loop about a tenth of a millisecond.
_PAGE: Final = 24
_REST_S: Final = 600.0
_FIRST_REST_S: Final = 60.0


class ChainCheck:
    """The use case that a worker calls every second; what it finds is logged and counted."""

    def __init__(
        self,
        *,
        database: Database,
        metrics: Metrics,
        log: FilteringBoundLogger,
        monotonic: Callable[[], float],
        first_rest_s: float = _FIRST_REST_S,
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._log = log
        self._monotonic = monotonic
        self._audit = Audit(database, page=_PAGE)
        self._rests_until = monotonic() + first_rest_s

    async def run_once(self) -> int:
        """Look at one page, unless a rest is due between two passes; always 0: never hurry."""
        if self._monotonic() < self._rests_until:
            return 0
        seen = self._audit.progress.receipts
        flaws = await self._audit.step()
        if flaws is None:
            self._metrics.chain_passes.inc()
            self._audit = Audit(self._database, page=_PAGE)
            self._rests_until = self._monotonic() + _REST_S
            return 0
        self._metrics.chain_receipts.inc(self._audit.progress.receipts - seen)
        for flaw in flaws:
            self._metrics.chain_flaws.labels(flaw.kind).inc()
            self._log.error(
                "chain_flaw",
                kind=flaw.kind,
                tenant=flaw.tenant,
                subject=flaw.subject,
                detail=flaw.detail,
            )
        return 0
