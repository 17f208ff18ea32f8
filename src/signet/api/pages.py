"""Lists that are longer than one answer: `?limit=&after=`, and `next` while there is more."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from starlette.requests import Request

from signet.api.auth import Refused
from signet.api.operations import Parameter

MOST: Final = 200
_USUAL: Final = 100
_LIMIT: Final = re.compile(r"[0-9]{1,4}")
_AFTER: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


def limit_parameter(most: int) -> Parameter:
    """Return the parameter that `limit_of` reads."""
    return Parameter(
        name="limit",
        place="query",
        doc=f"How many at most; {_USUAL} when absent.",
        schema={"type": "integer", "minimum": 1, "maximum": most},
    )


PARAMETERS: Final = (
    limit_parameter(MOST),
    Parameter(
        name="after",
        place="query",
        doc="The `next` of the page before.",
        schema={"type": "string", "pattern": f"^{_AFTER.pattern}$"},
    ),
)


def limit_of(request: Request, most: int) -> int | Refused:
    """Return how many are wanted, which is never more than `most`."""
    limit = request.query_params.get("limit", str(_USUAL))
    if not _LIMIT.fullmatch(limit) or not 1 <= int(limit) <= most:
        return Refused("parameter_invalid", f"limit is a whole number from 1 to {most}")
    return int(limit)


def page_of(request: Request) -> tuple[int, str] | Refused:
    """Return how many are wanted and behind which id; "" is from the beginning."""
    limit = limit_of(request, MOST)
    after = request.query_params.get("after")
    if isinstance(limit, Refused):
        return limit
    if after is not None and not _AFTER.fullmatch(after):
        return Refused("parameter_invalid", "after is the `next` of the page before")
    return limit, after or ""


def next_of(ids: Sequence[str], limit: int) -> str | None:
    """Return what the next page comes after; None where this one was not full."""
    return ids[-1] if len(ids) == limit else None
