"""Chapter: retries happen once, mistakes are told with their place, nothing is guessed."""

from __future__ import annotations

import json
from typing import Final

from signet.cli.demo import calls
from signet.cli.demo.exact import TRACE
from signet.cli.demo.stage import Answer, Stage
from signet.cli.exits import CommandFailed

_LOOSE: Final = (
    "```json\n{'invoice_id': 'INV-2042', 'amount': 90.10, 'currency': 'EUR',"
    " 'customer_name': 'O\\'Neil', }\n```"
)
_CUT_OFF: Final = '{"invoice_id": "INV-2043", "currency": "EUR", "customer_name": "X", "amount": 12'

_SHORT: Final = 60  # from here on a reason is told without the steps that led to it


def tell(stage: Stage) -> None:
    """Do what agents do wrong, and tell what the gateway made of it."""
    page = stage.page
    page.heading("2  Once only, and never guessed")
    page.say(
        "What agents do when the network or the model has a bad day. A refused call has a receipt"
        " too, as soon as its idempotency key was accepted."
    )
    rows = [
        _retried(stage),
        _changed(stage),
        _loose(stage),
        _refused(stage, "cut off inside a number", _CUT_OFF),
        _refused(stage, "no currency", _without(calls.INVOICE, "currency")),
        _refused(stage, "10.005 EUR", calls.INVOICE | {"amount": 10.005}),
        _refused(stage, "amount of 1e999990", '{"amount": 1e999990}'),
        _not_json(stage),
        _stranger(stage),
    ]
    page.table(("what was sent", "HTTP", "receipt", "what happened"), rows)


def _retried(stage: Stage) -> tuple[str, ...]:
    body = calls.invoice(calls.INVOICE, TRACE)
    first = stage.exchange(body, key="retry", expect=200)
    second = stage.exchange(body, key="retry", expect=200)
    if first.body != second.body or second.headers.get("X-SIGNET-Idempotency-Hit") != "1":
        raise CommandFailed("a retry was not answered with the first answer")
    said = "the first answer, byte for byte: one effect, one receipt"
    return "a call and its retry", "200", second.receipt, said


def _changed(stage: Stage) -> tuple[str, ...]:
    body = calls.invoice(calls.INVOICE | {"amount": 9999}, TRACE)
    answer = stage.exchange(body, key="retry", expect=422)
    return "its key, other amount", "422", answer.receipt, _told(answer)


def _loose(stage: Stage) -> tuple[str, ...]:
    answer = stage.exchange(calls.invoice(_LOOSE, TRACE), key="loose", expect=200)
    repair = answer.json["receipt"]["repair"]
    edits = f"{sum(len(text['edits']) for text in repair['texts'])} edits"
    said = f"repaired, {repair['grade']}: {edits} in the receipt, no value changed"
    return "single quotes, code fence", "200", answer.receipt, said


def _refused(stage: Stage, label: str, arguments: calls.Document | str) -> tuple[str, ...]:
    body = calls.invoice(arguments, TRACE)
    answer = stage.exchange(body, key=label.replace(" ", "-"), expect=422)
    return label, "422", answer.receipt, _told(answer)


def _not_json(stage: Stage) -> tuple[str, ...]:
    body = json.dumps(calls.invoice(calls.INVOICE, TRACE)).encode()[:-1]
    answer = stage.exchange(body + b', "trace_id": "two"}', key="twice", expect=400)
    return "a member given twice", "400", answer.receipt, _told(answer)


def _stranger(stage: Stage) -> tuple[str, ...]:
    body = calls.invoice(calls.INVOICE, TRACE)
    answer = stage.exchange(body, key="stranger", api_key="guessed", expect=401)
    return "an unknown API key", "401", answer.receipt, _told(answer)


def _told(answer: Answer) -> str:
    """What the problem says: its code, the place of the first fault, and what is wrong there."""
    problem = answer.json
    if not problem.get("faults"):
        return f"{problem['code']}: {problem['detail']}"
    fault = problem["faults"][0]
    detail: str = fault["detail"]
    reason = detail.removesuffix(".") if len(detail) < _SHORT else detail.rpartition("; ")[2]
    return f"{problem['code']} at {fault['pointer'] or '/'}: {reason}"


def _without(document: calls.Document, name: str) -> calls.Document:
    return {member: value for member, value in document.items() if member != name}
