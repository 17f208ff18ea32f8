"""What the metered LLM fallback promises to cost, and what it gave."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackResult:
    """What one call gave and what it cost.

    `fu_tokens` is 0 only where no tokens can have been spent. `success` means that the answer is
    strict JSON, not that it is right. `error` is a stable code. `estimated`: the service did not
    tell, so the tokens were counted here. `sent`: bytes of the request may have left.
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
        """Prompt and capped output together."""
        return self.prompt_tokens + self.output_cap
