"""How many tokens an LLM service says a call took, whatever dialect it says that in."""

from __future__ import annotations

from dataclasses import dataclass

from signet.receipts.canonical import Json

_IMPLAUSIBLE = 2**40


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUsage:
    """Tokens of one call; `total` is what counts, the parts may be 0 where they are not told."""

    prompt: int
    completion: int
    total: int


def reported_usage(answer: dict[str, Json]) -> TokenUsage | None:
    """The usage in the body of an answer; None when it tells none that can be believed.

    - OpenAI chat: `total_tokens`; cached and reasoning tokens are parts of it, not extra.
    - OpenAI Responses: `input_tokens`, `output_tokens`, `total_tokens`.
    - Anthropic: no total; both cache fields come on top of `input_tokens`.
    - Ollama: `prompt_eval_count` and `eval_count` beside the answer.
    """
    usage = answer.get("usage")
    fields = usage if isinstance(usage, dict) else answer
    prompt = _first(fields, "prompt_tokens", "input_tokens", "prompt_eval_count")
    completion = _first(fields, "completion_tokens", "output_tokens", "eval_count")
    if "total_tokens" not in fields:
        prompt += _first(fields, "cache_creation_input_tokens")
        prompt += _first(fields, "cache_read_input_tokens")
    # A service that adds wrongly must not make a call cheaper than its own parts.
    total = max(_first(fields, "total_tokens"), prompt + completion)
    if total == 0:
        return None
    return TokenUsage(prompt=prompt, completion=completion, total=total)


def _first(fields: dict[str, Json], *names: str) -> int:
    for name in names:
        value = fields.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _IMPLAUSIBLE:
            return value
    return 0
