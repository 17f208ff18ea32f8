"""`signet egress check`: what would happen to a request, step by step, and why.

It goes as far as the handshake and sends nothing. What it prints names addresses; it is for the
operator, not for tenants.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, assert_never

from signet.app import egress_client
from signet.cli.arguments import new_command
from signet.cli.exits import CommandFailed, Exit
from signet.egress import (
    EgressClient,
    Indeterminate,
    LookupFailed,
    NotSent,
    NotSentCode,
    Policy,
    PolicyInvalid,
    Refused,
    Request,
    Responded,
    Target,
    TargetInvalid,
    Verdict,
    parse_target,
)
from signet.gateway.policies import read_list
from signet.settings import Settings, read_settings

if TYPE_CHECKING:
    from signet.cli.arguments import Subparsers


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of a request: what was found there, and whether it may go on."""

    stage: str
    passed: bool
    finding: str
    code: str | None = None


def add_parser(subparsers: Subparsers) -> None:
    """Add `egress` to the command's sub-commands."""
    parser = new_command(
        subparsers,
        "egress",
        line="explain whether a URL may be called, and why",
        description="Explain what would happen to a request and why: URL, list, names, addresses,"
        " connection and certificate. Nothing is sent. Exits 0 if the request would be sent,"
        " 1 if not.",
        examples="  signet egress check https://api.example.com/hook\n"
        "  signet egress check https://127.0.0.1/ --allow 127.0.0.1\n"
        "  signet egress check https://api.example.com/ --method PUT --offline",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = new_command(
        actions,
        "check",
        line="explain one URL",
        description="Explain what would happen to a request with the settings of this environment,"
        " up to the handshake. Nothing is sent. Exits 0 if it would be sent, 1 if not.",
    )
    check.add_argument("url", metavar="URL", help="where the request would go")
    check.add_argument(
        "--allow",
        action="append",
        metavar="ENTRY",
        help="judge by this entry instead of the lists in the settings; may be repeated",
    )
    check.add_argument("--method", default="POST", help="the request's method (default POST)")
    check.add_argument(
        "--size", type=int, default=0, metavar="BYTES", help="the size of its body (default 0)"
    )
    check.add_argument(
        "--content-type",
        default="application/json",
        metavar="TYPE",
        help="the type of its body (default application/json)",
    )
    check.add_argument("--offline", action="store_true", help="stop before any name is asked")
    check.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the steps; return 0 if the request would be sent."""
    settings = read_settings(os.environ).settings
    policy = _policy(settings, args.allow)
    request = Request(method=args.method, body_size=args.size, content_type=args.content_type)
    client = None if args.offline else egress_client(settings)
    steps = asyncio.run(_collect(args.url, policy, request, client))
    passed = all(step.passed for step in steps)
    if args.json:
        shown = {"url": args.url, "policy_hash": policy.hash, "would_send": passed}
        json.dump(shown | {"steps": list(map(asdict, steps))}, sys.stdout, indent=2)
        print()
        return Exit.DONE if passed else Exit.FAILED
    for step in steps:
        code = f" ({step.code})" if step.code else ""
        print(f"{'ok' if step.passed else 'NO':3} {step.stage:12}{step.finding}{code}")
    if not passed:
        print("The request would not be sent.")
    elif client is None:
        print("As far as can be told without the network, the request would be sent.")
    else:
        print("The request would be sent. Nothing was sent now.")
    return Exit.DONE if passed else Exit.FAILED


def _policy(settings: Settings, allow: list[str] | None) -> Policy:
    """Return the list that holds for every tenant, or the one from the command line."""
    egress = settings.egress
    entries = (*egress.allowlist, *egress.destinations) if allow is None else allow
    try:
        return read_list(entries, mode=egress.mode)
    except PolicyInvalid as error:
        exit_code = Exit.SETTINGS if allow is None else Exit.USAGE
        raise CommandFailed(str(error), exit_code) from error


async def _collect(
    url: str, policy: Policy, request: Request, client: EgressClient | None
) -> list[Step]:
    steps: list[Step] = []
    try:
        async for step in explain(url, policy, request, client):
            steps.append(step)
            if not step.passed:
                break
    finally:
        if client is not None:
            await client.aclose()
    return steps


async def explain(
    url: str, policy: Policy, request: Request, client: EgressClient | None
) -> AsyncIterator[Step]:
    """Yield the steps that a request would take; the first that does not pass is its end.

    Without a client it ends before any name is asked.
    """
    try:
        target = parse_target(url)
    except TargetInvalid as error:
        yield Step("URL", False, str(error), error.verdict.value)
        return
    yield Step("URL", True, f"{target.scheme}, host {target.host}, port {target.port}")
    yield _listed(target, policy, request)
    if client is None:
        return
    try:
        addresses = await client.look_up(target)
    except LookupFailed as error:
        yield Step("names", False, _NAMES[error.code], error.code.value)
        return
    if target.address is None:
        yield Step("names", True, f"{target.host} has {', '.join(map(str, addresses))}")
    for address in addresses:
        verdict = client.judge(address)
        passed = verdict is Verdict.OK
        yield Step("address", passed, f"{address} {_ADDRESSES[verdict]}", _code(verdict))
    yield await _connected(target, policy, request, client)


def _listed(target: Target, policy: Policy, request: Request) -> Step:
    decision = policy.decide(target, request)
    if decision.verdict is not Verdict.OK:
        reported = "; let pass in report mode" if decision.reported else ""
        finding = _LISTS[decision.verdict] + reported
        return Step("list", decision.allowed, finding, decision.verdict.value)
    entry = decision.destination
    assert entry is not None
    scheme = "http://" if entry.scheme == "http" else ""
    return Step("list", True, f"allowed by the entry {scheme}{entry.host}, port {entry.port}")


async def _connected(
    target: Target, policy: Policy, request: Request, client: EgressClient
) -> Step:
    """Do all that a request does up to its first byte, and stop there."""
    outcome = await client.send(
        target,
        bytes(request.body_size),
        {"Content-Type": request.content_type},
        policy,
        method=request.method,
        before_first_byte=lambda: False,
    )
    match outcome:
        case NotSent(code=NotSentCode.VETOED):
            proof = f"its certificate proves {target.host}" if target.scheme == "https" else "plain"
            return Step("connection", True, f"stands; {proof}")
        case NotSent():
            return Step("connection", False, _CONNECTIONS[outcome.code], outcome.code.value)
        case Refused():
            return Step("connection", False, "a rule said no", outcome.code.value)
        case Indeterminate() | Responded():
            raise AssertionError("nothing was to be sent")
        case _:
            assert_never(outcome)


def _code(verdict: Verdict) -> str | None:
    return None if verdict is Verdict.OK else verdict.value


_LISTS = {
    Verdict.HOST_NOT_ALLOWED: "no entry names this host and port",
    Verdict.SCHEME_NOT_HTTPS: "plain http, and no entry says http:// for this host",
    Verdict.METHOD_NOT_ALLOWED: "the entry for this host does not list the method",
    Verdict.PATH_NOT_ALLOWED: "the path is not under the prefix of the entry for this host",
    Verdict.CONTENT_TYPE_NOT_ALLOWED: "the entry for this host does not list the content type",
    Verdict.BODY_TOO_LARGE: "the body is larger than the entry for this host allows",
}

_ADDRESSES = {
    Verdict.OK: "is public",
    Verdict.RESOLVED_LOOPBACK: "leads back to this machine",
    Verdict.RESOLVED_PRIVATE: "is private",
    Verdict.RESOLVED_LINKLOCAL: "is link-local; cloud metadata lives there",
    Verdict.RESOLVED_RESERVED: "is reserved, special or no ordinary address",
}

_NAMES = {
    NotSentCode.NO_RESOLUTION: "the name does not exist or has no address",
    NotSentCode.RESOLUTION_FAILED: "the name servers gave no usable answer in time",
}

_CONNECTIONS = {
    NotSentCode.CONNECT_FAILED: "no address accepts a connection",
    NotSentCode.TLS_FAILED: "the server speaks no TLS that we speak (1.2 or newer)",
    NotSentCode.CERTIFICATE_INVALID: "the certificate does not prove the host",
    NotSentCode.DEADLINE: "the deadline passed first",
    **_NAMES,
}
