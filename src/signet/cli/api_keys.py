"""`signet api-keys`: make, list, rotate, let expire and revoke API keys, in the database of the
settings. This is also how the first key that may administer is made."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from signet.app.keyring import live_keyring, tenant_administration
from signet.cli.arguments import new_command
from signet.cli.database import existing_database
from signet.cli.exits import Exit
from signet.cli.tables import table
from signet.cli.tenants import CLI, PAGE, now_us, settings_object, shown_time
from signet.core.audit import SYSTEM
from signet.core.tenant import Scope
from signet.gateway.api_keys import MOST_LIFE_S, MOST_OVERLAP_S, OVERLAP_S, APIKeys, KnownKey
from signet.receipts.canonical import Json, canonicalize
from signet.settings import Settings, read_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from signet.cli.arguments import Subparsers

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def add_parser(subparsers: Subparsers) -> None:
    """Add `api-keys` to the command's sub-commands."""
    parser = new_command(
        subparsers,
        "api-keys",
        line="make, rotate and revoke API keys",
        description="Make, list, rotate, let expire and revoke API keys in the database of the"
        " settings. Running gateways follow within about a second. A key's text is printed once,"
        " on standard output; the database keeps a hash.",
        examples="""  signet api-keys create --admin
  signet api-keys create --tenant acme --scope exchange --expires-in 90d
  signet api-keys rotate key_0123456789abcdef --overlap 12h
  signet api-keys revoke key_0123456789abcdef""",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = new_command(
        actions,
        "create",
        line="make a key",
        description="Make a key of a tenant, or with --admin one that may administer and nothing"
        " else.",
    )
    whose = create.add_mutually_exclusive_group(required=True)
    whose.add_argument("--tenant", metavar="TENANT", help="whose key it is")
    whose.add_argument("--admin", action="store_true", help="a key that administers")
    create.add_argument(
        "--scope",
        action="append",
        choices=[scope.value for scope in Scope],
        help="what it may do; may be given again (without any: exchange, receipts.read,"
        " billing.read, webhooks)",
    )
    create.add_argument("--label", default="", metavar="TEXT", help="what it is for")
    create.add_argument("--expires-in", type=_life, metavar="TIME", help="such as 90d or 12h")
    create.add_argument(
        "--settings",
        type=settings_object,
        default={},
        metavar="JSON",
        help="members that narrow it, such as key_allowlist",
    )
    listing = new_command(
        actions,
        "list",
        line="list keys",
        description="List the keys, those of SP_API_KEYS included.",
    )
    listing.add_argument("--tenant", metavar="TENANT", help="only this tenant's")
    listing.add_argument("--all", action="store_true", help="those that have ended as well")
    listing.add_argument("--json", action="store_true", help="print the keys as JSON")
    rotate = new_command(
        actions,
        "rotate",
        line="make a key's successor",
        description="Make a key that may do the same; the old one ends after the overlap.",
    )
    rotate.add_argument(
        "--overlap",
        type=_overlap,
        default=OVERLAP_S,
        metavar="TIME",
        help="how long the old one goes on (1d)",
    )
    rotate.add_argument("--expires-in", type=_life, metavar="TIME", help="such as 90d or 12h")
    expire = new_command(
        actions,
        "expire",
        line="let a key end",
        description="Let a key end by itself, never later than it was to end.",
    )
    expire.add_argument(
        "--in", dest="in_s", type=_overlap, required=True, metavar="TIME", help="such as 90d or 12h"
    )
    revoke = new_command(
        actions, "revoke", line="end a key now", description="End a key now, for good."
    )
    for one in (rotate, expire, revoke):
        one.add_argument(
            "key_id", metavar="KEY_ID", help="its id, as `signet api-keys list` has it"
        )


def run(args: argparse.Namespace) -> int:
    """Carry out the action on the configured database."""
    asyncio.run(_run(read_settings(os.environ).settings, args))
    return Exit.DONE


async def _run(settings: Settings, args: argparse.Namespace) -> None:
    async with existing_database(settings) as database:
        keyring = await live_keyring(settings, database=database, clock=now_us)
        _, keys = tenant_administration(settings, database=database, keyring=keyring, clock=now_us)
        match args.action:
            case "create":
                await _create(keys, args)
            case "rotate":
                issued = await keys.rotate(
                    args.key_id,
                    overlap_s=args.overlap,
                    expires_in_s=args.expires_in,
                    actor=CLI,
                )
                before = await keys.find(args.key_id)
                _tell(issued.key, issued.text)
                _note(f"{before.key_id} ends at {shown_time(before.expires_us)}")
            case "expire":
                key = await keys.expire(args.key_id, in_s=args.in_s, actor=CLI)
                print(f"{key.key_id} ends at {shown_time(key.expires_us)}")
            case "revoke":
                key = await keys.revoke(args.key_id, actor=CLI)
                print(f"{key.key_id} was revoked at {shown_time(key.revoked_us)}")
            case _:
                found = await _all(keys, args.tenant)
                _list([k for k in found if args.all or k.state == "active"], as_json=args.json)


async def _create(keys: APIKeys, args: argparse.Namespace) -> None:
    members: dict[str, Json] = dict(args.settings)
    scopes: list[str] | None = args.scope or ([Scope.ADMIN.value] if args.admin else None)
    if scopes is not None:
        members["scopes"] = list[Json](scopes)
    issued = await keys.create(
        SYSTEM if args.admin else args.tenant,
        members,
        label=args.label,
        expires_in_s=args.expires_in,
        actor=CLI,
    )
    _tell(issued.key, issued.text)


def _tell(key: KnownKey, text: str) -> None:
    """Print the key alone on standard output, and what it is beside it."""
    print(text)
    end = "" if key.expires_us is None else f", until {shown_time(key.expires_us)}"
    _note(f"{key.key_id} of {key.tenant}: {_scopes(key)}{end}; the key is not shown again")


def _note(text: str) -> None:
    print(f"# {text}", file=sys.stderr)


async def _all(keys: APIKeys, tenant: str | None) -> list[KnownKey]:
    """Return every key: those of the settings, then the others in the order of their making."""
    found: list[KnownKey] = []
    after = ""
    while page := await keys.page(tenant=tenant, after=after, limit=PAGE):
        found += page
        after = page[-1].key_id
    return sorted(found, key=lambda key: (key.created_us or 0, key.key_id))


def _list(keys: Sequence[KnownKey], *, as_json: bool) -> None:
    if as_json:
        print(canonicalize({"keys": [_document(key) for key in keys]}).decode())
    elif not keys:
        print("there are no keys")
    else:
        columns = ("key", "tenant", "state", "may", "made", "ends", "label")
        print(table(columns, [_row(key) for key in keys]))


def _row(key: KnownKey) -> tuple[str, ...]:
    made = "SP_API_KEYS" if key.created_us is None else shown_time(key.created_us)
    ends = shown_time(key.expires_us if key.revoked_us is None else key.revoked_us)
    return key.key_id, key.tenant, key.state, _scopes(key), made, ends, key.label


def _scopes(key: KnownKey) -> str:
    scopes = key.members["scopes"]
    return " ".join(map(str, scopes)) if isinstance(scopes, list) and scopes else "nothing"


def _document(key: KnownKey) -> dict[str, Json]:
    return {
        "key_id": key.key_id,
        "tenant": key.tenant,
        "state": key.state,
        "label": key.label,
        **key.members,
        "source": "settings" if key.created_us is None else "database",
        "created_us": key.created_us,
        "expires_us": key.expires_us,
        "revoked_us": key.revoked_us,
        "succeeds": key.succeeds,
        "rotated_to": key.rotated_to,
        "pepper": key.pepper,
    }


def _time(low_s: int, high_s: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        found = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
        seconds = -1 if found is None else int(found[1]) * _UNITS_S[found[2]]
        if not low_s <= seconds <= high_s:
            most = f"{high_s // 86_400}d"
            raise argparse.ArgumentTypeError(
                f"expected a time such as 90d, 12h or 0s, up to {most}"
            )
        return seconds

    return read


_life = _time(1, MOST_LIFE_S)
_overlap = _time(0, MOST_OVERLAP_S)
