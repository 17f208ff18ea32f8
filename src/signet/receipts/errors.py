"""What goes wrong with receipts. One root, few leaves, every one with a stable code and a place."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from signet.receipts.report import AnyReport, Step

_MAX_POINTER = 1024  # a hostile member name may be a megabyte long; our answer to it may not


class ReceiptError(Exception):
    """The root of every error of this library.

    `code` is stable. `pointer` is a JSON Pointer (RFC 6901) into the document that was examined,
    "" where the whole of it is meant; it is cut at 1,024 characters.
    """

    def __init__(self, detail: str, *, code: str, pointer: str = "") -> None:
        super().__init__(f"{detail} (at {_cut(pointer)})" if pointer else detail)
        self.detail = detail
        self.code = code
        self.pointer = _cut(pointer)


class ParseError(ReceiptError):
    """The text is not I-JSON (RFC 7493), or not exactly representable.

    Codes: `invalid_json`, `invalid_utf8`, `duplicate_name`, `lone_surrogate`, `too_deep`,
    `integer_out_of_range`, `number_out_of_range`, `number_not_exact`.
    """


class CanonicalError(ReceiptError):
    """The value has no canonical form.

    Codes: `not_json`, `not_finite`, `lone_surrogate`, `too_deep`, `integer_out_of_range`,
    `number_not_exact`, `nfc_key_collision`, `too_many_combining_marks`.
    """


class KeyFormatError(ReceiptError):
    """A key, a JWK or a JWKS is not what it should be. Code: `key_format`."""


class SealError(ReceiptError):
    """What was asked to be signed is not a receipt or a bundle, so it was not signed.

    Codes: `member_missing`, `member_unknown`, `member_invalid`, `not_plain`, `bundle_invalid`,
    `snapshot_changed`.
    """


class VerificationError(ReceiptError):
    """The proof does not hold. `step` is the first that failed, `hop` and `member` say where."""

    def __init__(
        self,
        detail: str,
        *,
        step: Step,
        code: str,
        hop: int | None = None,
        member: str | None = None,
    ) -> None:
        super().__init__(detail, code=code, pointer="")
        self.step = step
        self.hop = hop
        self.member = member


class LevelNotReached(VerificationError):
    """Nothing is wrong, but less is proven than was asked. `report` says what is."""

    def __init__(self, detail: str, *, step: Step, report: AnyReport) -> None:
        super().__init__(detail, step=step, code="level_not_reached")
        self.report = report


def _cut(pointer: str) -> str:
    return pointer if len(pointer) <= _MAX_POINTER else pointer[: _MAX_POINTER - 1] + "…"
