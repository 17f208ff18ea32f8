"""`signet demo`: the whole job, for real, in a scratch directory, in less than a minute.

A gateway is started as its own process (`signet serve` on SQLite and a free port); the chapters
send it real calls over HTTP and print what came back. Every claim is checked while it is made: a
demo that cannot show something ends with exit code 1.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NoReturn

from signet.cli.arguments import new_command
from signet.cli.demo import exact, forward, mistakes, month, proof
from signet.cli.demo.page import Page
from signet.cli.demo.stage import Stage, open_stage
from signet.cli.exits import Exit

if TYPE_CHECKING:
    from signet.cli.arguments import Subparsers

CHAPTERS: Final[Sequence[Callable[[Stage], None]]] = (
    exact.tell,
    mistakes.tell,
    forward.tell,
    proof.tell,
    month.tell,
)

_NEXT: Final = """signet keys generate          a signing key to keep
signet serve                  the gateway, on http://127.0.0.1:8088
signet repair FILE            repair a broken tool call, and see each edit
signet egress check URL       see whether a URL may be called, and why
docs/guide/first-exchange.md  the same with curl, step by step"""


def add_parser(subparsers: Subparsers) -> None:
    """Add `demo` to the command's sub-commands."""
    new_command(
        subparsers,
        "demo",
        line="see the whole job done",
        description="Start a gateway in a scratch directory, send it tool calls as OpenAI,"
        " Anthropic and MCP clients emit them, retry, break, forward and forge them,"
        " close a tenant's month, and print what happened to each. Nothing is left behind.",
    )


def run(_args: argparse.Namespace) -> int:
    """Play every chapter."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    started = time.monotonic()
    page = Page(sys.stdout)
    page.say("Starting a gateway: SQLite, a free port, a scratch directory.", "dim")
    with open_stage(page) as stage:
        for chapter in CHAPTERS:
            chapter(stage)
    page.heading("Next")
    page.output(_NEXT)
    page.gap()
    page.say(f"Done in {time.monotonic() - started:.1f} s. Nothing is left behind.", "dim")
    return Exit.DONE


def _interrupt(_number: int, _frame: object) -> NoReturn:
    """End as Ctrl-C does, so that the scratch directory and the gateway go away."""
    raise KeyboardInterrupt
