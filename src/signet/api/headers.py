"""The headers of a request, read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from starlette.types import Scope

RawHeaders = Sequence[tuple[bytes, bytes]]
"""Names in lower case and values, in the order in which they came."""

_PLACE: Final = "signet.headers"


def first_headers(scope: Scope) -> Mapping[bytes, bytes]:
    """Return each header's first value, by its name in lower case.

    One appended behind the real one, by whatever stands between, changes nothing.
    """
    headers: dict[bytes, bytes] | None = scope.get(_PLACE)
    if headers is None:
        headers = scope[_PLACE] = dict(reversed(scope["headers"]))
    return headers
