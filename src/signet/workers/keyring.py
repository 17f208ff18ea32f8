"""Looking every second whether a tenant or a key has changed, in this process or another."""

from __future__ import annotations

from typing import Final

from structlog.typing import FilteringBoundLogger

from signet.gateway.keyring import LiveKeyring, Unusable

EVERY_S: Final = 1.0


class KeyringWatch:
    """The use case that a worker calls; what nobody can use is logged once."""

    def __init__(self, keyring: LiveKeyring, log: FilteringBoundLogger) -> None:
        self._keyring = keyring
        self._log = log
        self._told: frozenset[Unusable] = frozenset()

    async def run_once(self) -> int:
        """Read what has changed; always 0: the next look is as soon as it should be."""
        await self._keyring.refresh()
        unusable = frozenset(self._keyring.unusable)
        for one in sorted(unusable - self._told, key=lambda u: u.subject):
            self._log.warning("keyring_unusable", subject=one.subject, detail=one.detail)
        self._told = unusable
        return 0
