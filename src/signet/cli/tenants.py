"""`signet tenants`: make, list, look at and change tenants, in the database of the settings."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from signet.app.keyring import live_keyring, tenant_administration
from signet.cli.arguments import new_command
from signet.cli.database import existing_database
from signet.cli.exits import Exit
from signet.cli.tables import table
from signet.gateway.tenants import Actor, KnownTenant, Tenants
from signet.receipts.canonical import Json, canonicalize, parse
from signet.receipts.errors import ReceiptError
from signet.receipts.receipt import timestamp
from signet.settings import Settings, read_settings

if TYPE_CHECKING:
    from signet.cli.arguments import Subparsers

PAGE: Final = 200
CLI: Final = Actor(key_id="_cli")


def add_parser(subparsers: Subparsers) -> None:
    """Add `tenants` to the command's sub-commands."""
    parser = new_command(
        subparsers,
        "tenants",
        line="make and change tenants",
        description="Make, list, look at and change tenants in the database of the settings."
        " Running gateways follow within about a second. The settings of a tenant are the members"
        " that SP_API_KEYS has for one.",
        examples="""  signet tenants create acme --settings '{"allowlist": ["api.acme.example"]}'
  signet tenants update acme --settings '{"fu_monthly_limit": 50000, "allowlist": null}'
  signet tenants list --json""",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = new_command(
        actions, "create", line="make a tenant", description="Make a tenant. Its keys come next."
    )
    listing = new_command(
        actions,
        "list",
        line="list all tenants",
        description="List all tenants, those of SP_API_KEYS included.",
    )
    show = new_command(
        actions,
        "show",
        line="show one tenant",
        description="Show one tenant with every member in force, as JSON.",
    )
    update = new_command(
        actions,
        "update",
        line="change a tenant",
        description="Replace the members that are given; one that is null is the default again.",
    )
    for one in (create, show, update):
        one.add_argument("tenant", metavar="TENANT", help="the tenant's id")
    for one in (create, update):
        one.add_argument(
            "--settings",
            type=settings_object,
            required=one is update,
            default={},
            metavar="JSON",
            help="an object with the members that SP_API_KEYS has for a tenant",
        )
    listing.add_argument("--json", action="store_true", help="print the tenants as JSON")


def run(args: argparse.Namespace) -> int:
    """Carry out the action on the configured database."""
    asyncio.run(_run(read_settings(os.environ).settings, args))
    return Exit.DONE


async def _run(settings: Settings, args: argparse.Namespace) -> None:
    async with existing_database(settings) as database:
        keyring = await live_keyring(settings, database=database, clock=now_us)
        tenants, _ = tenant_administration(
            settings, database=database, keyring=keyring, clock=now_us
        )
        match args.action:
            case "create":
                made = await tenants.create(args.tenant, args.settings, actor=CLI)
                print(f"made the tenant {made.id}; signet api-keys create --tenant {made.id} next")
            case "update":
                changed = await tenants.change(args.tenant, args.settings, actor=CLI)
                print(_text(changed))
            case "show":
                print(_text(await tenants.find(args.tenant)))
            case _:
                _list(await _all(tenants), as_json=args.json)


async def _all(tenants: Tenants) -> list[KnownTenant]:
    found: list[KnownTenant] = []
    while page := await tenants.page(after=found[-1].id if found else "", limit=PAGE):
        found += page
    return found


def _list(tenants: Sequence[KnownTenant], *, as_json: bool) -> None:
    if as_json:
        print(canonicalize({"tenants": [_document(tenant) for tenant in tenants]}).decode())
    elif not tenants:
        print("there are no tenants")
    else:
        rows = [(t.id, _source(t), shown_time(t.created_us), _set(t.members)) for t in tenants]
        print(table(("tenant", "described by", "made", "settings"), rows))


def _set(members: Mapping[str, Json]) -> str:
    """Name the members that are anything but off, empty or unset."""
    return ", ".join(name for name, value in members.items() if value not in (None, False, []))


def _text(tenant: KnownTenant) -> str:
    return json.dumps(json.loads(canonicalize(_document(tenant))), indent=2)


def _document(tenant: KnownTenant) -> dict[str, Json]:
    return {
        "tenant": tenant.id,
        **tenant.members,
        "source": "settings" if tenant.created_us is None else "database",
        "created_us": tenant.created_us,
        "changed_us": tenant.changed_us,
    }


def _source(tenant: KnownTenant) -> str:
    return "SP_API_KEYS" if tenant.created_us is None else "database"


def settings_object(text: str) -> dict[str, Json]:
    """Read the JSON object of an option."""
    try:
        document = parse(text)
    except (ReceiptError, UnicodeEncodeError) as error:
        raise argparse.ArgumentTypeError(f"expected a JSON object: {error}") from error
    if not isinstance(document, dict):
        raise argparse.ArgumentTypeError("expected a JSON object")
    return document


def now_us() -> int:
    """The time of day in microseconds."""
    return time.time_ns() // 1000


def shown_time(time_us: int | None) -> str:
    """A time to the second, or a dash."""
    return "-" if time_us is None else timestamp(time_us)[:19] + "Z"
