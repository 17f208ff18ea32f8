"""What every suite shares: asyncio as the only event loop, and nothing else."""

import pytest
from hypothesis import HealthCheck, settings


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio; the product supports no other loop."""
    return "asyncio"


# A deadline and the check for slow strategies assert on wall-clock time, which a busy machine makes
# a lie of. The examples are the same in every run, so that a change is accepted or not for what it
# is; `--hypothesis-profile=search` looks at new ones.
settings.register_profile(
    "signet",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("search", settings.get_profile("signet"), derandomize=False)
settings.load_profile("signet")
