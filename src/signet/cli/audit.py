"""`signet audit export|verify`: take the audit log out, and check offline what was taken out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from signet.cli.arguments import new_command
from signet.cli.trust import add_trust

if TYPE_CHECKING:
    from signet.cli.arguments import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add `audit` to the command's sub-commands."""
    parser = new_command(
        subparsers,
        "audit",
        line="export the audit log, or check an export offline",
        description="The audit log: who did what, in one hash chain per tenant.",
        examples="  signet audit export --tenant acme --out acme.jsonl\n"
        "  signet audit verify acme.jsonl --jwks keys.json",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_export(actions)
    _add_verify(actions)


def run(args: argparse.Namespace) -> int:
    """Do what was asked; verifying loads nothing of the server."""
    if args.action == "verify":
        from signet.cli.audit_verify import verify_file

        return verify_file(
            args.file, manifest=args.manifest, jwks=args.jwks, trust=args.trust, **_asked(args)
        )
    from signet.cli.audit_export import export

    return export(
        args.tenant, form=args.format, out=args.out, from_time=args.from_time, to_time=args.to_time
    )


def _asked(args: argparse.Namespace) -> dict[str, bool]:
    return {"signed": args.level == "SIGNED", "as_json": args.json}


def _add_export(actions: Subparsers) -> None:
    parser = new_command(
        actions,
        "export",
        line="write a tenant's entries and their signed manifest",
        description="Write a tenant's entries, oldest first, and a manifest signed with the"
        " gateway's key, even where there is no entry. Works on the database of the settings,"
        " beside running gateways.",
    )
    parser.add_argument(
        "--tenant", default="_system", metavar="ID", help="whose (default: %(default)s)"
    )
    parser.add_argument(
        "--format",
        choices=("jsonl", "csv"),
        default="jsonl",
        help="of the file (default: %(default)s)",
    )
    parser.add_argument("--from", dest="from_time", metavar="TIME", help="not what came before")
    parser.add_argument("--to", dest="to_time", metavar="TIME", help="nothing from this time on")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="a file, written whole or not at all; beside a CSV file, FILE.manifest.json"
        " (default: standard output)",
    )


def _add_verify(actions: Subparsers) -> None:
    parser = new_command(
        actions,
        "verify",
        line="check an export offline",
        description="Check that no entry of an export was changed, removed, added or moved. Trust"
        " comes from --jwks and --trust alone, never from the file. Exits 0 if the level is"
        " reached, 1 if the export is INVALID, 2 if it is valid but below the level.",
        examples="  signet audit verify acme.jsonl --jwks jwks.json\n"
        "  signet audit verify acme.csv --trust KID",
    )
    parser.add_argument("file", metavar="FILE", help="the export; - reads JSON Lines from stdin")
    parser.add_argument(
        "--manifest", metavar="FILE", help="of a CSV file (default: FILE.manifest.json)"
    )
    add_trust(parser, ("INTEGRITY", "SIGNED"))
