"""`signet types`: the registry of a running gateway, from a shell.

A document is named by its file, as in a registry directory: `acme.order.v1.schema.json`,
`acme.order.v1--acme.invoice.v1.map.json`, `place_order.v1.tool.json`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from signet.cli.arguments import new_command
from signet.cli.asking import add_gateway_options, ask
from signet.cli.exits import CommandFailed, Exit
from signet.cli.tables import table

if TYPE_CHECKING:
    from signet.cli.arguments import Subparsers

_SUFFIXES: Final = {".schema.json": "types", ".map.json": "mappings", ".tool.json": "tools"}


def add_parser(subparsers: Subparsers) -> None:
    """Add `types` to the command's sub-commands."""
    parser = new_command(
        subparsers,
        "types",
        line="list, show, register and deprecate types, mappings and tools",
        description="The registry of a running gateway. What a version is never changes; it can be"
        " deprecated, and serves as before.",
        examples="  signet types list\n"
        "  signet types add acme.order.v1.schema.json place_order.v1.tool.json\n"
        "  signet types deprecate types/acme.order.v1 --successor acme.order.v2\n"
        "  signet types add --everybody acme.order.v1.schema.json    (with an admin key)",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="ACTION")
    listing = new_command(
        verbs,
        "list",
        line="list what the key's tenant can name",
        description="List the types, mappings and tools that the key's tenant can name, where each"
        " comes from, and which are deprecated.",
    )
    show = new_command(
        verbs, "show", line="show one document", description="Print one document as JSON."
    )
    add = new_command(
        verbs,
        "add",
        line="register documents, each named by its file",
        description="Register documents, types before tools before mappings. The name of a file"
        " says what is in it: NAME.schema.json, NAME.tool.json, SOURCE--TARGET.map.json.",
    )
    add.add_argument("files", metavar="FILE", type=Path, nargs="+", help="the documents")
    deprecate = new_command(
        verbs,
        "deprecate",
        line="say that a version should not be used",
        description="Say that a version should not be used any more. It serves as before, and"
        " answers that used it say so.",
    )
    deprecate.add_argument("--detail", metavar="TEXT", help="why, for people")
    deprecate.add_argument("--successor", metavar="NAME", help="what to use instead")
    restore = new_command(
        verbs,
        "restore",
        line="take back that a version is deprecated",
        description="Take back that a version is deprecated.",
    )
    for verb in (show, deprecate, restore):
        verb.add_argument("place", metavar="KIND/NAME", help="such as types/acme.order.v1")
    for verb in (add, deprecate, restore):
        verb.add_argument(
            "--everybody", action="store_true", help="for all tenants, with an admin key"
        )
    for verb in (listing, show, add, deprecate, restore):
        add_gateway_options(verb)


def run(args: argparse.Namespace) -> int:
    """Carry out one of the verbs."""
    match args.verb:
        case "list":
            rows = [_row(document) for document in _all(args)]
            print(table(("kind", "name", "from", ""), rows))
        case "show":
            shown = ask(args, "GET", f"/v1/registry/{_place(args.place)}")
            print(json.dumps(shown["document"], indent=2, ensure_ascii=False))
        case "add":
            for file in _in_order(args.files):
                _add(args, file)
        case "deprecate":
            remark = {"detail": args.detail, "successor": args.successor}
            path = f"{_base(args)}/{_place(args.place)}/deprecation"
            ask(args, "PUT", path, json.dumps(remark).encode())
            print(f"{args.place}: deprecated")
        case _:
            ask(args, "DELETE", f"{_base(args)}/{_place(args.place)}/deprecation")
            print(f"{args.place}: in use")
    return Exit.DONE


def _all(args: argparse.Namespace) -> Iterator[Mapping[str, Any]]:
    after = ""
    while True:
        page = ask(args, "GET", f"/v1/registry?limit=500{after}")
        yield from page["documents"]
        if page["next"] is None:
            return
        after = f"&after={page['next']}"


def _row(document: Mapping[str, Any]) -> tuple[str, str, str, str]:
    said = document["deprecated"]
    remark = ""
    if said is not None:
        remark = "deprecated"
        if said["successor"]:
            remark += f", use {said['successor']}"
    if document["shadows"]:
        remark = f"{remark}; hides a {document['shadows']} one".lstrip("; ")
    return document["kind"], document["name"], document["origin"], remark


def _add(args: argparse.Namespace, file: Path) -> None:
    kind, name = _named(file)
    try:
        body = file.read_bytes()
    except OSError as error:
        raise CommandFailed(f"{file}: {error.strerror}", Exit.USAGE) from error
    try:
        entry = ask(args, "PUT", f"{_base(args)}/{kind}/{name}", body)
    except CommandFailed as error:
        raise CommandFailed(f"{file}: {error.detail}", error.exit, faults=error.faults) from error
    print(f"{kind}/{name}: {entry['cid']}")


def _in_order(files: list[Path]) -> list[Path]:
    """Types before the mappings that need them."""
    return sorted(files, key=lambda file: file.name.endswith(".map.json"))


def _named(file: Path) -> tuple[str, str]:
    for suffix, kind in _SUFFIXES.items():
        if file.name.endswith(suffix):
            return kind, file.name.removesuffix(suffix)
    raise CommandFailed(f"{file}: the name ends in {', '.join(_SUFFIXES)}", Exit.USAGE)


def _place(text: str) -> str:
    kind, _, name = text.partition("/")
    if kind not in _SUFFIXES.values() or not name or not name.isascii() or "/" in name:
        raise CommandFailed(f"{text[:80]!r} is no place such as types/acme.order.v1", Exit.USAGE)
    return text


def _base(args: argparse.Namespace) -> str:
    return "/v1/admin/registry" if args.everybody else "/v1/registry"
