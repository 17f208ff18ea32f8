"""One certificate authority for the session; it signs nothing outside these tests."""

import pytest
from tests.egress.stage import Authority


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()
