"""`signet audit export`: a tenant's entries and their manifest, in files whole or absent."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Final

from signet.app import HeldKeys, open_keys
from signet.cli.database import existing_database
from signet.cli.exits import CommandFailed, Exit
from signet.cli.export import appearing
from signet.cli.terminal import Progress
from signet.core.audit import SYSTEM, read_time
from signet.core.ids import TENANT_ID, TenantId
from signet.gateway.audit_exports import AuditExports, Exported
from signet.gateway.exports import published_keys
from signet.receipts.audit import csv_header, csv_row
from signet.settings import Settings, read_settings

_SHOWN_EVERY: Final = 1000


def export(
    tenant: str, *, form: str, out: Path | None, from_time: str | None, to_time: str | None
) -> int:
    """Write the export; say how many entries there are and which key signed."""
    if tenant != SYSTEM and not TENANT_ID.fullmatch(tenant):
        raise CommandFailed(f"--tenant is a tenant id, or {SYSTEM}", Exit.USAGE)
    if form == "csv" and out is None:
        raise CommandFailed("a CSV file has its manifest beside it: name it with --out", Exit.USAGE)
    from_us, to_us = _time("--from", from_time), _time("--to", to_time)
    settings = read_settings(os.environ).settings
    with ExitStack() as files:
        entries: IO[bytes] = files.enter_context(_written(out))
        if form == "csv" and out is not None:
            manifest: IO[bytes] = files.enter_context(
                appearing(out.with_name(f"{out.name}.manifest.json"))
            )
        else:
            manifest = entries
        with Progress(f"audit export {tenant}", stream=sys.stderr) as progress:
            count, kid = asyncio.run(
                _export(
                    settings,
                    TenantId(tenant),
                    as_csv=form == "csv",
                    from_us=from_us,
                    to_us=to_us,
                    entries=entries,
                    manifest=manifest,
                    show=progress.show,
                )
            )
    print(f"{out or 'standard output'}: {count} entries, signed by {kid}", file=sys.stderr)
    return Exit.DONE


def _time(option: str, text: str | None) -> int | None:
    try:
        return None if text is None else read_time(text)
    except ValueError as error:
        detail = f"{option} is a date or a time such as 2026-11-25T08:00:00Z"
        raise CommandFailed(detail, Exit.USAGE) from error


@contextmanager
def _written(out: Path | None) -> Generator[IO[bytes]]:
    if out is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with appearing(out) as file:
        yield file


async def _export(
    settings: Settings,
    tenant: TenantId,
    *,
    as_csv: bool,
    from_us: int | None,
    to_us: int | None,
    entries: IO[bytes],
    manifest: IO[bytes],
    show: Callable[[str], None],
) -> tuple[int, str]:
    """Write entries and manifest; return their count and the signer's kid."""
    if as_csv:
        entries.write(csv_header())
    written = 0
    async with existing_database(settings) as database:
        keys = await open_keys(database, HeldKeys(settings), clock=_now_us)
        key = await keys.key_for(_now_us())
        exports = AuditExports(database=database, clock=_now_us)
        async for part in exports.export(
            tenant,
            issuer=settings.identity.issuer,
            key=key,
            jwks=(await published_keys(database)).jwks(),
            from_us=from_us,
            to_us=to_us,
        ):
            if isinstance(part, Exported):
                manifest.write(part.manifest + b"\n")
                written = part.count
                break
            entries.write(csv_row(part) if as_csv else part + b"\n")
            written += 1
            if written % _SHOWN_EVERY == 0:
                show(f"{written} entries")
    return written, key.kid


def _now_us() -> int:
    return time.time_ns() // 1000
