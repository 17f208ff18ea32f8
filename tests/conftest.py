"""What every suite shares: asyncio as the only event loop, and nothing else."""

import pytest
from hypothesis import settings


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio; the product supports no other loop."""
    return "asyncio"


# A deadline asserts on wall-clock time, which a busy machine makes a lie of.
settings.register_profile("signet", deadline=None)
settings.load_profile("signet")
