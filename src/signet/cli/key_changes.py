"""What `signet keys` does on a database: rotate, list, retire, revoke."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Final

from signet.app import HeldKeys, key_file, new_held_key, write_key_file
from signet.cli.database import existing_database
from signet.cli.exits import CommandFailed, Exit
from signet.cli.tables import table
from signet.gateway.rotation import Listed, Rotation, Switch
from signet.gateway.signing import HeldKey, signer_at
from signet.receipts.keys import SigningKey
from signet.receipts.receipt import timestamp
from signet.settings import Settings, read_settings


def carry_out(args: argparse.Namespace) -> int:
    """Carry out one of `ACTIONS` on the database of the settings."""
    return asyncio.run(_on_database(ACTIONS[args.action], args))


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
    try:
        write_key_file(file, new.signing)  # before it is announced: a gateway looks for it at once
    except OSError as error:
        raise CommandFailed(f"{file}: {error.strerror}", Exit.USAGE) from error
    try:
        yield new
    except BaseException:
        file.unlink()
        raise


async def _list(_settings: Settings, rotation: Rotation, args: argparse.Namespace) -> int:
    listed = await rotation.listing()
    if args.json:
        print(json.dumps({"keys": [key_document(one) for one in listed]}))
    elif not listed:
        print("no key has been published yet; the first start of a gateway publishes one")
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


Action = Callable[[Settings, Rotation, argparse.Namespace], Awaitable[int]]
ACTIONS: Final[Mapping[str, Action]] = {
    "rotate": _rotate,
    "list": _list,
    "retire": _retire,
    "revoke": _revoke,
}
