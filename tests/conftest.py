"""What every suite shares: asyncio as the only event loop, and nothing else."""

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio; the product supports no other loop."""
    return "asyncio"
