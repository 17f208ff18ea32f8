"""`signet billing`: months, counts and refusals, for people and for programs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.billing import DAY_US, START_US, TENANT, Month, document
from tests.inprocess import SEED

from signet.cli import billing as command
from signet.cli.demo.account import ITEMS, open_account
from signet.cli.main import main
from signet.core.billing import Flight, Period, period_of
from signet.core.ids import TenantId
from signet.core.pricing import TenantPlan, load_reserved
from signet.receipts.keys import SigningKey
from signet.receipts.verify import verify
from signet.storage import outbox
from signet.storage.database import Database, SqliteConfig, open_database
from signet.storage.tx import Tx

PLAN: Mapping[str, object] = document(
    vex_overage_tiers=[
        {"threshold": 5, "price_per_unit": 0.50, "stripe_item": ITEMS[0]},
        {"threshold": 9, "price_per_unit": 0.30, "stripe_item": ITEMS[1]},
    ],
    fu_overage_tiers=[],
)
NOW_US = START_US + 25 * DAY_US
NOW: Period = period_of(NOW_US, "UTC")
BEFORE: Period = period_of(NOW.start_us - 1, "UTC")


@dataclass
class Deployment:
    """A database and the settings that name it."""

    directory: Path
    plans: Mapping[TenantId, TenantPlan]
    made: int = 0

    def use(self, work: Callable[[Month], Awaitable[object]], at_us: int) -> None:
        """Do something to the database at some time."""

        async def on_database() -> None:
            async with open_database(SqliteConfig(path=self.directory / "signet.db")) as db:
                month = Month(db, dict(self.plans), now_us=at_us, made=self.made)
                await work(month)
                self.made = month.made

        asyncio.run(on_database())

    def exchange(self, count: int, at_us: int, *, counted: bool = True) -> None:
        """Make exchanges, and count them."""

        async def work(month: Month) -> None:
            await month.exchange(count)
            if counted:
                await month.count()

        self.use(work, at_us)


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """Seventeen exchanges last month, and the settings of the deployment in the environment."""
    reserved = tmp_path / "reserved.json"
    reserved.write_text(json.dumps({TENANT: PLAN}))
    for name, value in {
        "SP_DATA_DIR": str(tmp_path),
        "SP_PRIVATE_KEY_B64": SEED,
        "SP_RESERVED_CONFIG": str(reserved),
        "SP_API_KEYS": json.dumps({"k": {"tenant": TENANT}}),
        "SP_BILLING_GRACE_HOURS": "0",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SP_STRIPE_API_KEY", raising=False)
    monkeypatch.setattr(command, "_now_us", lambda: NOW_US)
    made = Deployment(tmp_path, load_reserved(reserved.read_bytes()))
    made.exchange(17, BEFORE.end_us - 3_600_000_000)
    return made


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed, with single blanks."""
    return " ".join(capsys.readouterr().out.split())


class TestPreview:
    """`signet billing preview`."""

    def test_a_month(self, deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
        """Each tier is a line with its price, and nothing is kept."""
        assert main(["billing", "preview", TENANT, "--period", BEFORE.name]) == 0
        said = told(capsys)
        assert f"acme, {BEFORE.name} (UTC), revision 1" in said
        assert "vex reserve 1 - 10 10 0 0.00 10 -" in said
        assert f"vex tier 1 11 - 15 5 0.5 2.50 5 {ITEMS[0]}" in said
        assert f"vex tier 2 16 - 17 2 0.3 0.60 2 {ITEMS[1]}" in said
        assert "total 3.10 17 USD" in said
        assert main(["billing", "preview", TENANT, "--period", BEFORE.name, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["total"] == "3.10"

    def test_this_month(self, deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
        """Without --period it is the month that it is now."""
        assert main(["billing", "preview", TENANT]) == 1
        assert f"no unit in {NOW.name}" in capsys.readouterr().err
        deployment.exchange(3, NOW_US)
        assert main(["billing", "preview", TENANT]) == 0
        assert f"acme, {NOW.name}" in told(capsys)

    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["a/b"],
            ["-x"],
            ["acme", "--period", "2026-13"],
            ["acme", "--period", "٢٠٢٦-11"],
            ["acme", "--period", ""],
        ],
    )
    def test_misuse(
        self,
        deployment: Deployment,
        capsys: pytest.CaptureFixture[str],
        arguments: list[str],
    ) -> None:
        """What cannot be a tenant or a month is 64."""
        assert main(["billing", "preview", *arguments]) == 64


class TestClose:
    """`signet billing close`."""

    def test_due_months(self, deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
        """What is over is signed and kept, once; what is not over is left alone."""
        deployment.exchange(1, NOW_US)
        assert main(["billing", "close", "--json"]) == 0
        (month,) = json.loads(capsys.readouterr().out)["months"]
        assert (month["period"], month["ending"]) == (BEFORE.name, "closed")
        statement = json.dumps(month["statement"], ensure_ascii=False).encode()
        verify(statement, trust=[SigningKey.from_b64(SEED).kid])
        assert main(["billing", "close"]) == 0
        assert told(capsys) == "no month is to be closed"

    def test_revision(self, deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
        """Late units make another revision; nothing new makes none."""
        close = ["billing", "close", "--period", BEFORE.name]
        assert main(close) == 0
        assert f"acme {BEFORE.name}: closed, revision 1, 3.10 USD, 17 receipts" in told(capsys)
        assert main(close) == 0
        assert "nothing new, revision 1" in told(capsys)
        deployment.exchange(1, BEFORE.end_us - 1)
        assert main(["billing", "close"]) == 0
        assert "closed, revision 2, 3.40 USD" in told(capsys)

    def test_early(self, deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
        """A month that is not over is closed only when that was asked for by name."""
        deployment.exchange(1, NOW_US)
        assert main(["billing", "close", "--period", NOW.name]) == 64
        assert "--early" in capsys.readouterr().err
        assert main(["billing", "close", "--early"]) == 64
        assert main(["billing", "close", "--period", NOW.name, "--early"]) == 0
        assert f"acme {NOW.name}: closed" in told(capsys)

    def test_not_yet(self, deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
        """While units are on their way to being counted there is no statement, and 1."""
        deployment.exchange(1, BEFORE.end_us - 1, counted=False)
        assert main(["billing", "close"]) == 1
        assert "still being counted" in told(capsys)

    def test_only_the_named(
        self, deployment: Deployment, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """--tenant leaves all others alone."""
        assert main(["billing", "close", "--tenant", "globex"]) == 0
        assert told(capsys) == "no month is to be closed"


class TestReconcile:
    """`signet billing reconcile`."""

    def test_agreement(self, deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
        """Without Stripe, receipts and counts are compared, and that is said."""
        assert main(["billing", "reconcile"]) == 0
        said = told(capsys)
        assert "agree" in said
        assert "SP_STRIPE_API_KEY is not set" in said

    def test_mended(self, deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
        """A count that is wrong is told with 1, and right the next time."""

        async def spoil(tx: Tx) -> None:
            await tx.execute("UPDATE billing_periods SET vex = vex + 2")

        deployment.use(lambda month: month.db.transact(spoil), START_US)
        assert main(["billing", "close"]) == 1
        assert "counts differ" in told(capsys)
        assert main(["billing", "reconcile"]) == 1
        assert "receipts, count vex 17 19 mended" in told(capsys)
        assert main(["billing", "reconcile", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"stripe_asked": None, "differences": []}
        assert main(["billing", "close"]) == 0

    def test_stripe_disagrees(
        self,
        deployment: Deployment,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """What Stripe holds too little of is told, item by item, and not mended."""

        async def settle(tx: Tx) -> None:
            await tx.execute("UPDATE billing_windows SET sent_version = version, due_us = NULL")

        deployment.use(lambda month: month.db.transact(settle), START_US)
        with open_account() as account:
            monkeypatch.setenv("SP_STRIPE_API_KEY", account.key)
            monkeypatch.setenv("SP_STRIPE_BASE_URL", account.url)
            for verified in ("on", "off"):
                monkeypatch.setenv("SP_STRIPE_VERIFY", verified)
                assert main(["billing", "reconcile"]) == 1
                said = told(capsys)
                assert f"windows, Stripe {ITEMS[0]} 5 0 look into it" in said
                assert f"windows, Stripe {ITEMS[1]} 2 0 look into it" in said
        assert main(["billing", "reconcile"]) == 1
        assert "Stripe could not be asked" in told(capsys)


class TestRefused:
    """`signet billing dlq`."""

    def refuse(self, deployment: Deployment) -> None:
        """Have the first tier's window refused, the second held back, and a lane stopped."""

        async def settle(tx: Tx) -> None:
            flight = Flight(version=1, value=5, since_us=START_US, attempt=0)
            for found in await outbox.windows_of_period(tx, TENANT, BEFORE.name):
                if found.key.item == ITEMS[0]:
                    await outbox.put_in_flight(tx, found.key, flight)
                    await outbox.settle_dead(
                        tx, found.key, flight, reason="no such customer", now_us=START_US
                    )
                else:
                    await outbox.hold_back(tx, found.key, "outcome_unknown")
            fence = await outbox.claim_lane(tx, "cus/mtr", owner="o", lease_us=1)
            assert fence is not None
            await outbox.stop_lane(tx, "cus/mtr", fence, "401: the key is refused")

        deployment.use(lambda month: month.db.transact(settle), START_US)

    def test_list(self, deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
        """Refused, held back and stopped are told with their reasons."""
        assert main(["billing", "dlq", "list"]) == 0
        assert told(capsys) == "nothing is stuck"
        self.refuse(deployment)
        assert main(["billing", "dlq", "list"]) == 0
        said = told(capsys)
        assert "5 refused no such customer" in said
        assert "2 held back outcome_unknown" in said
        assert "lane cus/mtr is stopped: 401: the key is refused" in said
        assert main(["billing", "dlq", "list", "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert {(w["item"], w["state"]) for w in document["windows"]} == {
            (ITEMS[0], "refused"),
            (ITEMS[1], "held back"),
        }
        assert document["stopped_lanes"] == [
            {"lane": "cus/mtr", "reason": "401: the key is refused"}
        ]

    def test_replay(self, deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
        """Refused windows are due again and lanes go on; what is held back waits for Stripe."""
        self.refuse(deployment)
        assert main(["billing", "dlq", "replay", "--tenant", "globex"]) == 0
        assert told(capsys) == "0 windows are sent again, 1 lanes go on"
        assert main(["billing", "dlq", "replay", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"windows": 1, "lanes": 0}
        assert main(["billing", "dlq", "list"]) == 0
        said = told(capsys)
        assert "refused" not in said
        assert "held back" in said

        async def check(db: Database) -> Any:
            return await db.read_current(outbox.depth)

        async def look(month: Month) -> None:
            assert (await check(month.db)).waiting == 1

        deployment.use(look, START_US)


def test_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every action ends with 69 where there is no database, and makes neither it nor a key."""
    monkeypatch.setenv("SP_DATA_DIR", str(tmp_path / "data"))
    for action in (["preview", "acme"], ["close"], ["reconcile"], ["dlq", "list"]):
        assert main(["billing", *action]) == 69
    assert not (tmp_path / "data").exists()
