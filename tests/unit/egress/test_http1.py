"""One request as bytes, one response read strictly, without a socket."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signet.egress.errors import RequestInvalid
from signet.egress.http1 import ResponseReader, request_bytes
from signet.egress.limits import Limits
from signet.egress.outcome import IndeterminateCode
from signet.egress.target import parse_target

TARGET = parse_target("https://api.example.com/hook?x=1")
LIMITS = Limits(max_head=200, max_body=100)
HEAD = b"HTTP/1.1 200 OK\r\n"


def read(data: bytes, *, size: int = 1 << 20, eof: bool | None = None) -> ResponseReader:
    """Feed `data` in pieces of `size`; then end the stream, cleanly or not, unless None."""
    reader = ResponseReader(LIMITS, keep_body=True)
    for start in range(0, len(data), size):
        reader.feed(data[start : start + size])
    if eof is not None:
        reader.feed_eof(clean=eof)
    return reader


WHOLE = {
    "length": (HEAD + b"Content-Length: 5\r\n\r\nhello", 200, b"hello", True),
    "empty": (HEAD + b"Content-Length: 0\r\n\r\n", 200, b"", True),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\n\r\n", 304, b"", True),
    "redirect": (
        b"HTTP/1.1 302 Found\r\nLocation: https://x/\r\nContent-Length: 0\r\n\r\n",
        302,
        b"",
        True,
    ),
    "server error": (b"HTTP/1.1 500 No\r\nContent-Length: 1\r\n\r\nx", 500, b"x", True),
    "chunked": (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
        200,
        b"hello",
        True,
    ),
    "chunked, upper case": (
        HEAD + b"transfer-encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        200,
        b"hello",
        True,
    ),
    "trailers": (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\n\r\n",
        200,
        b"a",
        True,
    ),
    "chunk extension": (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;a=b\r\na\r\n0\r\n\r\n",
        200,
        b"a",
        True,
    ),
    "interim": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        + HEAD
        + b"Content-Length: 1\r\n\r\na",
        200,
        b"a",
        True,
    ),
    "closing": (HEAD + b"Connection: close\r\nContent-Length: 1\r\n\r\na", 200, b"a", False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", 200, b"a", False),
    "identity": (
        HEAD + b"Content-Encoding: identity\r\nContent-Length: 1\r\n\r\na",
        200,
        b"a",
        True,
    ),
    "exactly the limit": (
        HEAD + b"Content-Length: 100\r\n\r\n" + b"a" * 100,
        200,
        b"a" * 100,
        True,
    ),
    "no reason phrase": (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, b"", True),
}


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("name", WHOLE)
def test_whole_responses_are_read_however_they_are_cut(name: str, size: int) -> None:
    """Status, body, hash and reuse do not depend on how the bytes arrive."""
    data, status, body, reusable = WHOLE[name]
    reader = read(data, size=size)
    assert reader.finished
    assert reader.failure is None
    assert (reader.status, reader.body, reader.reusable) == (status, body, reusable)
    assert reader.body_size == len(body)
    assert reader.body_hash == "sha256:" + hashlib.sha256(body).hexdigest()


C = IndeterminateCode
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
BROKEN = {
    "not HTTP": (b"SSH-2.0-OpenSSH_9\r\n", C.MALFORMED),
    "HTTP/0.9": (b"hello", C.MALFORMED),
    "HTTP/2 preface": (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", C.MALFORMED),
    "HTTP/0.9 by name": (b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n", C.MALFORMED),
    "HTTP/2.0": (b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", C.MALFORMED),
    "HTTP/2.0 after an interim response": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        C.MALFORMED,
    ),
    "RTSP": (b"RTSP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", C.MALFORMED),
    "a line before the head": (b"\r\n" + HEAD + b"Content-Length: 0\r\n\r\n", C.MALFORMED),
    "HTTP/3.0": (b"HTTP/3.0 200 OK\r\n\r\n", C.MALFORMED),
    "a request": (b"GET / HTTP/1.1\r\n\r\n", C.MALFORMED),
    "status of two digits": (b"HTTP/1.1 20 OK\r\n\r\n", C.MALFORMED),
    "status of four digits": (b"HTTP/1.1 2000 OK\r\n\r\n", C.MALFORMED),
    "bare line feeds in the head": (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", C.MALFORMED),
    "a space before the colon": (HEAD + b"Content-Length : 1\r\n\r\na", C.MALFORMED),
    "a NUL in a field": (HEAD + b"X: a\0b\r\n\r\n", C.MALFORMED),
    "a folded field": (HEAD + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n", C.MALFORMED),
    "a length among the trailers": (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 9\r\n\r\n",
        C.MALFORMED,
    ),
    "a field without name": (HEAD + b": x\r\n\r\n", C.MALFORMED),
    "a space in a field name": (HEAD + b"X Y: 1\r\n\r\n", C.MALFORMED),
    "negative length": (HEAD + b"Content-Length: -1\r\n\r\n", C.MALFORMED),
    "signed length": (HEAD + b"Content-Length: +1\r\n\r\na", C.MALFORMED),
    "hexadecimal length": (HEAD + b"Content-Length: 0x1\r\n\r\na", C.MALFORMED),
    "length of two values": (HEAD + b"Content-Length: 1, 1\r\n\r\na", C.MALFORMED),
    "two lengths": (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", C.MALFORMED),
    "empty length": (HEAD + b"Content-Length: \r\n\r\n", C.MALFORMED),
    "length over 64 bits": (HEAD + b"Content-Length: 99999999999999999999\r\n\r\n", C.MALFORMED),
    "length and chunked": (
        HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        C.MALFORMED,
    ),
    "chunked and length": (
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n1\r\na\r\n0\r\n\r\n",
        C.MALFORMED,
    ),
    "length over the limit": (HEAD + b"Content-Length: 101\r\n\r\n", C.BODY_TOO_LARGE),
    "length far over the limit": (
        HEAD + b"Content-Length: 9999999999999999\r\n\r\n",
        C.BODY_TOO_LARGE,
    ),
    "chunks over the limit": (
        CHUNKED + b"64\r\n" + b"a" * 100 + b"\r\n1\r\na\r\n",
        C.BODY_TOO_LARGE,
    ),
    "one huge chunk": (CHUNKED + b"ffffff\r\n" + b"a" * 101, C.BODY_TOO_LARGE),
    "until close over the limit": (HEAD + b"\r\n" + b"a" * 101, C.BODY_TOO_LARGE),
    "chunk size is no number": (CHUNKED + b"xyz\r\n", C.MALFORMED),
    "negative chunk size": (CHUNKED + b"-1\r\n", C.MALFORMED),
    "chunk size with prefix": (CHUNKED + b"0x1\r\na\r\n", C.MALFORMED),
    "chunk size over 64 bits": (CHUNKED + b"fffffffffffffffff\r\n", C.MALFORMED),
    "chunk without its end": (CHUNKED + b"1\r\nab\r\n0\r\n\r\n", C.MALFORMED),
    "bare line feed after a chunk": (CHUNKED + b"1\na\n0\n\n", C.MALFORMED),
    "gzip": (HEAD + b"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\n", C.CODING_REFUSED),
    "brotli": (HEAD + b"Content-Encoding: br\r\nContent-Length: 9\r\n\r\n", C.CODING_REFUSED),
    "two codings": (
        HEAD + b"Content-Encoding: identity, gzip\r\nContent-Length: 9\r\n\r\n",
        C.CODING_REFUSED,
    ),
    "gzip as transfer coding": (
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        C.CODING_REFUSED,
    ),
    "unknown transfer coding": (HEAD + b"Transfer-Encoding: x\r\n\r\n", C.CODING_REFUSED),
    "chunked twice": (
        HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        C.CODING_REFUSED,
    ),
    "upgrade nobody asked for": (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\nx",
        C.UPGRADE_REFUSED,
    ),
    "bare 101": (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", C.UPGRADE_REFUSED),
    "a head over the limit": (HEAD + b"X: " + b"a" * 300, C.HEAD_TOO_LARGE),
    "many small fields": (HEAD + b"a: b\r\n" * 50, C.HEAD_TOO_LARGE),
    "endless interim responses": (b"HTTP/1.1 100 Continue\r\n\r\n" * 20, C.HEAD_TOO_LARGE),
    "an endless reason phrase": (b"HTTP/1.1 200 " + b"a" * 300, C.HEAD_TOO_LARGE),
}


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_responses_fail_however_they_are_cut(name: str, size: int) -> None:
    """Each fault ends the reading at once, with its own code, and the connection with it."""
    data, code = BROKEN[name]
    reader = read(data, size=size)
    assert (reader.finished, reader.failure, reader.reusable) == (True, code, False)


@pytest.mark.parametrize("clean", [True, False])
def test_a_body_until_close_counts_only_after_a_clean_end(clean: bool) -> None:
    """Without close_notify anyone may have cut it (RFC 9112 §9.8)."""
    reader = read(HEAD + b"\r\nhello", eof=clean)
    assert reader.failure is (None if clean else C.TRUNCATED)
    assert (reader.status, reader.body, reader.reusable) == (200, b"hello", False)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.",
        HEAD,
        HEAD + b"Content-Length: 5\r\n\r\n",
        HEAD + b"Content-Length: 5\r\n\r\nhell",
        CHUNKED,
        CHUNKED + b"5\r\nhello\r\n",
        CHUNKED + b"5\r\nhello\r\n0\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
@pytest.mark.parametrize("clean", [True, False])
def test_an_early_end_is_a_truncation(data: bytes, clean: bool) -> None:
    """A response that said how long it is must be that long."""
    assert read(data, eof=clean).failure is C.TRUNCATED


def test_an_end_before_anything_is_a_lost_connection() -> None:
    """No byte of an answer came."""
    assert read(b"", eof=True).failure is C.CONNECTION_LOST


@pytest.mark.parametrize(
    "extra", [b"x", b"\r\nx", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"\0" * 300]
)
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_bytes_after_the_response_end_the_connection(extra: bytes, size: int) -> None:
    """The response stands, but what follows must not become the next request's answer."""
    reader = read(HEAD + b"Content-Length: 5\r\n\r\nhello" + extra, size=size)
    assert (reader.failure, reader.status, reader.body) == (None, 200, b"hello")
    assert not reader.reusable


def test_a_failure_is_final() -> None:
    """Whatever comes later does not change what was found first."""
    reader = read(HEAD + b"Content-Length: 101\r\n\r\n")
    reader.feed(b"a" * 101)
    reader.feed_eof(clean=True)
    reader.fail(C.DEADLINE)
    assert reader.failure is C.BODY_TOO_LARGE


def test_a_whole_response_outlives_the_deadline() -> None:
    """An answer that is complete stays one, even if the clock strikes afterwards."""
    reader = read(HEAD + b"Content-Length: 0\r\n\r\n")
    reader.fail(C.DEADLINE)
    assert reader.failure is None


def test_fields_worth_keeping_are_those_of_the_final_response() -> None:
    """Content-Type and Retry-After are kept; an interim response's are not."""
    reader = read(
        b"HTTP/1.1 103 Early Hints\r\nRetry-After: 9\r\nContent-Length: 7\r\n\r\n"
        b"HTTP/1.1 429 Slow\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\r\n"
    )
    assert reader.status == 429
    assert (reader.content_type, reader.retry_after) == ("text/plain", None)
    again = read(b"HTTP/1.1 503 No\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n")
    assert again.retry_after == "120"


def test_the_body_is_not_kept_unless_asked() -> None:
    """Only its size and hash are; memory does not grow with the answer."""
    reader = ResponseReader(LIMITS)
    reader.feed(HEAD + b"Content-Length: 5\r\n\r\nhello")
    assert (reader.body, reader.body_size) == (None, 5)


@settings(max_examples=300)
@given(st.lists(st.sampled_from([b"\r\n", b"HTTP/1.1 ", b"200", b" ", b"a", b": ", b"\0", b"5"])))
def test_no_bytes_make_the_reader_stumble(pieces: list[bytes]) -> None:
    """Whatever comes, the reader finishes or waits; nothing is raised."""
    reader = ResponseReader(LIMITS)
    for piece in (HEAD, *pieces):
        reader.feed(piece)
    reader.feed_eof(clean=True)
    assert reader.finished


def test_a_request_is_exactly_these_bytes() -> None:
    """Origin-form, the host without the scheme's port, identity coding, the exact length."""
    assert request_bytes("POST", TARGET, {"X-A": "b c"}, b"{}") == (
        b"POST /hook?x=1 HTTP/1.1\r\n"
        b"Host: api.example.com\r\n"
        b"Accept-Encoding: identity\r\n"
        b"X-A: b c\r\n"
        b"User-Agent: signet-egress\r\n"
        b"Content-Type: application/json\r\n"
        b"Content-Length: 2\r\n"
        b"\r\n{}"
    )


def test_a_request_without_body_says_so_only_where_one_is_expected() -> None:
    """RFC 9110 §8.6: POST states a zero length, GET states none."""
    assert b"Content-Length: 0\r\n" in request_bytes("POST", TARGET, {}, b"")
    assert b"Content-" not in request_bytes("GET", TARGET, {}, b"")


def test_the_callers_own_fields_win() -> None:
    """Content-Type and User-Agent are defaults."""
    data = request_bytes("POST", TARGET, {"content-type": "text/plain", "user-agent": "x"}, b"a")
    assert data.lower().count(b"content-type") == data.lower().count(b"user-agent") == 1


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "content-length",
        "Transfer-Encoding",
        "Connection",
        "EXPECT",
        "Upgrade",
        "TE",
        "Trailer",
        "Keep-Alive",
        "Proxy-Connection",
        "Accept-Encoding",
        "",
        "a b",
        "a:",
        "a\r\nb",
        "a\x00",
        "é",
        "(",
        " Host",
        "Host ",
    ],
)
def test_fields_that_steer_the_connection_cannot_be_set(name: str) -> None:
    """What frames or routes the request is the client's alone, and names are tokens."""
    with pytest.raises(RequestInvalid):
        request_bytes("POST", TARGET, {name: "x"}, b"")


@pytest.mark.parametrize(
    "value", ["a\r\nX: y", "a\n", "\na", "a\rb", "a\0b", "é", " a", "a ", "\t", "a\x7f", "\x1b[0m"]
)
def test_field_values_cannot_begin_another_field(value: str) -> None:
    """No CR, LF, NUL or other control, nothing beyond ASCII, no surrounding space."""
    with pytest.raises(RequestInvalid):
        request_bytes("POST", TARGET, {"X-A": value}, b"")


def test_a_field_given_twice_is_refused() -> None:
    """Names differ only in letter case: receivers would pick one of them."""
    with pytest.raises(RequestInvalid):
        request_bytes("POST", TARGET, {"X-A": "1", "x-a": "2"}, b"")


@pytest.mark.parametrize("method", ["", "post", "HEAD", "CONNECT", "TRACE", "POST /x", "GET\r\n"])
def test_methods_are_a_closed_set(method: str) -> None:
    """HEAD and CONNECT answers are framed differently; the rest nobody needs."""
    with pytest.raises(RequestInvalid):
        request_bytes(method, TARGET, {}, b"")


def test_the_request_head_is_bounded() -> None:
    """Headers of more than 32 KiB are not sent."""
    with pytest.raises(RequestInvalid):
        request_bytes("POST", TARGET, {"X-A": "a" * 33000}, b"")
