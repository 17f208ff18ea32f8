"""HTTP to the operator's own services (LLM, Stripe): one origin, taken from the settings.

Exactly that scheme, host and port; no redirects, no environment proxies, no netrc; bounded in size
and time. Any address is allowed, because the operator named it.
"""

from __future__ import annotations

from dataclasses import dataclass

import httpx


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorLimits:
    """Bounds of one request, from its first byte to the last byte of its answer."""

    deadline_s: float = 30.0
    connect_s: float = 5.0
    max_request_bytes: int = 8 * 1024 * 1024
    max_response_bytes: int = 8 * 1024 * 1024
    max_connections: int = 32


def operator_client(base_url: str, limits: OperatorLimits | None = None) -> httpx.AsyncClient:
    """An httpx client that can reach `base_url`'s origin and nothing else."""
    raise NotImplementedError
