"""Chapter: a charge whose answer is lost happens once; a name that leads inside leads nowhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from signet.cli.demo import calls
from signet.cli.demo.outside import METADATA, SHOP, TRAP, open_outside
from signet.cli.demo.stage import Answer, Stage
from signet.cli.exits import CommandFailed

_TRACE: Final = "demo-2"


def tell(stage: Stage) -> None:
    """Forward a charge whose answer is lost, retry it, and try to reach the metadata service."""
    page = stage.page
    page.heading("3  Sent at most once, and only outside")
    page.say(
        "The result is forwarded. The payment service charges and then loses its answer; the agent"
        " does what agents do, and asks again with the same key."
    )
    with open_outside(stage.directory / "outside") as outside:
        there = replace(stage, address=outside.address, api_key=outside.api_key)
        charge = calls.invoice(calls.INVOICE, _TRACE) | {"forward_url": f"https://{SHOP}/charges"}
        first = there.exchange(charge, key="charge", expect=504)
        second = there.exchange(charge, key="charge", expect=504)
        if outside.charges != 1 or second.body != first.body:
            raise CommandFailed(f"a retried charge was charged {outside.charges} times")
        inside = calls.invoice(calls.INVOICE, _TRACE) | {"forward_url": f"https://{TRAP}/latest"}
        refused = there.exchange(inside, key="inside", expect=403)
        if outside.connections != 1:
            raise CommandFailed("a name that leads inside was connected to")
    rows = [
        ("a charge, its answer lost", "504", first.receipt, _told(first)),
        ("the agent's retry", "504", second.receipt, "the same answer; the service charged once"),
        (f"a name for {METADATA}", "403", refused.receipt, _told(refused)),
    ]
    page.table(("what was sent", "HTTP", "receipt", "what happened"), rows)


def _told(answer: Answer) -> str:
    problem = answer.json
    reason, detail = problem["reason"], problem["detail"]
    told = detail if reason in detail else f"{reason}: {detail}"
    return f"{told} (retry: {problem['retry']})"
