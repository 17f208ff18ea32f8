"""`signet dry-run`: what a gateway would make of a call, without making it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from signet.cli.arguments import new_command
from signet.cli.asking import add_gateway_options, ask
from signet.cli.exits import CommandFailed, Exit

if TYPE_CHECKING:
    from signet.cli.arguments import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add `dry-run` to the command's sub-commands."""
    parser = new_command(
        subparsers,
        "dry-run",
        line="show what a call would become, without making it",
        description="Send the body of an exchange to a gateway, and show its edits, its document"
        " and what would be refused. Nothing is stored, sent, asked or metered. Exits 0 if the call"
        " would go on, 1 if it would be refused.",
        examples="  signet dry-run call.json\n  signet dry-run - --json < call.json",
    )
    parser.add_argument("file", metavar="FILE", help="the body; - reads standard input")
    parser.add_argument("--json", action="store_true", help="print the answer as it came")
    add_gateway_options(parser)


def run(args: argparse.Namespace) -> int:
    """Ask, and print what came of it."""
    shown = ask(args, "POST", "/v1/dry-run", _read(args.file))
    if args.json:
        print(json.dumps(shown, ensure_ascii=False))
    else:
        print("\n".join(_lines(shown)))
    return Exit.DONE if shown["ok"] else Exit.FAILED


def _lines(shown: Mapping[str, Any]) -> Iterator[str]:
    repair, problem, policy = shown["repair"], shown["problem"], shown["policy"]
    if repair is not None:
        yield f"repaired, {repair['grade']}"
        for text in repair["texts"]:
            kinds = ", ".join(edit["kind"] for edit in text["edits"])
            yield f"  {text['pointer']}: {kinds}"
    for entry in shown["deprecated"]:
        successor = entry["deprecated"]["successor"]
        yield f"deprecated: {entry['name']}" + (f", use {successor}" if successor else "")
    if shown["normalized"] is not None:
        yield json.dumps(shown["normalized"], indent=2, ensure_ascii=False)
        if shown["cid"] is not None:
            yield f"cid {shown['cid']}"
    if policy is not None:
        named = "; its addresses are judged when it is sent"
        more = named if shown["addresses"] == "not_resolved" else ""
        yield f"policy: {policy['reason']}{more}"
    if problem is not None:
        yield f"would be refused: {problem['status']} {problem['code']}: {problem['detail']}"
        for fault in problem.get("faults", ()):
            yield f"  {fault['pointer']}: {fault['detail']}"
    if shown["fallback"]:
        yield "a model would be asked first to mend what cannot be read"


def _read(name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise CommandFailed(f"{name}: {error.strerror}", Exit.USAGE) from error
