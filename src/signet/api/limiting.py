"""The limits of a caller, around an endpoint: in, counted, and told how much is left.

`RateLimit` and `RateLimit-Policy` are the structured fields of the IETF's
draft-ietf-httpapi-ratelimit-headers-11. A rate is told as what it admits at once, and in how many
seconds that much comes back: 600 a minute with a burst of 100 are `"tenant";q=100;w=10`.
"""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import lru_cache
from typing import assert_never

from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from signet.api.operations import problem_response
from signet.core.ids import TenantId
from signet.core.tenant import Principal
from signet.gateway.limits import Admitted, Bounds, Gauge, Limited, Limits, Share, Unchecked

_WHOSE = {"tenant": "the tenant's", "key": "the key's"}


async def within_limits(
    limits: Limits, principal: Principal, call: Callable[[], Awaitable[Response]]
) -> Response:
    """Answer by `call` if the caller's limits let it, else refuse before anything was looked at."""
    bounds = limits.of(principal)
    if bounds is None:
        return await call()
    tenant = principal.tenant.id
    if not limits.enter(tenant, bounds):
        detail = f"{bounds.concurrency} requests of this tenant are in progress already"
        return problem_response("concurrency_limited", detail, retry_after_s=1)
    response = None
    try:
        response = await _counted(limits, bounds, call)
        return response
    finally:
        if isinstance(response, StreamingResponse):
            _leave_after(response, limits, tenant)
        else:
            limits.leave(tenant)


async def _counted(
    limits: Limits, bounds: Bounds, call: Callable[[], Awaitable[Response]]
) -> Response:
    passage = await limits.admit(bounds)
    match passage:
        case Admitted(gauges):
            response = await call()
            if gauges:
                response.raw_headers += (
                    (b"ratelimit-policy", _policies_of(bounds)),
                    (b"ratelimit", _standing(gauges)),
                )
            return response
        case Limited(gauges):
            spent = gauges[-1]
            wait_s = spent.standing.next_us / 1_000_000
            rate = (
                f"{spent.rate.burst} at once, one more every {_seconds(spent.rate.interval_us)} s"
            )
            detail = f"{_WHOSE[spent.policy]} rate is used up: {rate}"
            response = problem_response("rate_limited", detail, retry_after_s=wait_s)
            response.raw_headers += (
                (b"ratelimit-policy", _policies(gauges)),
                (b"ratelimit", _standing(gauges)),
            )
            return response
        case Unchecked():
            detail = "the shared rate limits do not answer; nothing was done"
            return problem_response("limits_unavailable", detail, retry_after_s=1)
        case _:
            assert_never(passage)


@lru_cache(maxsize=1024)
def _policies_of(bounds: Bounds) -> bytes:
    return _policies(bounds.shares)


def _policies(rates: Iterable[Share | Gauge]) -> bytes:
    items = [f'"{each.policy}";q={each.rate.burst};w={each.rate.refill_s}' for each in rates]
    return ", ".join(items).encode()


def _standing(gauges: Sequence[Gauge]) -> bytes:
    """What is left of each rate, and in how many seconds there is one more."""
    items = [f'"{policy}";r={left};t={-(-us // 1_000_000)}' for policy, _, (left, us) in gauges]
    return ", ".join(items).encode()


def _seconds(interval_us: int) -> str:
    return f"{interval_us / 1_000_000:.6f}".rstrip("0").rstrip(".")


def _leave_after(response: StreamingResponse, limits: Limits, tenant: TenantId) -> None:
    """Keep a place until the last byte is sent, or nobody holds the answer any more."""
    leave = weakref.finalize(response, limits.leave, tenant)
    stream = response.stream_response

    async def held(send: Send) -> None:
        try:
            await stream(send)
        finally:
            leave()

    response.stream_response = held
