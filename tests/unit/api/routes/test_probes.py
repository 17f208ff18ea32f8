"""The declarations of the probes; tests/api holds their answers."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from signet.api.routes.probes import _may_read_metrics


def _request(client: tuple[str, int] | None, authorization: bytes | None = None) -> Request:
    headers = [] if authorization is None else [(b"authorization", authorization)]
    return Request({"type": "http", "client": client, "headers": headers})


@pytest.mark.parametrize(
    ("host", "may"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", False),
        ("10.0.0.1", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_without_a_token_only_loopback_reads(host: str, may: bool) -> None:
    """The peer's address decides, and one that is none does not pass."""
    assert _may_read_metrics(_request((host, 1)), None) is may


def test_with_a_token_nothing_else_counts() -> None:
    """Loopback needs the token too, compared in constant time."""
    assert not _may_read_metrics(_request(("127.0.0.1", 1)), "t")
    assert not _may_read_metrics(_request(None, b"Bearer tt"), "t")
    assert not _may_read_metrics(_request(None, "Bearer é".encode()), "t")
    assert _may_read_metrics(_request(None, b"bearer t"), "t")
