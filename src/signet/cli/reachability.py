"""What `signet doctor` asks of the outside: names, destinations, Stripe, the model, the collector.

Every question has a deadline and all are asked at once. Nothing is changed anywhere: destinations
are looked up and judged, services are asked something that only reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final
from urllib.parse import urlsplit

from signet.app import egress_client, egress_policies
from signet.core.tenant import Tenant
from signet.egress import EgressClient, LookupFailed, TargetInvalid, Verdict, parse_target
from signet.receipts.canonical import Json
from signet.settings import Settings

DEADLINE_S: Final = 5.0
_MOST_HOSTS: Final = 16
_OK: Final = frozenset({200, 204})
_REFUSED: Final = frozenset({401, 403})


@dataclass(frozen=True, slots=True)
class Reached:
    """What came of one question; `mend` is empty where it is in order.

    What is not `grave` is a customer's matter: their destination, and no fault of the installation.
    """

    name: str
    said: str
    mend: str = ""
    grave: bool = True


async def reached(settings: Settings, tenants: Iterable[Tenant] = ()) -> list[Reached]:
    """Ask everything that the settings and the lists of `tenants` name, in bounded time."""
    questions: list[Awaitable[list[Reached]]] = [_names(settings, tenants)]
    key = settings.billing.stripe_api_key
    if key is not None:
        url = settings.billing.stripe_base_url.rstrip("/")
        asked = f"{url}/v1/billing/meters?limit=1"
        bearer = {"authorization": f"Bearer {key}"}
        mend = "set SP_STRIPE_API_KEY to a key that may read meters"
        questions.append(_service("stripe", "SP_STRIPE_BASE_URL", asked, bearer, mend))
    fallback = settings.fallback
    if fallback.api_key is not None or fallback.base_url is not None:
        url = (fallback.base_url or "https://api.openai.com/v1").rstrip("/")
        bearer = {"authorization": f"Bearer {fallback.api_key or 'none'}"}
        mend = "set SP_OPENAI_API_KEY to a key of that service"
        questions.append(_service("llm", "SP_OPENAI_BASE_URL", f"{url}/models", bearer, mend))
    telemetry = settings.telemetry
    if telemetry.otlp_endpoint is not None:
        url = telemetry.otlp_endpoint.rstrip("/") + "/v1/traces"
        headers = {**dict(telemetry.otlp_headers), "content-type": "application/x-protobuf"}
        mend = "set SP_OTLP_HEADERS to what the collector wants"
        # No bytes are a request without spans (opentelemetry-proto, trace_service.proto).
        questions.append(_service("traces", "SP_OTLP_ENDPOINT", url, headers, mend, method="POST"))
    return [found for answers in await asyncio.gather(*questions) for found in answers]


async def _service(
    name: str,
    variable: str,
    url: str,
    headers: Mapping[str, str],
    mend: str,
    *,
    method: str = "GET",
) -> list[Reached]:
    """Ask one of the operator's services a question that changes nothing."""
    try:
        import httpx

        from signet.providers.operator_http import OperatorLimits, operator_client
    except ModuleNotFoundError:
        extra = "pip install 'signet-protocol[production]'"
        return [Reached(name, "cannot be asked without the package httpx", extra)]
    limits = OperatorLimits(deadline_s=DEADLINE_S, connect_s=DEADLINE_S, max_response_bytes=1 << 20)
    away = f"see that {variable} is right and that this machine may connect there"
    try:
        async with asyncio.timeout(2 * DEADLINE_S), operator_client(url, limits) as client:
            content = b"" if method == "POST" else None
            answer = await client.request(method, url, headers=headers, content=content)
    except ValueError as error:
        return [Reached(name, f"{variable}: {error}", f"set {variable} anew")]
    except (httpx.HTTPError, TimeoutError, OSError) as error:
        return [
            Reached(
                name, f"no answer from {_origin(url)}: {str(error) or type(error).__name__}", away
            )
        ]
    if answer.status_code in _OK:
        return [Reached(name, "answers, and takes our key")]
    if answer.status_code in _REFUSED:
        return [Reached(name, f"answers {answer.status_code}: it does not take our key", mend)]
    return [Reached(name, f"answers {answer.status_code}, which it should not", away)]


def _origin(url: str) -> str:
    """The part of a URL that says where, without a user and its password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


async def _names(settings: Settings, tenants: Iterable[Tenant]) -> list[Reached]:
    """Look up the hosts that may be forwarded to, as a forward would, and judge what is said.

    Entries with a wildcard name no host, and so nothing of them can be asked.
    """
    egress_policies(settings)  # a list that cannot be used is told by another check
    everybody = _hosts((settings.egress.allowlist, settings.egress.destinations))
    named = list(dict.fromkeys([*everybody, *_hosts(tenant.allowlist for tenant in tenants)]))
    hosts = named[:_MOST_HOSTS]
    if not hosts:
        return []
    async with egress_client(settings) as client:
        answers = await asyncio.gather(*(_looked_up(client, host) for host in hosts))
    wrong = [
        replace(answer, grave=host in everybody)
        for host, answer in zip(hosts, answers, strict=True)
        if answer is not None
    ]
    more = f"; {len(named) - len(hosts)} more were not asked" if len(named) > len(hosts) else ""
    said = f"{len(hosts)} destinations have addresses that may be called{more}"
    return wrong or [Reached("dns", said)]


def _hosts(lists: Iterable[Iterable[Json]]) -> list[str]:
    """Every host that the lists name."""
    named = [
        entry.get("host") if isinstance(entry, dict) else entry
        for entry in chain.from_iterable(lists)
    ]
    return [host for host in named if isinstance(host, str) and "*" not in host]


async def _looked_up(client: EgressClient, host: str) -> Reached | None:
    shown = f"destination {host}"
    try:
        target = parse_target(host if "://" in host else f"https://{host}")
        async with asyncio.timeout(DEADLINE_S):
            addresses = await client.look_up(target)
    except TargetInvalid as error:
        return Reached("dns", f"{shown}: {error}", "mend the entry")
    except (LookupFailed, TimeoutError) as error:
        said = error.code.value if isinstance(error, LookupFailed) else "no answer in time"
        mend = "see that the name exists, and that the name servers of this machine answer"
        return Reached("dns", f"{shown}: {said}", mend)
    verdicts = {client.judge(address) for address in addresses} - {Verdict.OK}
    if verdicts:
        codes = ", ".join(sorted(verdict.value for verdict in verdicts))
        mend = (
            "`signet egress check` explains; SP_EGRESS_PRIVATE_NETWORKS lets private ones through"
        )
        return Reached("dns", f"{shown} leads where nothing may be sent: {codes}", mend)
    return None
