"""`signet usage`: numbers that are right, bars that say the same."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.billing import DAY_US, START_US, TENANT, Month, document

from signet.cli import usage as command
from signet.cli.main import main
from signet.cli.usage import Drawing
from signet.core.billing import period_of
from signet.core.pricing import load_reserved
from signet.storage.database import SqliteConfig, open_database

NOW_US = START_US + 25 * DAY_US
NOW = period_of(NOW_US, "UTC")
BEFORE = period_of(NOW.start_us - 1, "UTC")


class Terminal(io.StringIO):
    """A stream at which a person sits."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six exchanges last month, twelve and ninety tokens this month; the reserve is ten."""
    reserved = tmp_path / "reserved.json"
    reserved.write_text(json.dumps({TENANT: document()}))
    keys = {"k": {"tenant": TENANT, "fu_monthly_limit": 200}, "g": {"tenant": "globex"}}
    monkeypatch.setenv("SP_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("SP_RESERVED_CONFIG", str(reserved))
    monkeypatch.setenv("SP_API_KEYS", json.dumps(keys))
    monkeypatch.setattr(command, "_now_us", lambda: NOW_US)
    plans = dict(load_reserved(reserved.read_bytes()))

    async def fill() -> None:
        async with open_database(SqliteConfig(path=tmp_path / "signet.db")) as db:
            month = Month(db, plans, now_us=NOW_US)
            await month.exchange(6, at_us=BEFORE.start_us)
            await month.exchange(12)
            await month.exchange(1, vex=0, fu=90, outcome="denied")
            await month.count()

    asyncio.run(fill())


@pytest.mark.usefixtures("usage")
def test_page(capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe it is plain ASCII: each count against its limit, the cost, the months before."""
    assert main(["usage"]) == 0
    captured = capsys.readouterr().out
    assert captured.isascii()
    said = " ".join(captured.split())
    assert f"acme, {NOW.name} (UTC)" in said
    assert f"exchanges {'#' * 30} 120 % 12 of 10 reserved" in said
    assert f"tokens {'#' * 27}... 90 % 90 of 100 reserved" in said
    assert f"quota {'.' * 30} 0 % 0 of 200 tokens" in said
    assert "over the reserve: 2 exchanges, 0.02 USD" in said
    assert f"{BEFORE.name} {'#' * 30} 6 0 open" in said
    assert f"globex, {NOW.name} (UTC) exchanges 0, metered only" in said


@pytest.mark.usefixtures("usage")
def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """A program gets the same numbers, of one tenant if it names one."""
    assert main(["usage", "--tenant", "acme", "--json"]) == 0
    (page,) = json.loads(capsys.readouterr().out)["tenants"]
    assert page == {
        "tenant": "acme",
        "period": NOW.name,
        "timezone": "UTC",
        "vex": {"units": 12, "reserved": 10},
        "fu": {"units": 90, "reserved": 100},
        "quota": {"limit": 200, "used": 0, "held": 0},
        "overage": {"amount": "0.02", "currency": "USD"},
        "earlier": [{"period": BEFORE.name, "vex": 6, "fu": 0, "closed": False}],
    }


@pytest.mark.usefixtures("usage")
def test_the_plan_of_the_month(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A month that has begun is shown by the plan that it pinned, not by a newer file."""
    newer = tmp_path / "newer.json"
    newer.write_text(json.dumps({TENANT: document(vex_reserved=1000)}))
    monkeypatch.setenv("SP_RESERVED_CONFIG", str(newer))
    assert main(["usage", "--tenant", "acme"]) == 0
    assert "12 of 10 reserved" in capsys.readouterr().out


@pytest.mark.usefixtures("usage")
def test_strangers(capsys: pytest.CaptureFixture[str]) -> None:
    """A tenant that never was is told as that; what can be none is misuse."""
    assert main(["usage", "--tenant", "initech"]) == 1
    assert "there is no tenant initech" in capsys.readouterr().err
    assert main(["usage", "--tenant", "../x"]) == 64


@pytest.mark.usefixtures("usage")
def test_bad_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reserved-capacity file that cannot be used is 78, as it is for the gateway."""
    (tmp_path / "reserved.json").write_text('{"acme": {"vex_reserved": -1}}')
    assert main(["usage"]) == 78
    monkeypatch.setenv("SP_RESERVED_CONFIG", str(tmp_path / "none.json"))
    assert main(["usage"]) == 78


def test_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a database it is 69, and none is made."""
    monkeypatch.setenv("SP_DATA_DIR", str(tmp_path))
    assert main(["usage"]) == 69
    assert list(tmp_path.iterdir()) == []


def test_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person sees blocks, in a colour that says how near the limit is."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    drawing = Drawing(Terminal())
    assert drawing.bar(50, 100) == "\x1b[32m" + "█" * 15 + "\x1b[0m" + "░" * 15
    assert drawing.bar(80, 100).startswith("\x1b[33m")
    assert drawing.bar(100, 100) == "\x1b[31m" + "█" * 30 + "\x1b[0m"
    assert drawing.bar(0, 100) == "░" * 30
    monkeypatch.setenv("NO_COLOR", "1")
    assert Drawing(Terminal()).bar(50, 100) == "█" * 15 + "░" * 15


@given(st.integers(0, 2**53), st.integers(0, 2**53))
def test_bars(used: int, limit: int) -> None:
    """A bar is always as wide; empty means nothing was used, and full means no less than all."""
    filled, rest = Drawing(io.StringIO()).blocks(used, limit)
    assert len(filled) + len(rest) == 30
    assert (not filled) == (used == 0)
    assert (not rest) == (used > 0 and used >= limit)
