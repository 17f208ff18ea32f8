"""`signet keys`: make a signing key, change it under load, list what was ever published.

A change is announced in the database; every gateway that uses it switches by itself at the time
that was announced, without a restart. Making a key needs the base install alone.
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from signet.cli.arguments import new_command
from signet.cli.exits import CommandFailed, Exit
from signet.receipts.keys import SigningKey

if TYPE_CHECKING:
    from signet.cli.arguments import Subparsers

LEAST_LEAD_S: Final = 15
_MOST_LEAD_S: Final = 30 * 86_400


def add_parser(subparsers: Subparsers) -> None:
    """Add `keys` to the command's sub-commands."""
    parser = new_command(
        subparsers,
        "keys",
        line="make, change and list the signing keys",
        description="Make the signing key of a gateway, change it while gateways run, and list the"
        " keys that were ever published.",
        examples="""  signet keys generate --out /etc/signet/signing-key
  signet keys rotate
  signet keys list""",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    generate = new_command(
        actions,
        "generate",
        line="make an Ed25519 signing key",
        description="Make an Ed25519 signing key. Its kid (RFC 7638 thumbprint) is what verifiers"
        " pin: hand it out. The seed is the secret.",
    )
    generate.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write the seed to a new file that only you can read, and print the rest",
    )
    rotate = new_command(
        actions,
        "rotate",
        line="let another key take over from the one that signs",
        description="Publish another signing key and announce when it takes over. Every gateway on"
        " the database switches by itself at that moment; none needs a restart. The new key is that"
        " of SP_NEXT_PRIVATE_KEY_B64, which every node must have; with SQLite and a key file in"
        " SP_DATA_DIR it is made, in a file beside the old one.",
    )
    rotate.add_argument(
        "--lead",
        type=_lead,
        metavar="SECONDS",
        help="when it takes over; otherwise once every verifier's copy of the key set has it"
        f" (300 seconds after it was published, {LEAST_LEAD_S} at least)",
    )
    rotate.add_argument(
        "--lost",
        action="store_true",
        help="the key that signs is lost: the one of these settings takes over, and nobody vouches"
        " for it",
    )
    listing = new_command(
        actions,
        "list",
        line="list the keys that were ever published",
        description="List the keys that were ever published, what each does, and since when.",
    )
    retire = new_command(
        actions,
        "retire",
        line="put a key aside that was to sign and will not",
        description="Put a published key aside that has never signed; it never will. The key that"
        " signs is retired by `rotate`.",
    )
    revoke = new_command(
        actions,
        "revoke",
        line="say that a key is not to be trusted from now on",
        description="Say that a key which signs no more is not to be trusted from now on. What it"
        " signed before stands, as far as the dates can be believed. Rotate first.",
    )
    for command in (retire, revoke):
        command.add_argument("kid", metavar="KID", type=_kid, help="the key, as `list` shows it")
    for command in (rotate, listing, retire, revoke):
        command.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Carry the action out."""
    if args.action == "generate":
        return _generate(args.out)
    from signet.cli.key_changes import carry_out

    return carry_out(args)


def _generate(file: Path | None) -> int:
    """Make a key and print, or write, what the settings need."""
    key = SigningKey.generate()
    if file is None:
        print(f"SP_PRIVATE_KEY_B64={key.seed_b64}")
    else:
        _write_new(file, key.seed_b64 + "\n")
        print(f"SP_PRIVATE_KEY_B64_FILE={file.absolute()}")
    print(f"# kid {key.kid}")
    return Exit.DONE


def _write_new(file: Path, text: str) -> None:
    """Create `file`, for its owner only; an old key is never written over."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
    except FileExistsError as error:
        detail = f"{file} exists already, and a signing key is never written over"
        raise CommandFailed(detail, Exit.USAGE) from error
    except OSError as error:
        raise CommandFailed(f"{file}: {error.strerror}", Exit.USAGE) from error


def _lead(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,7}", text) or not LEAST_LEAD_S <= int(text) <= _MOST_LEAD_S:
        detail = f"expected whole seconds from {LEAST_LEAD_S} to {_MOST_LEAD_S}"
        raise argparse.ArgumentTypeError(detail)
    return int(text)


def _kid(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{43}", text):
        raise argparse.ArgumentTypeError("a kid has 43 characters (RFC 7638 thumbprint)")
    return text
