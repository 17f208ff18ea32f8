"""The story of one exchange, from an accepted call to a decision that can be sealed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Final, TypeVar

from signet.core.exchange import Call, Decision, Outcome, Refusal
from signet.gateway import stages
from signet.gateway.fallback import Fallback, unread
from signet.gateway.forwarding import Forwarder
from signet.gateway.policies import Policies
from signet.gateway.ports import MappingRunner
from signet.gateway.registry import Registries
from signet.gateway.stages import Sheet
from signet.storage.exchanges import ChainMoved, Known
from signet.telemetry.metrics import Metrics, Phase
from signet.telemetry.traces import stage_ended

T = TypeVar("T")

LARGE_BODY_BYTES: Final = 64 << 10
"""From here on the pure stages run in a thread: at 1 MB they would hold the loop for 34 ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """The stages with what they need, in order."""

    registries: Registries
    mapping_runner: MappingRunner
    policies: Policies
    fallback: Fallback
    forwarder: Forwarder
    metrics: Metrics
    max_depth: int

    async def run(self, call: Call) -> Decision | Known | ChainMoved:
        """Take `call` through all stages; the first that refuses ends it.

        Returns what is known of the key instead, where claiming it found it taken.
        """
        sheet = Sheet(call=call, registry=await self.registries.of(call.subject.tenant))
        ending = (
            await self._pure(self._understand, sheet, "understand")
            or (await self._timed("fallback", self.fallback.mend(sheet)) if sheet.broken else None)
            or await self._timed("map", self._map(sheet))
            or await self._pure(self._conclude, sheet, "decide")
            or await self._forward(sheet)
        )
        if ending is None or isinstance(ending, Refusal):
            return _decision(sheet, ending)
        return ending

    async def rehearse(self, sheet: Sheet) -> Refusal | None:
        """Take a call through the stages that ask nobody, act on nothing and write nothing."""
        return (
            await self._pure(self._understand, sheet)
            or (unread(sheet.broken) if sheet.broken else None)
            or await self._map(sheet)
            or await self._pure(self._conclude, sheet)
        )

    async def _timed(self, phase: Phase, stage: Awaitable[T]) -> T:
        started = perf_counter()
        ending = await stage
        self._ended(phase, started)
        return ending

    def _ended(self, phase: Phase, started: float) -> None:
        ended = perf_counter()
        self.metrics.phases[phase].observe(ended - started)
        stage_ended(phase, started, ended)

    async def _map(self, sheet: Sheet) -> Refusal | None:
        return await self._pure(stages.check_arguments, sheet) or await stages.map_payload(
            sheet, self.mapping_runner
        )

    async def _forward(self, sheet: Sheet) -> Refusal | Known | ChainMoved | None:
        if sheet.call.envelope.forward_url is None:
            return None
        policy = self.policies.of(sheet.call.principal)
        return await self._timed("forward", self.forwarder.forward(sheet, policy))

    def _understand(self, sheet: Sheet) -> Refusal | None:
        return (
            stages.sanitise(sheet)
            or stages.find_route(sheet)
            or stages.check_input(sheet)
            or stages.read_arguments(sheet, self.max_depth)
        )

    def _conclude(self, sheet: Sheet) -> Refusal | None:
        return (
            stages.settle(sheet)
            or stages.check_output(sheet)
            or stages.decide(sheet, self.policies.of(sheet.call.principal))
        )

    async def _pure(
        self, steps: Callable[[Sheet], Refusal | None], sheet: Sheet, phase: Phase | None = None
    ) -> Refusal | None:
        started = perf_counter()
        if sheet.call.body_bytes < LARGE_BODY_BYTES:
            ending = steps(sheet)
        else:
            ending = await asyncio.to_thread(steps, sheet)
        if phase is not None:
            self._ended(phase, started)
        return ending


def _decision(sheet: Sheet, refusal: Refusal | None) -> Decision:
    """Close the sheet: whatever it holds now is what the receipt says."""
    if sheet.policy is not None:
        sheet.members["policy"] = sheet.policy.document()
    return Decision(
        outcome=Outcome.ALLOWED if refusal is None else refusal.outcome,
        refusal=refusal,
        normalized=sheet.normalized,
        policy=sheet.policy,
        members=sheet.members,
        fu_tokens=sheet.fu_tokens,
        forwarded=sheet.forwarded,
        fence=sheet.fence,
        deprecated=sheet.deprecated,
    )
