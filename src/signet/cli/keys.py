"""`signet keys generate`: a new Ed25519 signing key, printed or written to a file."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from signet.cli.arguments import new_command
from signet.cli.exits import CommandFailed, Exit
from signet.receipts.keys import SigningKey

if TYPE_CHECKING:
    from signet.cli.arguments import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add `keys` to the command's sub-commands."""
    parser = new_command(
        subparsers,
        "keys",
        line="make a signing key",
        description="Make the keys of a gateway.",
        examples="  signet keys generate\n  signet keys generate --out /etc/signet/signing-key",
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


def run(args: argparse.Namespace) -> int:
    """Make the key and print, or write, what the settings need."""
    key = SigningKey.generate()
    file: Path | None = args.out
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
