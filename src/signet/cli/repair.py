"""`signet repair`: what would be changed in a broken text, as a diff for people.

The repaired text goes to standard output only with `--write`, so that a pipe never carries a text
nobody looked at. Nothing is called; this is the same repair that the gateway makes.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from signet.cli.arguments import new_command
from signet.cli.exits import CommandFailed, Exit
from signet.cli.terminal import has_colour
from signet.core.invariants import violations
from signet.core.repair import Repaired, Unrepairable, repair
from signet.receipts.canonical import Json, parse
from signet.receipts.errors import ParseError

if TYPE_CHECKING:
    from signet.cli.arguments import Subparsers

_SHOWN: Final = 100
_COLOURS: Final = {"-": "\x1b[31m", "+": "\x1b[32m", "@": "\x1b[36m"}


def add_parser(subparsers: Subparsers) -> None:
    """Add `repair` to the command's sub-commands."""
    parser = new_command(
        subparsers,
        "repair",
        line="repair broken JSON without changing what it means",
        description="Show what it takes to make a text strict JSON without changing what it means,"
        " or why that cannot be done. Exits 0 if the text is or can be made strict, 1 if not.",
        examples="  signet repair arguments.txt\n"
        "  signet repair arguments.txt --schema tool.schema.json\n"
        "  signet repair - --write < arguments.txt > arguments.json",
    )
    parser.add_argument("file", metavar="FILE", help="the text; - reads standard input")
    parser.add_argument("--schema", metavar="FILE", help="a JSON Schema that may ask for coercions")
    parser.add_argument(
        "--write", action="store_true", help="print the repaired text instead of the edits"
    )
    parser.add_argument("--json", action="store_true", help="print the result for a program")


def run(args: argparse.Namespace) -> int:
    """Repair the file and say how; return the exit code."""
    text = _read(args.file)
    schema = _schema(args.schema)
    result = repair(text, schema=schema)
    if args.json:
        print(json.dumps(_report(result), ensure_ascii=False))
        return Exit.DONE if isinstance(result, Repaired) else Exit.FAILED
    if isinstance(result, Unrepairable):
        line, column = _place(text, result.offset)
        print(f"cannot be repaired: {result.detail}", file=sys.stderr)
        print(f"  {result.code}, line {line}, column {column}", file=sys.stderr)
        return Exit.FAILED
    faults = violations(text, result.text, schema=schema)
    if faults:
        print(f"cannot be repaired: {faults[0].detail} ({faults[0].pointer})", file=sys.stderr)
        return Exit.FAILED
    if args.write:
        sys.stdout.write(result.text)
    else:
        _show(text, result)
    return Exit.DONE


def _show(text: str, result: Repaired) -> None:
    if not result.edits:
        print("strict JSON already: nothing to change")
        return
    counts = Counter(edit.kind for edit in result.edits)
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))
    print(f"repaired, {result.grade}: {kinds}")
    for edit in result.edits[:_SHOWN]:
        line, column = _place(text, edit.offset)
        print(f"  {line}:{column}  {edit.kind}  {edit.pointer or '/'}")
    if len(result.edits) > _SHOWN:
        print(f"  and {len(result.edits) - _SHOWN} more")
    print()
    lines = difflib.unified_diff(
        text.splitlines(), result.text.splitlines(), "as sent", "repaired", lineterm=""
    )
    for line in lines:
        print(_coloured(line))


def _coloured(line: str) -> str:
    colour = _COLOURS.get(line[:1]) if has_colour(sys.stdout) else None
    # What a model wrote may hold control sequences; a terminal must not obey them.
    shown = "".join(c if c == "\t" or c.isprintable() else ascii(c)[1:-1] for c in line)
    return f"{colour}{shown}\x1b[0m" if colour else shown


def _report(result: Repaired | Unrepairable) -> dict[str, Json]:
    if isinstance(result, Unrepairable):
        return {
            "repaired": False,
            "code": result.code,
            "offset": result.offset,
            "detail": result.detail,
        }
    return {
        "repaired": True,
        "grade": result.grade,
        "edits": result.listing(_SHOWN),
        "text": result.text,
    }


def _place(text: str, offset: int) -> tuple[int, int]:
    """Line and column of a character, both counted from 1."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def _read(name: str) -> str:
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return data.decode()
    except OSError as error:
        raise CommandFailed(f"{name}: {error.strerror}", Exit.USAGE) from error
    except UnicodeDecodeError as error:
        raise CommandFailed(f"{name} is not UTF-8 (byte {error.start})", Exit.USAGE) from error


def _schema(name: str | None) -> Json | None:
    if name is None:
        return None
    try:
        return parse(_read(name))
    except ParseError as error:
        raise CommandFailed(f"{name} is no JSON Schema: {error}", Exit.USAGE) from error
