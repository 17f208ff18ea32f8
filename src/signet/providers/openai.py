"""The metered LLM fallback, through any service that speaks OpenAI's API."""

from __future__ import annotations

from dataclasses import dataclass

from signet.receipts.canonical import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackResult:
    """What one call gave and what it cost.

    `fu_tokens` is 0 only where no request left; `estimated` says that they were counted here
    because the service did not tell. `success` means an answer was read, not that it is right:
    the caller holds it against `signet.core.invariants`.
    """

    repaired_text: str | None
    fu_tokens: int
    success: bool
    error: str | None = None
    model: str | None = None
    estimated: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    sent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a call can cost at most: the hold is `total`."""

    prompt_tokens: int
    output_cap: int

    @property
    def total(self) -> int:
        return self.prompt_tokens + self.output_cap


class OpenAIFallback:
    """The port of the gateway's fallback stage."""

    def estimate_tokens(self, text: str) -> int:
        """Tokens of `text`, never fewer than the model counts."""
        raise NotImplementedError

    def estimate(self, broken_json: str, schema: Json | None = None) -> Estimate:
        """Prompt tokens and the output cap of the call that `arepair_with_tokens` would make."""
        raise NotImplementedError

    def repair_with_tokens(
        self, broken_json: str, schema: Json | None = None, *, output_cap: int | None = None
    ) -> FallbackResult:
        """The sync twin; raises `RuntimeError` inside a running event loop."""
        raise NotImplementedError

    async def arepair_with_tokens(
        self, broken_json: str, schema: Json | None = None, *, output_cap: int | None = None
    ) -> FallbackResult:
        """One call, one answer, no retry. Expected failures are values, not exceptions."""
        raise NotImplementedError
