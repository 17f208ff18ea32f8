"""The fallback against `@copilotkit/aimock`, whose usage is scripted: what it says is what counts.

Install it with `npm ci --prefix tests/repair/node`. Without Node or the module these tests skip,
except in CI, where both must be there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from signet.core.invariants import violations
from signet.providers.openai import Api, OpenAIConfig, OpenAIFallback

_HERE = Path(__file__).parent / "node"
_IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")
_BROKEN = "{'id': 'INV-1', note: 'x', amount: 99.90, }}}"


@pytest.fixture(scope="module")
def node() -> str:
    """The Node interpreter, if it and the module are here; in CI they must be."""
    found = shutil.which("node")
    if found is None or not (_HERE / "node_modules" / "@copilotkit").is_dir():
        message = "needs Node and `npm ci --prefix tests/repair/node`"
        if _IN_CI:
            pytest.fail(message)
        pytest.skip(message)
    return found


@contextmanager
def scripted(node: str, content: str, usage: dict[str, int]) -> Iterator[str]:
    """The base URL of a service that answers everything with `content` and `usage`."""
    script = json.dumps({"content": content, "usage": usage})
    with subprocess.Popen(
        [node, str(_HERE / "service.mjs"), script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield process.stdout.readline().strip() + "/v1"
        finally:
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_scripted_usage_is_counted_to_the_token(node: str, api: Api) -> None:
    """The hold is settled with exactly what the service says, in both interfaces."""
    usage = {
        "prompt_tokens": 1201,
        "completion_tokens": 77,
        "total_tokens": 1278,
        "input_tokens": 1201,
        "output_tokens": 77,
    }
    with scripted(node, '{"a": 1}', usage) as url:
        provider = OpenAIFallback(OpenAIConfig(api_key="k", model="gpt-4o", base_url=url, api=api))
        result = provider.repair_with_tokens("{'a': 1")
    assert result.success
    assert (result.prompt_tokens, result.completion_tokens, result.fu_tokens) == (1201, 77, 1278)
    assert not result.estimated


@pytest.mark.parametrize(
    ("answer", "faithful"),
    [
        ('{"id": "INV-1", "note": "x", "amount": 99.90}', True),
        ('{"amount": 99.90, "id": "INV-1", "note": "x"}', True),
        ('{"id": "INV-1", "note": "x", "amount": 99.9}', False),
        ('{"id": "INV-1", "note": "x", "amount": 990}', False),
        ('{"id": "INV-1", "note": "x"}', False),
    ],
)
def test_a_models_answer_is_paid_for_and_held_against_the_text(
    node: str, answer: str, faithful: bool
) -> None:
    """An unfaithful answer costs its tokens and is found out."""
    usage = {"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70}
    with scripted(node, answer, usage) as url:
        provider = OpenAIFallback(OpenAIConfig(api_key="k", model="gpt-4o", base_url=url))
        result = provider.repair_with_tokens(_BROKEN)
    assert result.fu_tokens == 70
    assert result.repaired_text is not None
    assert (violations(_BROKEN, result.repaired_text) == ()) is faithful
