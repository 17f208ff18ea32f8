"""Asking a gateway over HTTP with an API key, and saying plainly what it answered."""

from __future__ import annotations

import argparse
import http.client
import json
import os
from collections.abc import Mapping
from contextlib import closing
from typing import Any, Final, cast
from urllib.parse import urlsplit

from signet.cli.exits import CommandFailed, Exit
from signet.core.errors import Fault

KEY_VARIABLE: Final = "SIGNET_API_KEY"
URL_VARIABLE: Final = "SIGNET_URL"
DEFAULT_URL: Final = "http://127.0.0.1:8088"
_TIMEOUT_S: Final = 30.0
_MAX_ANSWER_BYTES: Final = 64 << 20


def add_gateway_options(parser: argparse.ArgumentParser) -> None:
    """Add `--url` and `--api-key`, as every command that asks a gateway has them."""
    parser.add_argument(
        "--url",
        default=os.environ.get(URL_VARIABLE, DEFAULT_URL),
        help=f"the gateway; otherwise ${URL_VARIABLE}, or {DEFAULT_URL}",
    )
    parser.add_argument(
        "--api-key",
        metavar="KEY",
        help=f"better given as ${KEY_VARIABLE}: other users see command lines",
    )


def api_key_of(args: argparse.Namespace) -> str:
    """Return the key that was given; raise `CommandFailed` where there is none."""
    api_key: str | None = args.api_key or os.environ.get(KEY_VARIABLE)
    if not api_key or not api_key.isascii() or not api_key.isprintable():
        raise CommandFailed(f"set {KEY_VARIABLE} to an API key of the tenant", Exit.USAGE)
    return api_key


def ask(
    args: argparse.Namespace, method: str, path: str, body: bytes | None = None
) -> Mapping[str, Any]:
    """Return the JSON object that the gateway answers; raise `CommandFailed` with what it refuses.

    The faults of a problem are those of the error, each by its JSON Pointer.
    """
    headers = {"X-SIGNET-API-Key": api_key_of(args)}
    if body is not None:
        headers["Content-Type"] = "application/json"
    connection, prefix = connect(args.url)
    try:
        with closing(connection):
            connection.request(method, prefix + path, body, headers)
            response = connection.getresponse()
            status, text = response.status, response.read(_MAX_ANSWER_BYTES)
    except (OSError, http.client.HTTPException) as error:
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise CommandFailed(f"no answer from {args.url}: {said}", Exit.UNAVAILABLE) from error
    try:
        answer = json.loads(text)
        if status < 300 and isinstance(answer, dict):
            return cast("dict[str, Any]", answer)
        title, detail = answer["title"], answer["detail"]
        faults = tuple(
            Fault(pointer=f["pointer"], code=f["code"], detail=f["detail"])
            for f in answer.get("faults", ())
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CommandFailed(f"{args.url} is not a gateway ({status})") from error
    raise CommandFailed(f"{status} {title}: {detail}", faults=faults)


def connect(url: str) -> tuple[http.client.HTTPConnection, str]:
    """Return a connection, not yet made, and the path prefix."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise CommandFailed(f"--url: {error}", Exit.USAGE) from error
    if parts.scheme not in ("http", "https") or host is None or parts.username is not None:
        raise CommandFailed(f"--url must be a URL like {DEFAULT_URL}", Exit.USAGE)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(host, port, timeout=_TIMEOUT_S), parts.path.rstrip("/")
