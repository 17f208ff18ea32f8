"""`signet export`: the file is whole and right, or it is not there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from signet.cli.asking import KEY_VARIABLE, URL_VARIABLE
from signet.cli.main import main
from signet.receipts.bundle import content_digest

BODY = b'{"trace_id":"t"}' * 20_000


class Gateway:
    """A loopback server that answers every request with what `script` says."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.seen: list[tuple[str, str | None]] = []
        self.status = 200
        self.headers: dict[str, str] = {"Content-Digest": content_digest(BODY)}
        self.body = BODY
        self.declared = len(BODY)


@contextmanager
def serving() -> Iterator[Gateway]:
    """Run a `Gateway` on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            gateway.seen.append((self.path, self.headers["X-SIGNET-API-Key"]))
            self.send_response(gateway.status)
            for name, value in gateway.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(gateway.declared))
            self.end_headers()
            self.wfile.write(gateway.body)

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        gateway = Gateway(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield gateway
        finally:
            server.shutdown()
            thread.join(10)


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Gateway]:
    """A server to export from, named by the environment, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    with serving() as running:
        monkeypatch.setenv(URL_VARIABLE, running.url)
        monkeypatch.setenv(KEY_VARIABLE, "acme-key")
        yield running


def test_whole_file(gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The bytes that were sent are in the file, and nothing else is in the directory."""
    gateway.headers["X-SIGNET-Response-KID"] = "the-kid"
    assert main(["export", "order:1"]) == 0
    assert gateway.seen == [("/v1/receipts/export/order:1", "acme-key")]
    assert [path.name for path in tmp_path.iterdir()] == ["order:1.bundle.json"]
    assert (tmp_path / "order:1.bundle.json").read_bytes() == BODY
    captured = capsys.readouterr()
    assert captured.out == "order:1.bundle.json: 320.0 kB, signed by the-kid\n"
    assert captured.err == ""


def test_prefix_and_name(gateway: Gateway, tmp_path: Path) -> None:
    """--url may have a path, --out names the file, --api-key wins over the environment."""
    out = tmp_path / "b.json"
    url = f"{gateway.url}/signet/"
    assert main(["export", "t", "--url", url, "--out", str(out), "--api-key", "other"]) == 0
    assert gateway.seen == [("/signet/v1/receipts/export/t", "other")]
    assert out.read_bytes() == BODY


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"body": BODY[:-1] + b"x"}, 1, "wrong Content-Digest"),
        ({"headers": {}}, 1, "no Content-Digest"),
        ({"headers": {"Content-Digest": "md5=:AAAA:"}}, 1, "no Content-Digest"),
        ({"body": BODY[:-5], "declared": len(BODY)}, 1, "wrong Content-Digest"),
        (
            {"status": 404, "body": b'{"title": "Not found", "detail": "no such trace"}'},
            1,
            "404 Not found: no such trace",
        ),
        ({"status": 500, "body": b"<html>"}, 1, "is not a gateway"),
        ({"status": 502, "body": b"[1]"}, 1, "is not a gateway"),
        ({"status": 302, "headers": {"Location": "/elsewhere"}}, 1, "302"),
    ],
    ids=["changed", "no-digest", "other-digest", "cut", "missing", "html", "list", "redirect"],
)
def test_nothing_is_left(
    gateway: Gateway,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, object],
    code: int,
    said: str,
) -> None:
    """Whatever goes wrong: a sentence, an exit code, the old file, and no half of a new one."""
    old = tmp_path / "t.bundle.json"
    old.write_bytes(b"old")
    gateway.declared = len(change.get("body", BODY))  # pyright: ignore[reportArgumentType]
    for name, value in change.items():
        setattr(gateway, name, value)
    assert main(["export", "t"]) == code
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["t.bundle.json"]
    assert old.read_bytes() == b"old"


def test_nowhere_to_write(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    """A place that is not there is told as that, not as a silent gateway."""
    assert main(["export", "t", "--out", "no/such/place.json"]) == 1
    assert "No such file or directory" in capsys.readouterr().err


def test_full_disk(gateway: Gateway, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A target that cannot be replaced leaves nothing beside it."""
    (tmp_path / "taken").mkdir()
    assert main(["export", "t", "--out", "taken"]) == 1
    assert "Is a directory" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_nobody_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a gateway it is 69."""
    with serving() as gone:
        url = gone.url
    monkeypatch.setenv(KEY_VARIABLE, "k")
    assert main(["export", "t", "--url", url]) == 69
    assert f"no answer from {url}: Connection refused" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["../../v1/admin"],
        ["t?x=1"],
        ["x" * 129],
        ["t", "--url", "ftp://host"],
        ["t", "--url", "http://user:password@host"],
        ["t", "--url", "http://host:notaport"],
        ["t", "--url", "http://[::1"],
        ["t", "--api-key", "ke\r\ny"],
        ["t", "--api-key", "schlüssel"],
    ],
)
def test_misuse(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """What cannot be a trace, a URL or a key is 64, and nothing is sent."""
    monkeypatch.setenv(KEY_VARIABLE, "k")
    assert main(["export", *arguments]) == 64
    assert "password" not in capsys.readouterr().err


def test_key_is_wanted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without an API key it says which variable to set."""
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert main(["export", "t"]) == 64
    assert KEY_VARIABLE in capsys.readouterr().err
