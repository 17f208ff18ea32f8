"""`signet export`: a trace's signed receipts from a gateway into a file, whole or not at all.

The body goes to a file beside the wanted one while its digest is computed; only when that is the
digest which the gateway declared (`Content-Digest`, RFC 9530) does it take the wanted name.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import http.client
import json
import os
import re
import tempfile
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from signet.cli.arguments import new_command
from signet.cli.asking import KEY_VARIABLE, add_gateway_options, api_key_of, connect
from signet.cli.exits import CommandFailed, Exit
from signet.cli.terminal import Progress, bytes_text
from signet.core.ids import TRACE_ID

if TYPE_CHECKING:
    from signet.cli.arguments import Subparsers

_CHUNK: Final = 1 << 16
_TIMEOUT_S: Final = 30.0
_DIGEST: Final = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/=]+):")


def add_parser(subparsers: Subparsers) -> None:
    """Add `export` to the command's sub-commands."""
    parser = new_command(
        subparsers,
        "export",
        line="fetch the signed receipts of a trace",
        description="Fetch a trace as a signed bundle that `signet verify` checks offline. The"
        " file appears only when it is whole and its Content-Digest is right.",
        examples=f"""  {KEY_VARIABLE}=a-secret-key signet export order-4711
  signet export order-4711 --url https://signet.example --out order.json""",
    )
    parser.add_argument("trace", metavar="TRACE", help="the trace's id")
    add_gateway_options(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="where to put it (default: TRACE.bundle.json)"
    )


def run(args: argparse.Namespace) -> int:
    """Fetch the bundle; say where it is and which key signed it."""
    trace: str = args.trace
    if not TRACE_ID.fullmatch(trace):
        raise CommandFailed("a trace id is 1-128 of A-Z a-z 0-9 . _ : -", Exit.USAGE)
    api_key = api_key_of(args)
    out: Path = args.out or Path(f"{trace}.bundle.json")
    connection, prefix = connect(args.url)
    with closing(connection), Progress(f"export {trace}") as progress:
        with _answering(args.url):
            path = f"{prefix}/v1/receipts/export/{trace}"
            connection.request("GET", path, headers={"X-SIGNET-API-Key": api_key})
            response = connection.getresponse()
            if response.status != 200:
                raise _refused(response, args.url)
        size = _save(response, args.url, out, progress)
    kid = response.headers.get("X-SIGNET-Response-KID", "")
    print(f"{out}: {bytes_text(size)}, signed by {kid}")
    return Exit.DONE


@contextmanager
def _answering(url: str) -> Generator[None]:
    """Say plainly that the gateway does not answer, or stopped in the middle."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise CommandFailed(f"no answer from {url}: {said}", Exit.UNAVAILABLE) from error


def _refused(response: http.client.HTTPResponse, url: str) -> CommandFailed:
    """What the gateway said, where it is one that says it (RFC 9457)."""
    try:
        problem = json.loads(response.read(_CHUNK))
        said = f"{problem['title']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        said = f"{url} is not a gateway"
    return CommandFailed(f"{response.status} {said}")


def _save(response: http.client.HTTPResponse, url: str, out: Path, progress: Progress) -> int:
    """Write the body to `out`, checked and durable, or leave nothing; return its size."""
    declared = _DIGEST.search(response.headers.get("Content-Digest", ""))
    if declared is None:
        raise CommandFailed("the answer has no Content-Digest with sha-256, so it was not kept")
    digest = hashlib.sha256()
    size = 0
    with appearing(out) as file:
        while chunk := _read(response, url):
            digest.update(chunk)
            file.write(chunk)
            size += len(chunk)
            progress.show(bytes_text(size))
        if base64.b64encode(digest.digest()).decode() != declared[1]:
            detail = f"what arrived ({bytes_text(size)}) is not what was sent: wrong Content-Digest"
            raise CommandFailed(detail)
    return size


def _read(response: http.client.HTTPResponse, url: str) -> bytes:
    with _answering(url):
        return response.read(_CHUNK)


@contextmanager
def appearing(out: Path) -> Generator[IO[bytes]]:
    """Yield a file that takes the name `out` at the end of the block, and is gone if that fails."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(descriptor)
            Path(name).replace(out)
        except BaseException:
            with suppress(FileNotFoundError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise CommandFailed(f"{out}: {error.strerror}") from error
