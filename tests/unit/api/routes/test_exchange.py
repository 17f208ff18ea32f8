"""The declaration of `POST /v1/exchange`; tests/api holds its answers."""

from __future__ import annotations

from typing import cast

from signet.api.operations import Secured
from signet.api.problems import PROBLEMS
from signet.api.routes.exchange import operations
from signet.core.tenant import Scope
from signet.gateway.exchange import Exchanges
from signet.telemetry.metrics import Metrics


def test_it_is_declared_whole() -> None:
    """One secured operation whose every problem has a row in the table."""
    (operation,) = operations(cast(Exchanges, None), Metrics(), 1024, draining=lambda: False)
    assert isinstance(operation, Secured)
    assert operation.scope is Scope.EXCHANGE
    assert set(operation.problems) <= PROBLEMS.keys()
    assert len(set(operation.problems)) == len(operation.problems)
    assert operation.body is not None
