"""`signet audit verify`: check an export of the audit log, without any network.

Exit codes: 0 the asked level is reached, 1 INVALID, 2 valid but below the asked level, 64 usage
(a file that cannot be read, a key set that is none).
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from signet.receipts.audit import AuditInvalid, AuditReport, verify_csv, verify_jsonl
from signet.receipts.canonical import parse
from signet.receipts.errors import ReceiptError, VerificationError
from signet.receipts.keys import KeySet
from signet.receipts.report import Level

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

REACHED, INVALID, BELOW, USAGE = 0, 1, 2, 64
_MAX_LINE_BYTES = 2 << 20


def verify_file(
    file: str,
    *,
    manifest: str | None,
    jwks: str | None,
    trust: Sequence[str],
    signed: bool,
    as_json: bool,
) -> int:
    """Verify, print the report, return the exit code; `signed` asks for more than INTEGRITY."""
    try:
        keys = None if jwks is None else KeySet.from_jwks(parse(_read(jwks)))
    except (OSError, ReceiptError) as error:
        return _unusable(error)
    try:
        if file.endswith(".csv") or manifest is not None:
            beside = _read(manifest or f"{file}.manifest.json")
            report = verify_csv(_lines(file), beside, trust=trust, jwks=keys)
        else:
            report = verify_jsonl(_lines(file), trust=trust, jwks=keys)
    except OSError as error:
        return _unusable(error)
    except (AuditInvalid, VerificationError) as error:
        _print_invalid(error, as_json)
        return INVALID
    below = signed and report.level < Level.SIGNED
    _print_report(report, as_json, below)
    return BELOW if below else REACHED


def _read(file: str) -> bytes:
    with open(file, "rb") as opened:  # pathlib would load urllib, and nothing here may
        return opened.read()


def _lines(file: str) -> Iterator[bytes]:
    """The lines of a file; of one that is too long only a beginning, which is refused."""
    if file == "-":
        yield from iter(lambda: sys.stdin.buffer.readline(_MAX_LINE_BYTES), b"")
        return
    with open(file, "rb") as opened:
        yield from iter(lambda: opened.readline(_MAX_LINE_BYTES), b"")


def _unusable(error: OSError | ReceiptError) -> int:
    if isinstance(error, OSError):
        said = f"{error.filename}: {error.strerror}"
    else:
        said = f"--jwks is not a key set: {error}"
    print(f"signet audit verify: {said}", file=sys.stderr)
    return USAGE


def _print_report(report: AuditReport, as_json: bool, below: bool) -> None:
    said = "INTEGRITY is proven, SIGNED was asked for; pin the signer's key (--jwks or --trust)"
    if as_json:
        document = report.as_json()
        print(json.dumps(document | {"below": said} if below else document, indent=2))
        return
    print(report.as_text())
    if below:
        print(f"BELOW: {said}")


def _print_invalid(error: AuditInvalid | VerificationError, as_json: bool) -> None:
    line = error.line if isinstance(error, AuditInvalid) else None
    seq = error.seq if isinstance(error, AuditInvalid) else None
    if as_json:
        document = {"verdict": "INVALID", "code": error.code, "line": line, "seq": seq}
        print(json.dumps(document | {"detail": str(error)}, indent=2))
        return
    print(f"INVALID: {error} ({error.code})")
