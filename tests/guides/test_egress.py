"""The guide on egress, with its public names on loopback and its receiver behind real TLS."""

from __future__ import annotations

import asyncio
import contextlib
import json
import stat
import sys
from pathlib import Path

import pytest
from tests.docs import DOCS, ROOT
from tests.egress.stage import HOST, PUBLIC_IP, Authority, stage
from tests.guides.pages import LIMIT_S, free_port, run_page

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(LIMIT_S + 20)]


async def test_the_page_runs(tmp_path: Path) -> None:
    """From an empty list to a verified forward, every command does what the page says."""
    authority, behind = Authority(), free_port()

    async def front(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """End TLS, and pass on to the receiver, as a load balancer does."""
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", int(behind))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_pass_on(reader, inner_writer))
            tasks.create_task(_pass_on(inner_reader, writer))

    directory, commands = tmp_path / "empty", tmp_path / "bin"
    directory.mkdir()
    async with stage(authority) as outside:
        await outside.serve(front)
        world = {
            "names": {HOST: [PUBLIC_IP], "localhost": ["127.0.0.1"]},
            "ports": {f"{PUBLIC_IP}:443": outside.dialler.ports[PUBLIC_IP, 443]},
            "trust": authority.pem,
        }
        await asyncio.to_thread(
            run_page,
            DOCS / "guide" / "egress.md",
            directory,
            settings={
                "GUIDE_WORLD": str(_written(tmp_path, world)),
                "PYTHONPATH": str(ROOT),
                "SP_FORWARD_SECONDS": "60",  # this machine may be busy
            },
            commands=_with_world(commands),
            ports={"9000": behind},
        )


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until one side ends, and end the other."""
    with contextlib.suppress(OSError):  # a side that hangs up in the middle is one of the scenes
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()


def _written(directory: Path, world: object) -> Path:
    path = directory / "world.json"
    path.write_text(json.dumps(world))
    return path


def _with_world(directory: Path) -> Path:
    """Make a directory whose `signet` is the command in the world of the guide."""
    directory.mkdir()
    command = directory / "signet"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.guides.signet "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    return directory
