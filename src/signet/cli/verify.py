"""`signet verify`: check a bundle, a page set, a chain or a receipt, without any network.

Exit codes: 0 the asked level is reached, 1 INVALID, 2 valid but below the asked level, 64 usage
(a file that cannot be read, a key set that is none).
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from signet.cli.trust import add_trust
from signet.receipts.canonical import parse
from signet.receipts.errors import (
    KeyFormatError,
    LevelNotReached,
    ParseError,
    ReceiptError,
    VerificationError,
)
from signet.receipts.keys import KeySet
from signet.receipts.report import AnyReport, Level
from signet.receipts.verify import verify, verify_pages

if TYPE_CHECKING:
    from signet.receipts.canonical import Json

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # pyright: ignore[reportPrivateUsage] # argparse has no public name for it

REACHED, INVALID, BELOW, USAGE = 0, 1, 2, 64

_DESCRIPTION = """\
Check an export bundle, all pages of one, a billing statement, or the answer of
an exchange, without any network. Trust comes from --jwks and --trust alone,
never from the document. Exits 0 if the level is reached, 1 if the document is
INVALID, 2 if it is valid but below the level."""

_EXAMPLES = """\
examples:
  signet verify bundle.json --jwks jwks.json
  signet verify page1.json page2.json --jwks jwks.json
  signet verify - --trust KID --json < answer.json"""


def add_parser(subparsers: Subparsers) -> None:
    """Add `verify` to the command's sub-commands."""
    # Not by `new_command`, which knows every exit code of ours: nothing but receipts loads here.
    parser = subparsers.add_parser(
        "verify",
        help="check a bundle or receipt, offline",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="the document, or all pages of one chain; - reads standard input",
    )
    add_trust(parser, [level.name for level in Level])
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Verify, print the report, return the exit code."""
    files: list[str] = args.files
    trust: list[str] = args.trust
    as_json: bool = args.json
    level = Level[args.level]
    try:
        documents = [_read(file) for file in files]
        jwks = _key_set(args.jwks)
    except (OSError, ReceiptError) as error:
        print(f"signet verify: {_reason(error)}", file=sys.stderr)
        return USAGE
    try:
        if len(documents) == 1:
            report = verify(documents[0], trust=trust, jwks=jwks, level=level)
        else:
            report = verify_pages(documents, trust=trust, jwks=jwks, level=level)
    except LevelNotReached as below:
        _print_report(below.report, as_json, below.detail)
        return BELOW
    except VerificationError as error:
        _print_invalid(error, as_json)
        return INVALID
    _print_report(report, as_json, None)
    return REACHED


def _read(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    with open(file, "rb") as opened:  # pathlib would load urllib, and nothing here may
        return opened.read()


def _key_set(file: str | None) -> KeySet | None:
    return None if file is None else KeySet.from_jwks(parse(_read(file)))


def _reason(error: OSError | ReceiptError) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, ParseError | KeyFormatError):
        return f"--jwks is not a key set: {error}"
    return str(error)


def _print_report(report: AnyReport, as_json: bool, below: str | None) -> None:
    if as_json:
        document = report.as_json()
        _print_json(document if below is None else document | {"below": below})
        return
    print(report.as_text())
    if below is not None:
        print(f"BELOW: {below}")


def _print_invalid(error: VerificationError, as_json: bool) -> None:
    if as_json:
        _print_json(
            {
                "verdict": "INVALID",
                "step": error.step.value,
                "code": error.code,
                "hop": error.hop,
                "member": error.member,
                "detail": error.detail,
            }
        )
        return
    print(f"INVALID: {error.detail}")
    print(f"  step {error.step.value} would have shown that {error.step.claim}")


def _print_json(document: dict[str, Json]) -> None:
    print(json.dumps(document, indent=2))
