"""The shapes that the fallback promises."""

from __future__ import annotations

from signet.core.fallback import Estimate, FallbackResult
from signet.providers import FallbackResult as Exported


def test_the_published_shape_is_kept() -> None:
    """`FallbackResult(repaired_text, fu_tokens, success, error)`, importable from providers."""
    result = FallbackResult(repaired_text=None, fu_tokens=3, success=False, error="timed_out")
    assert (result.fu_tokens, result.success, result.estimated) == (3, False, False)
    assert Exported is FallbackResult


def test_a_hold_covers_prompt_and_capped_output() -> None:
    """What is held is what can be spent."""
    assert Estimate(prompt_tokens=100, output_cap=20).total == 120
