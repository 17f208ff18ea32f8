"""`signet repair`: what it shows, what it writes, how it ends."""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path

import pytest

from signet.cli.exits import CommandFailed, Exit
from signet.cli.repair import add_parser, run


def ended(*arguments: str) -> int:
    """The exit code of `signet repair …`."""
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    return run(parser.parse_args(["repair", *arguments]))


def written(path: Path, text: str) -> str:
    """The path of a file with this content."""
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_edits_are_shown_as_a_diff(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every edit with its line, column and pointer, then the lines before and after."""
    assert ended(written(tmp_path / "a", "{\n 'a': True,\n}\n")) == Exit.DONE
    shown = capsys.readouterr().out
    assert "repaired, lossless: comma 1, literal 1, quotes 1" in shown
    assert "2:2  quotes  /a" in shown
    assert "- 'a': True," in shown
    assert '+ "a": true' in shown


def test_strict_json_needs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Strict JSON is said to be strict."""
    assert ended(written(tmp_path / "a", '{"a": 1}')) == Exit.DONE
    assert "nothing to change" in capsys.readouterr().out


def test_a_refusal_says_where_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be known is refused with its place, and exits 1."""
    assert ended(written(tmp_path / "a", '{\n"a": 10%}')) == Exit.FAILED
    assert "line 2, column 6" in capsys.readouterr().err


def test_write_prints_the_repaired_text_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--write` is for pipes: the text as it is, not a byte more."""
    assert ended(written(tmp_path / "a", "{'a': 1}"), "--write") == Exit.DONE
    assert capsys.readouterr().out == '{"a": 1}'


def test_json_is_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` tells both endings in one line of JSON."""
    assert ended(written(tmp_path / "a", "{'a': 1}"), "--json") == Exit.DONE
    report = json.loads(capsys.readouterr().out)
    assert (report["repaired"], report["grade"], report["text"]) == (True, "lossless", '{"a": 1}')
    assert ended(written(tmp_path / "b", "{'a"), "--json") == Exit.FAILED
    assert json.loads(capsys.readouterr().out)["code"] == "truncated_string"


def test_a_schema_may_ask_for_a_coercion(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--schema` is what makes "12" a number."""
    schema = written(tmp_path / "s", '{"properties": {"n": {"type": "integer"}}}')
    assert ended(written(tmp_path / "a", '{"n": "12"}'), "--schema", schema, "--write") == 0
    assert capsys.readouterr().out == '{"n": 12}'


def test_standard_input_is_a_file_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`-` reads standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"{a: 1}")))
    assert ended("-", "--write") == Exit.DONE
    assert capsys.readouterr().out == '{"a": 1}'


def test_control_sequences_are_not_obeyed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model's text cannot drive the reader's terminal."""
    assert ended(written(tmp_path / "a", "{'a': '\x1b[2J'}")) == Exit.DONE
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, b"\xff", b"{"])
def test_a_file_that_cannot_be_used_is_misuse(tmp_path: Path, content: bytes | None) -> None:
    """A missing file, one that is not UTF-8, and a schema that is not JSON exit 64."""
    path = tmp_path / "x"
    if content is not None:
        path.write_bytes(content)
    good = written(tmp_path / "good", "{}")
    with pytest.raises(CommandFailed) as failed:
        ended(good, "--schema", str(path))
    assert failed.value.exit == Exit.USAGE
