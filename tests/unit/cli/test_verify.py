"""`signet verify`: exit codes and what it prints."""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.receipts.samples import KEY, OTHER_KEY, chain, dumped, export, loaded

from signet.cli.verify import add_parser
from signet.receipts.bundle import PageOf
from signet.receipts.keys import KeySet


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    """A good bundle in a file."""
    return written(tmp_path / "bundle.json", export(chain(3)))


@pytest.fixture
def jwks(tmp_path: Path) -> str:
    """The right key set in a file."""
    return written(tmp_path / "jwks.json", dumped(KeySet.of([KEY.public]).jwks()))


def written(path: Path, data: bytes) -> str:
    """The path of a file with this content."""
    path.write_bytes(data)
    return str(path)


def run(*arguments: str) -> int:
    """The exit code of `signet verify …`."""
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    args = parser.parse_args(["verify", *arguments])
    return args.run(args)


def test_reached(bundle: str, jwks: str, capsys: pytest.CaptureFixture[str]) -> None:
    """0, and the report, by a key set or by a pinned thumbprint."""
    assert run(bundle, "--jwks", jwks) == 0
    assert run(bundle, "--trust", OTHER_KEY.kid, "--trust", KEY.kid) == 0
    assert capsys.readouterr().out.count("SIGNED: bundle") == 2


def test_invalid(tmp_path: Path, jwks: str, capsys: pytest.CaptureFixture[str]) -> None:
    """1, and the step, the hop and the member that failed."""
    document = loaded(export(chain(3)))
    document["chain"][1]["vex_units"] = 9
    tampered = written(tmp_path / "tampered.json", dumped(document))
    assert run(tampered, "--jwks", jwks) == 1
    assert capsys.readouterr().out.startswith("INVALID: Step 4, hop 2, `receipt_hash`")
    assert run(tampered, "--jwks", jwks, "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["verdict"], report["step"], report["hop"]) == ("INVALID", 4, 2)


def test_below(bundle: str, jwks: str, capsys: pytest.CaptureFixture[str]) -> None:
    """2 if nothing is wrong but less is proven than was asked."""
    assert run(bundle) == 2
    assert "INTEGRITY: bundle" in (out := capsys.readouterr().out)
    assert "BELOW" in out
    assert run(bundle, "--jwks", jwks, "--level", "LOGGED", "--json") == 2
    report = json.loads(capsys.readouterr().out)
    assert report["verdict"] == "SIGNED"
    assert "LOGGED" in report["below"]


def test_a_lower_level_can_be_asked_for(bundle: str) -> None:
    """Integrity needs no key."""
    assert run(bundle, "--level", "INTEGRITY") == 0


def test_usage(tmp_path: Path, bundle: str, capsys: pytest.CaptureFixture[str]) -> None:
    """64, and one sentence on standard error, for files that cannot be used."""
    assert run(str(tmp_path / "nowhere.json")) == 64
    assert "nowhere.json: No such file" in capsys.readouterr().err
    for text in (b"{", b"[]", b'{"keys":1}'):
        assert run(bundle, "--jwks", written(tmp_path / "bad.json", text)) == 64
        captured = capsys.readouterr()
        assert captured.err.startswith("signet verify: --jwks is not a key set")
        assert not captured.out


def test_standard_input(
    monkeypatch: pytest.MonkeyPatch, jwks: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`-` reads the document from a pipe."""
    stdin = io.TextIOWrapper(io.BytesIO(export(chain(2))))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert run("-", "--jwks", jwks) == 0
    assert "2 receipts" in capsys.readouterr().out


def test_pages(tmp_path: Path, jwks: str, capsys: pytest.CaptureFixture[str]) -> None:
    """All pages together are a chain; one page alone is nothing."""
    receipts = chain(4)
    files = [
        written(
            tmp_path / f"page{first}.json",
            export(
                receipts[first - 1 : last],
                page=PageOf(from_hop=first, head_hop=4, head_receipt_hash=receipts[3].receipt_hash),
            ),
        )
        for first, last in ((1, 2), (3, 4))
    ]
    assert run(*files, "--jwks", jwks) == 0
    assert "4 receipts" in capsys.readouterr().out
    assert run(files[0], "--jwks", jwks) == 1


def test_it_loads_no_network_module(bundle: str, jwks: str) -> None:
    """A whole verification in a fresh interpreter imports nothing that could reach a network."""
    code = (
        "import argparse, sys; from signet.cli.verify import add_parser\n"
        "parser = argparse.ArgumentParser(); add_parser(parser.add_subparsers())\n"
        f"args = parser.parse_args(['verify', {bundle!r}, '--jwks', {jwks!r}])\n"
        "assert args.run(args) == 0\n"
        "banned = {'asyncio', 'socket', '_socket', 'ssl', 'http', 'urllib'} & set(sys.modules)\n"
        "sys.exit(', '.join(banned) or 0)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, timeout=300
    )
    assert (ran.returncode, ran.stderr) == (0, b"")
