"""Token usage in every dialect, and what is not believed."""

from __future__ import annotations

import pytest

from signet.core.llm_usage import TokenUsage, reported_usage
from signet.receipts.canonical import Json


@pytest.mark.parametrize(
    ("answer", "usage"),
    [
        (
            {
                "usage": {
                    "prompt_tokens": 10,
                    "completion_tokens": 5,
                    "total_tokens": 15,
                    "prompt_tokens_details": {"cached_tokens": 8},
                    "completion_tokens_details": {"reasoning_tokens": 4},
                }
            },
            (10, 5, 15),
        ),
        ({"usage": {"prompt_tokens": 10, "completion_tokens": 5}}, (10, 5, 15)),
        (
            {
                "usage": {
                    "input_tokens": 10,
                    "output_tokens": 5,
                    "total_tokens": 15,
                    "input_tokens_details": {"cached_tokens": 3},
                }
            },
            (10, 5, 15),
        ),
        (
            {
                "usage": {
                    "input_tokens": 10,
                    "output_tokens": 5,
                    "cache_creation_input_tokens": 3,
                    "cache_read_input_tokens": 2,
                }
            },
            (15, 5, 20),
        ),
        ({"prompt_eval_count": 7, "eval_count": 4}, (7, 4, 11)),
        ({"usage": {"total_tokens": 9}}, (0, 0, 9)),
        ({"usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 3}}, (10, 5, 15)),
    ],
)
def test_each_dialect_is_summed_by_its_own_rule(
    answer: dict[str, Json], usage: tuple[int, int, int]
) -> None:
    """Cached and reasoning tokens are parts for OpenAI, cache fields are extra for Anthropic."""
    prompt, completion, total = usage
    expected = TokenUsage(prompt=prompt, completion=completion, total=total)
    assert reported_usage(answer) == expected


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        [],
        "15",
        {"total_tokens": 0},
        {"total_tokens": -5},
        {"total_tokens": True},
        {"total_tokens": "15"},
        {"total_tokens": 1.5},
        {"total_tokens": 10**30},
    ],
)
def test_an_unbelievable_usage_is_none(usage: Json) -> None:
    """Zero, negative, absurd or misspelled counts are not taken for the truth."""
    assert reported_usage({"usage": usage}) is None
