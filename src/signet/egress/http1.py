"""HTTP/1.1 without I/O (RFC 9112): the bytes of a request, and a reader of one response.

The reader is fed plaintext as it comes, holds every limit, and never buffers what it was not asked
to keep. Parsing is llhttp's, in its strict mode; what llhttp leaves open is decided here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Final

import httptools

from signet.egress.errors import RequestInvalid
from signet.egress.limits import Limits
from signet.egress.outcome import IndeterminateCode
from signet.egress.policy import METHODS
from signet.egress.target import Target

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?|")
_MAX_REQUEST_HEAD: Final = 32 * 1024

# What decides framing, routing or the life of the connection is the client's alone.
_RESERVED_FIELDS: Final = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def request_bytes(method: str, target: Target, headers: Mapping[str, str], body: bytes) -> bytes:
    """Return a whole request. Raises `RequestInvalid` for a method or field it will not send."""
    if method not in METHODS:
        raise RequestInvalid(f"method {method!r} is not one of {', '.join(sorted(METHODS))}")
    lines = [
        f"{method} {target.request_target} HTTP/1.1",
        f"Host: {target.authority}",
        "Accept-Encoding: identity",
    ]
    names = {"accept-encoding", "host"}
    for name, value in headers.items():
        folded = name.lower()
        if folded in _RESERVED_FIELDS or not _TOKEN.fullmatch(name):
            raise RequestInvalid(f"header {name!r} may not be set")
        if folded in names:
            raise RequestInvalid(f"header {name!r} is given twice")
        # No CR, LF or NUL (RFC 9110 §5.5): they would end the field and begin another.
        if not _FIELD_VALUE.fullmatch(value):
            raise RequestInvalid(f"the value of header {name!r} contains a forbidden character")
        names.add(folded)
        lines.append(f"{name}: {value}")
    if "user-agent" not in names:
        lines.append("User-Agent: signet-egress")
    if body or method in {"PATCH", "POST", "PUT"}:
        if "content-type" not in names:
            lines.append("Content-Type: application/json")
        lines.append(f"Content-Length: {len(body)}")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")
    if len(head) > _MAX_REQUEST_HEAD:
        raise RequestInvalid("the headers are too large")
    return head + body


_OPENING: Final = b"HTTP/"


class ResponseReader:
    """Reads the one response of one request.

    Feed it until `finished`; then either `failure` says what was wrong or the response is whole.
    `reusable` tells whether the connection may carry another request.
    """

    def __init__(self, limits: Limits, *, keep_body: bool = False) -> None:
        self._limits = limits
        self._parser = httptools.HttpResponseParser(self)
        self._head_bytes = 0
        self._opening = b""
        self._until_close = False
        self._head_done = False
        self._length: bytes | None = None
        self._coding: bytes | None = None
        self._kept: list[bytes] | None = [] if keep_body else None
        self._hash = hashlib.sha256()
        self.started = False
        self.finished = False
        self.failure: IndeterminateCode | None = None
        self.reusable = False
        self.status: int | None = None
        self.body_size = 0
        self.content_type: str | None = None
        self.retry_after: str | None = None

    @property
    def body_hash(self) -> str:
        """ "sha256:" and the hash of the body read so far."""
        return "sha256:" + self._hash.hexdigest()

    @property
    def body(self) -> bytes | None:
        """The body, if it was to be kept."""
        return None if self._kept is None else b"".join(self._kept)

    def feed(self, data: bytes) -> None:
        """Read the next bytes of the connection."""
        if self.finished:
            self.reusable = False  # bytes nobody asked for must not become the next answer
            return
        self.started = True
        # llhttp takes RTSP for HTTP.
        self._opening += data[: len(_OPENING) - len(self._opening)]
        if not _OPENING.startswith(self._opening):
            self._fail(IndeterminateCode.MALFORMED)
            return
        view = memoryview(data)
        while view and not self.finished:
            if self._head_done:
                piece, view = view, view[:0]
            else:
                # Heads of interim responses count too: a peer may send any number of them.
                room = self._limits.max_head - self._head_bytes
                if room <= 0:
                    self._fail(IndeterminateCode.HEAD_TOO_LARGE)
                    return
                piece, view = view[:room], view[room:]
                self._head_bytes += len(piece)
            self._parse(piece)
        if view:
            self.reusable = False

    def feed_eof(self, *, clean: bool) -> None:
        """Note the end of the stream; `clean` if TLS said so itself (close_notify).

        Without that a body that lasts until the end may have been cut by anyone (RFC 9112 §9.8).
        """
        if self.finished:
            self.reusable = False
        elif self._head_done and self._until_close and clean:
            self._complete(reusable=False)
        elif self.started:
            self._fail(IndeterminateCode.TRUNCATED)
        else:
            self._fail(IndeterminateCode.CONNECTION_LOST)

    def fail(self, code: IndeterminateCode) -> None:
        """Give up for a reason that lies below HTTP."""
        if not self.finished:
            self._fail(code)

    def _parse(self, piece: memoryview) -> None:
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            self.fail(IndeterminateCode.UPGRADE_REFUSED)
        except httptools.HttpParserError:
            # After the end of a response llhttp may stumble over what follows; `fail` knows.
            self.fail(IndeterminateCode.MALFORMED)

    def _fail(self, code: IndeterminateCode) -> None:
        self.finished, self.reusable, self.failure = True, False, code

    def _complete(self, *, reusable: bool) -> None:
        self.finished, self.reusable = True, reusable

    # What llhttp calls. An exception stops the parser, and `_parse` finds `failure` set.

    def on_message_begin(self) -> None:
        if self.finished:
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_done:
            return  # a trailer; nothing here depends on any
        folded = name.lower()
        if folded == b"content-length":
            self._length = value
        elif folded == b"transfer-encoding":
            if self._coding is not None or value.lower() != b"chunked":
                self._stop(IndeterminateCode.CODING_REFUSED)
            self._coding = value
        elif folded == b"content-encoding":
            if value.lower() not in (b"", b"identity"):
                self._stop(IndeterminateCode.CODING_REFUSED)
        elif folded == b"content-type":
            self.content_type = value.decode("latin-1")
        elif folded == b"retry-after":
            self.retry_after = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self.finished:
            return
        # Another version frames its messages in another way (RFC 9112 §2.3).
        if self._parser.get_http_version() not in ("1.0", "1.1"):
            self._stop(IndeterminateCode.MALFORMED)
        status = self._parser.get_status_code()
        if status == 101:
            self._stop(IndeterminateCode.UPGRADE_REFUSED)
        if status < 200:
            self._length = self._coding = self.content_type = self.retry_after = None
            return
        self.status = status
        self._head_done = True
        if self._length is not None:
            # llhttp has seen to it that the length is one number, once, and without chunks beside
            # it (RFC 9112 §6.3); Content-Length is checked before any body is read.
            if int(self._length) > self._limits.max_body:
                self._stop(IndeterminateCode.BODY_TOO_LARGE)
        elif self._coding is None and status not in (204, 304):
            self._until_close = True

    def on_body(self, body: bytes) -> None:
        if self.finished:
            return
        self.body_size += len(body)
        if self.body_size > self._limits.max_body:
            self._stop(IndeterminateCode.BODY_TOO_LARGE)
        self._hash.update(body)
        if self._kept is not None:
            self._kept.append(body)

    def on_message_complete(self) -> None:
        if self._head_done and not self.finished:
            self._complete(reusable=self._parser.should_keep_alive())

    def _stop(self, code: IndeterminateCode) -> None:
        self.fail(code)
        raise _Stop


class _Stop(Exception):
    """Ends llhttp's work on this connection."""
