"""Chapter: a tenant's month, from its receipts to a signed statement and to what Stripe holds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Final

from signet.cli.demo import calls
from signet.cli.demo.account import ITEMS
from signet.cli.demo.stage import BILLED_TENANT, Answer, Stage
from signet.cli.exits import CommandFailed
from signet.receipts.verify import verify_statement

_TRACE: Final = "bakery-1"
_EXCHANGES: Final = 18
_EXPECTED: Final = {"reserve": 10, "tier 1": 5, "tier 2": 3}
_WAIT_S: Final = 120.0
_TICK_S: Final = 0.1


def tell(stage: Stage) -> None:
    """Use more than is reserved, close the month, verify its statement, and look at Stripe."""
    page = stage.page
    page.heading("5  A tenant's month")
    page.say(
        f"The tenant {BILLED_TENANT} has reserved 10 exchanges a month. The next 5 cost 0.50 USD"
        f" each, and every further one 0.30 USD. It makes {_EXCHANGES}."
    )
    for number in range(_EXCHANGES):
        body = calls.invoice(calls.INVOICE, _TRACE)
        stage.exchange(body, key=f"month-{number}", expect=200, api_key=stage.billed_key)
    period = _counted(stage)["period"]
    page.command(f"signet usage --tenant {BILLED_TENANT}")
    page.output(stage.run("usage", "--tenant", BILLED_TENANT))

    page.gap()
    page.say("The month is closed before its end, which an operator has to ask for.")
    close = ("billing", "close", "--tenant", BILLED_TENANT, "--period", period, "--early")
    page.command(f"signet {' '.join(close)}")
    page.output(stage.run(*close))
    statement = _statement(stage, period)
    page.command(f"signet verify statement.json --trust {stage.kid}")
    page.output(stage.run("verify", "statement.json", "--trust", stage.kid), "good")
    _lines(stage, statement, _receipts(stage, period, statement.body))


def _counted(stage: Stage) -> dict[str, Any]:
    """Wait until every receipt is counted; the gateway does that every few seconds."""

    def preview() -> dict[str, Any] | None:
        answer = stage.get("/v1/billing/preview", api_key=stage.billed_key, expect=None)
        counted = answer.status == 200 and answer.json["usage"]["vex"] == _EXCHANGES
        return answer.json if counted else None

    return _awaited(preview, "the receipts were not counted")


def _statement(stage: Stage, period: str) -> Answer:
    """Fetch the statement as the tenant does, and keep it beside the demo's other files."""
    path = f"/v1/billing/statements/{period}"
    answer = stage.get(path, api_key=stage.billed_key)
    stage.page.command(f"curl -H 'X-SIGNET-API-Key: ...' $SIGNET_URL{path} -o statement.json")
    (stage.directory / "statement.json").write_bytes(answer.body)
    return answer


def _receipts(stage: Stage, period: str, statement: bytes) -> int:
    """Hold the statement's lines against the list of their receipts; return how many there are."""
    answer = stage.get(f"/v1/billing/statements/{period}/receipts", api_key=stage.billed_key)
    listed = [json.loads(line) for line in answer.body.splitlines()]
    entries = [(e["meter"], e["tier"], e["receipt_hash"], e["units"]) for e in listed]
    verify_statement(statement, entries, trust=[stage.kid])
    return len(entries)


def _lines(stage: Stage, statement: Answer, receipts: int) -> None:
    """Tell what each line says, and what Stripe holds for it."""
    lines = statement.json["lines"]
    names = ["reserve" if line["tier"] == 0 else f"tier {line['tier']}" for line in lines]
    if dict(zip(names, (line["units"] for line in lines), strict=True)) != _EXPECTED:
        raise CommandFailed("the statement does not say what was used")
    held = _held(stage)
    rows = [
        (
            *(name, str(line["units"]), line["amount"], str(line["receipts"])),
            held.get(line["item"], "-"),
        )
        for name, line in zip(names, lines, strict=True)
    ]
    stage.page.table(("line", "units", "USD", "receipts", "Stripe holds"), rows)
    stage.page.gap()
    stage.page.say(
        f"Each line has a Merkle root over its receipts; the list of all {receipts} was fetched and"
        " held against them."
        + (
            " Stripe, a double on loopback, holds what the receipts say."
            if stage.account is not None
            else " Stripe is left out: pip install 'signet-protocol[stripe]'."
        )
    )


def _held(stage: Stage) -> dict[str, str]:
    """Wait until Stripe holds the overage of both tiers; nothing where there is no Stripe."""
    account = stage.account
    if account is None:
        return {}
    wanted = {ITEMS[0]: _EXPECTED["tier 1"], ITEMS[1]: _EXPECTED["tier 2"]}

    def held() -> dict[str, str] | None:
        found = {item: account.held(item) for item in ITEMS}
        return {i: f"{n} units" for i, n in found.items()} if found == wanted else None

    return _awaited(held, "Stripe does not hold what the receipts say")


def _awaited(look: Callable[[], dict[str, Any] | None], failed: str) -> dict[str, Any]:
    end = time.monotonic() + _WAIT_S
    while time.monotonic() < end:
        found = look()
        if found is not None:
            return found
        time.sleep(_TICK_S)
    raise CommandFailed(failed)
