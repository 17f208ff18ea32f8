"""Reading every second which key signs, so that a switch is known long before it comes."""

from __future__ import annotations

from collections.abc import Sequence

from structlog.typing import FilteringBoundLogger

from signet.gateway.ports import Clock
from signet.gateway.signing import SigningKeys
from signet.telemetry.metrics import Metrics


class KeyWatch:
    """The use case that a worker calls; a key that this process lacks is told once."""

    def __init__(
        self, *, keys: SigningKeys, metrics: Metrics, log: FilteringBoundLogger, clock: Clock
    ) -> None:
        self._keys = keys
        self._metrics = metrics
        self._log = log
        self._clock = clock
        self._missing: Sequence[str] = ()

    async def run_once(self) -> int:
        """Read anew; always 0: never hurry."""
        await self._keys.refresh()
        missing = self._keys.missing(self._clock())
        self._metrics.keys_missing.set(len(missing))
        if missing != self._missing:
            self._missing = missing
            for kid in missing:
                self._log.error("signing_key_missing", kid=kid)
        return 0
