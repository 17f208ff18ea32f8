"""Serve a loopback Stripe to other processes: prints its URL, and ends when its input does.

    python -m tests.stripe_double --now SECONDS [--latency S] [--faults SEED | --plan FAULT,…]

The account has a customer `cus_acme` and an item of each kind and tier: `si_window_t1`, ….
`GET /_double` tells what it holds, and how often two calls collided.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from random import Random  # noqa: TID251 - a seeded schedule of faults
from typing import cast, get_args

from signet.cli.demo.stripe_double.ledger import Ledger, Request, Response
from signet.cli.demo.stripe_double.server import Fault, StripeDouble

PASSING: tuple[Fault, ...] = ("lost", "cut", "reset", "500", "500_taken", "503", "429", "409")


class Told(StripeDouble):
    """A double that also tells what it holds."""

    def _answer(self, request: Request, fault: Fault | None) -> Response:
        if request.path != "/_double":
            return super()._answer(request, fault)
        meters = [id for id, o in self.ledger.objects.items() if o["object"] == "billing.meter"]
        legacy = [id for id in self.ledger.objects if id.startswith("si_legacy")]
        held = {id: self.ledger.units("cus_acme", id) for id in [*meters, *legacy]}
        body = {
            "held": held,
            "collisions": self.ledger.collisions,
            "events": len(self.ledger.events),
        }
        return Response(status=200, body=json.dumps(body).encode())


def account(now_s: int, tenants: int = 1) -> Ledger:
    """An account with an item of each kind and tier."""
    ledger = Ledger(lambda: now_s)
    for kind in ("window", "sum", "legacy"):
        for tier, cents in (("t1", "0.8"), ("t2", "0.6"), ("fu", "0.05")):
            name = f"{kind}_{tier}"
            meter = None
            if kind != "legacy":
                meter = ledger.add_meter(name, window="hour" if kind == "window" else None)
            price = ledger.add_price(name, cents=cents, meter=meter)
            ledger.add_item(name, price=price, customer="cus_acme")
            for number in range(1, tenants):
                ledger.add_item(f"{name}_{number}", price=price, customer=f"cus_{number}")
    return ledger


async def serve(args: argparse.Namespace) -> None:
    """Serve until the input ends."""
    double = Told(account(args.now, args.tenants))
    double.latency_s = args.latency
    double.plan.extend(args.plan)
    if args.faults is not None:
        dice = Random(args.faults)

        def now_and_then(request: Request) -> Fault | None:
            if request.method != "POST" or dice.random() > 0.2:
                return None
            return dice.choice(PASSING)

        double.faults = now_and_then
    async with double.serving():
        print(double.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


def planned(text: str) -> tuple[Fault, ...]:
    """What becomes of the first usage calls, one after the other."""
    unknown = set(text.split(",")) - set(PASSING)
    if unknown:
        raise argparse.ArgumentTypeError(f"no passing fault: {', '.join(sorted(unknown))}")
    return cast(tuple[Fault, ...], tuple(text.split(",")))


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--now", type=int, required=True)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--faults", type=int)
    parser.add_argument("--plan", type=planned, default=())
    parser.add_argument("--tenants", type=int, default=1)
    assert set(PASSING) <= set(cast(tuple[str, ...], get_args(Fault)))
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
