"""`signet dry-run`: edits, document and refusal of a call, for a person and for a program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.inprocess import invoice
from tests.live import live

from signet.cli.main import main


def test_what_a_call_becomes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A broken one with its edits, a refused one with its place; the exit code says which."""
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    arguments = "{'invoice_id': 'INV-1', 'amount': 1.50, 'currency': 'EUR', 'customer_name': 'A'}"
    good.write_text(json.dumps(invoice(arguments)))
    bad.write_text(json.dumps(invoice({"invoice_id": "INV-1"})))
    with live(tmp_path) as gateway:
        options = ["--url", gateway.url, "--api-key", "acme-key"]
        assert main(["dry-run", str(good), *options]) == 0
        said = capsys.readouterr().out
        assert "repaired, lossless" in said
        assert '"TotalMinor": 150' in said
        assert "policy: ok" in said
        assert main(["dry-run", str(bad), *options]) == 1
        said = capsys.readouterr().out
        assert "would be refused: 422 arguments_invalid" in said
        assert "/payload/tool_calls/0/function/arguments" in said
        assert main(["dry-run", str(good), "--json", *options]) == 0
        assert json.loads(capsys.readouterr().out)["ok"] is True


def test_a_file_that_is_not_there() -> None:
    """A mistake of the command line."""
    assert main(["dry-run", "/nonexistent.json", "--api-key", "k"]) == 64
