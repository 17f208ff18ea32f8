"""The client: policy, addresses, one pinned connection, one deadline, one outcome."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

from signet.egress.address import NO_EXCEPTIONS, AddressRules, classify
from signet.egress.errors import RequestInvalid, SyncInLoop, TargetInvalid
from signet.egress.http1 import ResponseReader, request_bytes
from signet.egress.limits import Limits
from signet.egress.outcome import (
    Forwarded,
    Indeterminate,
    IndeterminateCode,
    NotSent,
    NotSentCode,
    Outcome,
    Refused,
    Responded,
    Timing,
    as_forwarded,
)
from signet.egress.policy import Policy, Request
from signet.egress.resolve import DNSResolver, LookupFailed, Names, Resolver
from signet.egress.target import IPAddress, Target, parse_target
from signet.egress.transport import (
    Connection,
    ConnectionFailed,
    Dialler,
    Pool,
    Slots,
    connect,
    dial,
    leads_home,
    tls_context,
)
from signet.egress.verdict import Verdict

# A name may have hundreds of addresses; failing over across a few is availability, across all of
# them a scan.
_MAX_ADDRESSES_TRIED = 4


class EgressClient:
    """Sends requests that cannot be led inside. Built once, used by many tasks of one loop.

    `resolver`, `dialler` and `trust` (PEM text of certificate authorities; None means the
    system's) are the seam for tests: they lie below the validation, so that no stand-in can skip
    it. `rules` is what the operator said about the network at start. Close it with `aclose` or
    use it as an async context manager.
    """

    def __init__(
        self,
        *,
        resolver: Resolver | None = None,
        dialler: Dialler = dial,
        trust: str | None = None,
        limits: Limits | None = None,
        rules: AddressRules = NO_EXCEPTIONS,
    ) -> None:
        self._limits = limits or Limits()
        self._rules = rules
        self._dialler = dialler
        self._tls = tls_context(trust)
        self._names = Names(resolver or DNSResolver(), _now)
        self._pool = Pool(self._limits)
        self._slots = Slots(self._limits)

    async def send(
        self,
        target: Target,
        body: bytes,
        headers: Mapping[str, str],
        policy: Policy | None,
        *,
        deadline_s: float | None = None,
        before_first_byte: Callable[[], bool] | None = None,
        method: str = "POST",
        keep_body: bool = False,
    ) -> Outcome:
        """Send one request at most once and say how it ended. Raises `RequestInvalid`.

        Without a policy only the rules about URLs and addresses hold. `deadline_s` bounds
        everything from here on; it can shorten the client's own deadline, not lengthen it.
        `before_first_byte` is asked when the connection stands and nothing is written yet; False
        makes the outcome `NotSent`. Nothing is ever sent twice: not after a broken kept
        connection, not after a failed address. A cancelled call that had begun to write has an
        unknown effect, like `Indeterminate`.
        """
        request = request_bytes(method, target, headers, body)
        verdict = self._judge(target, policy, headers, method, len(body))
        if verdict is not Verdict.OK:
            return Refused(code=verdict, host=target.host)
        bound_s = self._limits.deadline_s
        if deadline_s is not None:
            bound_s = min(bound_s, deadline_s)
        attempt = _Attempt(target=target, started_at=_now(), deadline_at=_now() + bound_s)
        response = ResponseReader(self._limits, keep_body=keep_body)
        try:
            async with (
                asyncio.timeout_at(attempt.deadline_at),
                self._slots.of(target),
            ):
                attempt.connection = await self._connection(attempt)
                if before_first_byte is not None and not before_first_byte():
                    return attempt.not_sent(NotSentCode.VETOED)
                if not attempt.connection.reusable:
                    return attempt.not_sent(NotSentCode.CONNECT_FAILED)
                attempt.sending = True
                await attempt.connection.exchange(request, response)
        except TimeoutError:
            if not attempt.sending:
                return attempt.not_sent(NotSentCode.DEADLINE)
            response.fail(IndeterminateCode.DEADLINE)
        except ConnectionFailed as error:
            if isinstance(error.reason, Verdict):
                return attempt.refused(error.reason)
            return attempt.not_sent(error.reason)
        finally:
            self._put_back(attempt, response)
        return attempt.answered(response)

    async def aclose(self) -> None:
        """Close every idle connection and the resolver."""
        self._pool.close()
        await self._names.aclose()
        await asyncio.sleep(0)  # the loop closes aborted sockets on its next turn

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def _judge(
        self,
        target: Target,
        policy: Policy | None,
        headers: Mapping[str, str],
        method: str,
        body_size: int,
    ) -> Verdict:
        """Ask the rules that need no network; they are asked for every request anew."""
        if policy is None:
            return Verdict.OK if target.scheme == "https" else Verdict.SCHEME_NOT_HTTPS
        content_type = "application/json"
        for name, value in headers.items():
            if name.lower() == "content-type":
                content_type = value
        decision = policy.decide(
            target, Request(method=method, body_size=body_size, content_type=content_type)
        )
        return Verdict.OK if decision.allowed else decision.verdict

    async def _connection(self, attempt: _Attempt) -> Connection:
        # If a server has just closed a kept connection, the end is in the kernel already. The
        # loop asks the kernel in its next turn, before the second of these resumes; seeing the
        # end now spares a request whose fate nobody could tell.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        kept = self._pool.take(attempt.target)
        if kept is not None:
            return kept
        addresses = await self._addresses(attempt)
        failure = ConnectionFailed(NotSentCode.CONNECT_FAILED)
        for index, address in enumerate(addresses):
            left = len(addresses) - index
            share_s = (attempt.deadline_at - _now()) / left if left > 1 else None
            try:
                async with asyncio.timeout(share_s):
                    return await connect(
                        attempt.target, address, self._dialler, self._tls, self._limits
                    )
            except TimeoutError:
                failure = ConnectionFailed(NotSentCode.CONNECT_FAILED)
            except ConnectionFailed as error:
                if isinstance(error.reason, Verdict):
                    raise
                failure = error
        raise failure

    async def _addresses(self, attempt: _Attempt) -> tuple[IPAddress, ...]:
        """Return the addresses to try, all of them validated. Raises `ConnectionFailed`."""
        asked_at = _now()
        try:
            addresses = await self.look_up(attempt.target)
        except LookupFailed as error:
            raise ConnectionFailed(error.code) from error
        finally:
            if attempt.target.address is None:
                attempt.dns_s = _now() - asked_at
        for address in addresses:
            # Any bad address spoils the whole answer: a name that resolves to a public and an
            # inner address is no mistake to be mended by choosing; it is how rebinding looks.
            verdict = self.judge(address)
            if verdict is not Verdict.OK:
                raise ConnectionFailed(verdict)
        return addresses[:_MAX_ADDRESSES_TRIED]

    async def look_up(self, target: Target) -> tuple[IPAddress, ...]:
        """Return every address of a target, unjudged. Raises `LookupFailed`.

        For the client itself and for an operator's eyes; no tenant may see them.
        """
        if target.address is not None:
            return (target.address,)
        try:
            async with asyncio.timeout(self._limits.resolve_s):
                return await self._names.addresses(target.host)
        except TimeoutError as error:
            raise LookupFailed(NotSentCode.RESOLUTION_FAILED) from error

    def judge(self, address: IPAddress) -> Verdict:
        """Say whether a connection to `address` may be made."""
        verdict = classify(address, self._rules)
        if verdict is Verdict.OK and leads_home(address):
            return Verdict.RESOLVED_LOOPBACK
        return verdict

    def _put_back(self, attempt: _Attempt, response: ResponseReader) -> None:
        connection = attempt.connection
        if connection is None:
            return
        unused = not attempt.sending
        if connection.reusable and (unused or (response.finished and response.reusable)):
            self._pool.give(attempt.target, connection)
        else:
            connection.abort()


@dataclass(slots=True, kw_only=True)
class _Attempt:
    """How far one request has come."""

    target: Target
    started_at: float
    deadline_at: float
    dns_s: float | None = None
    connection: Connection | None = None
    sending: bool = False

    def refused(self, verdict: Verdict) -> Refused:
        return Refused(code=verdict, host=self.target.host, timing=self._timing())

    def not_sent(self, code: NotSentCode) -> NotSent:
        return NotSent(code=code, host=self.target.host, timing=self._timing())

    def answered(self, response: ResponseReader) -> Responded | Indeterminate:
        assert self.connection is not None
        if response.failure is not None or response.status is None:
            return Indeterminate(
                code=response.failure or IndeterminateCode.CONNECTION_LOST,
                host=self.target.host,
                pinned_ip=self.connection.pinned_ip,
                status=response.status,
                response_size=response.body_size,
                timing=self._timing(),
            )
        return Responded(
            status=response.status,
            host=self.target.host,
            pinned_ip=self.connection.pinned_ip,
            response_size=response.body_size,
            response_hash=response.body_hash,
            content_type=response.content_type,
            retry_after=response.retry_after,
            body=response.body,
            timing=self._timing(),
        )

    def _timing(self) -> Timing:
        return Timing(total_s=_now() - self.started_at, dns_s=self.dns_s)


def safe_forward(
    url: str,
    payload: object,
    *,
    headers: Mapping[str, str] | None = None,
    policy: Policy | None = None,
    limits: Limits | None = None,
    resolver: Resolver | None = None,
    dialler: Dialler = dial,
    trust: str | None = None,
    rules: AddressRules = NO_EXCEPTIONS,
) -> Forwarded:
    """POST `payload` to `url` and return how it ended, as a dictionary.

    `payload` is sent as it is if it is bytes, else as compact JSON. Nothing that the network or a
    rule does raises: refusals are `status_code` 403, a too large answer 413, every other failure
    599, and `outcome` says whether the request left. Without `policy` only the rules about URLs
    and addresses hold. Raises `SyncInLoop` inside a running event loop and `RequestInvalid` for
    headers or a payload that cannot be sent.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise SyncInLoop("safe_forward blocks; inside an event loop await asafe_forward")
    return asyncio.run(
        asafe_forward(
            url,
            payload,
            headers=headers,
            policy=policy,
            limits=limits,
            resolver=resolver,
            dialler=dialler,
            trust=trust,
            rules=rules,
        )
    )


async def asafe_forward(
    url: str,
    payload: object,
    *,
    headers: Mapping[str, str] | None = None,
    policy: Policy | None = None,
    limits: Limits | None = None,
    resolver: Resolver | None = None,
    dialler: Dialler = dial,
    trust: str | None = None,
    rules: AddressRules = NO_EXCEPTIONS,
) -> Forwarded:
    """Do what `safe_forward` does, inside a running loop. Many calls are better off sharing an
    `EgressClient`, which keeps connections."""
    body = _body(payload)
    try:
        target = parse_target(url)
    except TargetInvalid as error:
        return as_forwarded(Refused(code=error.verdict, host=None))
    async with EgressClient(
        resolver=resolver, dialler=dialler, trust=trust, limits=limits, rules=rules
    ) as client:
        return as_forwarded(await client.send(target, body, headers or {}, policy))


def _body(payload: object) -> bytes:
    if isinstance(payload, bytes):
        return payload
    try:
        text = json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestInvalid(f"the payload is not JSON: {error}") from error


def _now() -> float:
    return asyncio.get_running_loop().time()
