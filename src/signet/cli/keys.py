"""`signet keys`: make a signing key, change it under load, list what was ever published.

A change is announced in the database; every gateway that uses it switches by itself at the time
that was announced, without a restart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from signet.app import HeldKeys, key_file, new_held_key, write_key_file
from signet.cli.arguments import new_command
from signet.cli.database import existing_database
from signet.cli.exits import CommandFailed, Exit
from signet.cli.tables import table
from signet.gateway.rotation import Listed, Rotation, Switch
from signet.gateway.signing import LEAST_LEAD_S, HeldKey, signer_at
from signet.receipts.keys import SigningKey
from signet.receipts.receipt import timestamp
from signet.settings import Settings, read_settings

if TYPE_CHECKING:
    from signet.cli.arguments import Subparsers

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
    return asyncio.run(_on_database(_ACTIONS[args.action], args))


def _generate(file: Path | None) -> int:
    """Make a key and print, or write, what the settings need."""
    key = SigningKey.generate()
    if file is None:
        print(f"SP_PRIVATE_KEY_B64={key.seed_b64}")
    else:
        _write_new(file, key)
        print(f"SP_PRIVATE_KEY_B64_FILE={file.absolute()}")
    print(f"# kid {key.kid}")
    return Exit.DONE


def _write_new(file: Path, key: SigningKey) -> None:
    """Create `file`, for its owner only; an old key is never written over."""
    try:
        write_key_file(file, key)
    except FileExistsError as error:
        detail = f"{file} exists already, and a signing key is never written over"
        raise CommandFailed(detail, Exit.USAGE) from error
    except OSError as error:
        raise CommandFailed(f"{file}: {error.strerror}", Exit.USAGE) from error


async def _on_database(action: Action, args: argparse.Namespace) -> int:
    settings = read_settings(os.environ).settings
    async with existing_database(settings) as database:
        rotation = Rotation(
            database=database,
            issuer=settings.identity.issuer,
            dice=secrets.token_bytes,
            actor="_cli",
        )
        return await action(settings, rotation, args)


async def _rotate(settings: Settings, rotation: Rotation, args: argparse.Namespace) -> int:
    held = HeldKeys(settings)
    current = await _current(rotation)
    previous = held.find(current)
    if args.lost:
        if previous is not None:
            raise CommandFailed(f"the key that signs, {current}, is not lost: it is here")
        switch = await rotation.rotate(held.following or held.first, None, lead_s=args.lead)
    elif previous is None:
        raise CommandFailed(f"the key that signs, {current}, is not here; see --lost")
    else:
        with _following(held) as new:
            switch = await rotation.rotate(new, previous, lead_s=args.lead)
    if args.json:
        print(json.dumps(_switch_document(switch)))
    else:
        print(_switch_text(switch))
    return Exit.DONE


@contextmanager
def _following(held: HeldKeys) -> Generator[HeldKey]:
    """Yield the key that is to take over; a file that was made for it goes if that fails."""
    if held.following is not None:
        yield held.following
        return
    if held.directory is None:
        detail = (
            "set SP_NEXT_PRIVATE_KEY_B64 on every node, restart them one after another, and run"
            " this again (`signet keys generate` makes a key)"
        )
        raise CommandFailed(detail, Exit.SETTINGS)
    new = new_held_key()
    file = key_file(held.directory, new.signing.kid)
    _write_new(file, new.signing)  # before it is announced: a gateway looks for it at once
    try:
        yield new
    except BaseException:
        file.unlink()
        raise


async def _list(_settings: Settings, rotation: Rotation, args: argparse.Namespace) -> int:
    listed = await rotation.listing()
    if args.json:
        print(json.dumps({"keys": [key_document(one) for one in listed]}))
    else:
        rows = [
            (
                *(one.key.kid, one.state, one.key.alias or "-"),
                *(_moment(one.key.signs_from_us), _moment(one.key.retired_us)),
                _moment(one.key.revoked_us),
            )
            for one in listed
        ]
        print(table(("kid", "state", "alias", "signs from", "until", "revoked"), rows))
    return Exit.DONE


async def _retire(settings: Settings, rotation: Rotation, args: argparse.Namespace) -> int:
    by = await _signing_key(settings, rotation)
    ended = await rotation.retire(args.kid, by)
    return _told(args, "retired", ended.kid, ended.at_us, ended.receipt_hash)


async def _revoke(settings: Settings, rotation: Rotation, args: argparse.Namespace) -> int:
    by = await _signing_key(settings, rotation)
    ended = await rotation.revoke(args.kid, by)
    return _told(args, "revoked", ended.kid, ended.at_us, ended.receipt_hash)


def _told(args: argparse.Namespace, event: str, kid: str, at_us: int, receipt_hash: str) -> int:
    if args.json:
        moment = timestamp(at_us)
        print(json.dumps({"kid": kid, f"{event}_at": moment, "receipt_hash": receipt_hash}))
    else:
        print(f"{kid} is {event} as of {timestamp(at_us)}; receipt {receipt_hash}")
    return Exit.DONE


async def _current(rotation: Rotation) -> str:
    keys = [one.key for one in await rotation.listing()]
    current = signer_at(keys, time.time_ns() // 1000)
    if current is None:
        raise CommandFailed("no key signs here yet: start the gateway first")
    return current.kid


async def _signing_key(settings: Settings, rotation: Rotation) -> SigningKey:
    """Return the key in force, which signs the receipt of the change."""
    current = await _current(rotation)
    held = HeldKeys(settings).find(current)
    if held is None:
        raise CommandFailed(f"the key that signs, {current}, is not here")
    return held.signing


def key_document(listed: Listed) -> dict[str, object]:
    """Return a key as JSON shows it."""
    key = listed.key
    times = {
        "created": key.created_us,
        "signs_from": key.signs_from_us or None,
        "retired": key.retired_us,
        "expires": key.exp_us,
        "revoked": key.revoked_us,
    }
    shown = {name: None if us is None else timestamp(us) for name, us in times.items()}
    return {"kid": key.kid, "alias": key.alias, "state": listed.state, **shown}


def _switch_document(switch: Switch) -> dict[str, object]:
    return {
        "kid": switch.kid,
        "previous": switch.previous,
        "signs_from": timestamp(switch.signs_from_us),
        "receipt_hash": switch.receipt_hash,
    }


def _switch_text(switch: Switch) -> str:
    wait_s = max(switch.signs_from_us - time.time_ns() // 1000, 0) // 1_000_000
    return (
        f"{switch.kid} signs from {timestamp(switch.signs_from_us)} on, in {wait_s} s\n"
        f"{switch.previous} signs until then, and stays published\n"
        f"receipt {switch.receipt_hash}"
    )


def _moment(time_us: int | None) -> str:
    """Return a time as people read it; the first key has signed from ever."""
    return timestamp(time_us)[:19] + "Z" if time_us else "-"


def _lead(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,7}", text) or not LEAST_LEAD_S <= int(text) <= _MOST_LEAD_S:
        detail = f"expected whole seconds from {LEAST_LEAD_S} to {_MOST_LEAD_S}"
        raise argparse.ArgumentTypeError(detail)
    return int(text)


def _kid(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{43}", text):
        raise argparse.ArgumentTypeError("a kid has 43 characters (RFC 7638 thumbprint)")
    return text


Action = Callable[[Settings, Rotation, argparse.Namespace], Awaitable[int]]
_ACTIONS: Final[Mapping[str, Action]] = {
    "rotate": _rotate,
    "list": _list,
    "retire": _retire,
    "revoke": _revoke,
}
