"""What can be wrong with a call, said so that a person or a model can mend it.

Errors here know no HTTP; `api/problems.py` maps their codes to statuses (RFC 9457).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing wrong, at one place.

    `pointer` is a JSON Pointer (RFC 6901) into the document that was examined; "" is all of it.
    `code` is stable; `detail` is a sentence that may change. `expected` and `got` are short texts
    for the reader, never whole payloads.
    """

    pointer: str
    code: str
    detail: str
    expected: str | None = None
    got: str | None = None


class SignetError(Exception):
    """The root of every error that Signet raises on purpose. `code` is stable."""

    code = "signet_error"

    def __init__(self, detail: str, *, faults: tuple[Fault, ...] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.faults = faults
